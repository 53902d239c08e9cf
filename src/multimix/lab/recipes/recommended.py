"""The recipes with the form of MultiMix that our studies recommend; ``docs/results.md`` says what it is worth."""

from dataclasses import replace

from multimix.lab.recipes.cifar import cifar10, cifar10_small
from multimix.lab.recipes.digits import digits
from multimix.lab.train import TrainConfig
from multimix.names import multimix_recommended


def digits_multimix() -> TrainConfig:
    """Return the recipe of digits with the recommended form of MultiMix.

    Source: our own; the form is that of the study ``cifar10-small-forms``. Command: ``multimix train digits-multimix``.
    Hardware: 2 CPU cores. No figure has been measured with this recipe yet.
    """
    return _with_ours(digits(), "digits-multimix")


def cifar10_small_multimix() -> TrainConfig:
    """Return the recipe of a tenth of CIFAR-10 with the recommended form of MultiMix and four times the weight decay.

    Source: the study ``cifar10-small``, whose trials prefer that decay for this form. Command: ``multimix train
    cifar10-small-multimix --data npz:cifar10.npz``. Hardware: 2 CPU cores.
    """
    recipe = cifar10_small()
    optimizer = replace(recipe.optimizer, weight_decay=4 * recipe.optimizer.weight_decay)
    return replace(_with_ours(recipe, "cifar10-small-multimix"), optimizer=optimizer)


def cifar10_multimix() -> TrainConfig:
    """Return the recipe of CIFAR-10 with the recommended form of MultiMix, which is measured on a tenth of it only.

    Source: the study ``cifar10-small``; with all images and the wide network neither time nor number has been measured.
    Command: ``multimix train cifar10-multimix``. Hardware: one GPU.
    """
    return _with_ours(cifar10(), "cifar10-multimix")


def _with_ours(recipe: TrainConfig, name: str) -> TrainConfig:
    return replace(recipe, recipe=name, label="multimix-recommended", method=multimix_recommended())
