"""Recipes: functions that return a complete training configuration, those of published settings among them.

The docstring of a recipe names its source, its command, the hardware it is meant for, and what it reaches where that
has been measured here. ``docs/results.md`` says what the recommended form of MultiMix is worth.
"""

import difflib
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from multimix.lab.recipes._folder import for_data as for_data
from multimix.lab.recipes._folder import is_own as is_own
from multimix.lab.recipes.study import Study as Study
from multimix.lab.recipes.study import arms as arms
from multimix.lab.train import SGD, Cosine, Step, TrainConfig
from multimix.methods import MultiMix
from multimix.names import multimix_paper

T = TypeVar("T", bound=Any)


class Recipes(dict[str, Callable[[], T]]):
    """Recipes by the name that the command line takes."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def add(self, function: Callable[[], T]) -> Callable[[], T]:
        """Enter a recipe under its name, which its configuration gets too."""
        name = function.__name__.replace("_", "-")
        self[name] = wraps(function)(lambda: replace(function(), recipe=name))
        return self[name]

    def named(self, name: str) -> T:
        """Return the configuration of a recipe, whose name may have hyphens or underscores.

        Raises:
            ValueError: If the name is unknown.
        """
        plain = name.lower().replace("_", "-")
        if plain in self:
            return self[plain]()
        own = ["folder:PATH"] if plain == "folder" else [f"folder:{name}"] if name and Path(name).is_dir() else []
        near = own or difflib.get_close_matches(plain, self, n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise ValueError(f"unknown {self.what} {name!r}{hint} known are {', '.join(self)}")


RECIPES: Recipes[TrainConfig] = Recipes("recipe")
"""Every recipe of ``multimix train``."""
recipe_named = RECIPES.named

# For a CPU: the first group halves the images, the last keeps 4 x 4 positions of 32 x 32.
_NARROW: dict[str, Any] = {"width": 12, "strides": (2, 2, 2, 1), "channels_last": True}
_IMAGENET: dict[str, Any] = {
    "workers": 8,
    "model": "torchvision:resnet50",
    "optimizer": SGD(learning_rate=0.1, nesterov=True, weight_decay=1e-4),
    "precision": "bf16-mixed",
}


@RECIPES.add
def digits() -> TrainConfig:
    """Return a run on scikit-learn's 1,797 digits of 8 × 8 pixels that takes seconds on a CPU.

    Source: our own. Command: ``multimix train digits``. Hardware: 2 CPU cores.
    """
    return TrainConfig(
        data="digits",
        crop_padding=1,
        flip=False,
        model="preact_resnet18",
        width=8,
        strides=(1, 2, 1, 1),
        optimizer=SGD(learning_rate=0.2, weight_decay=5e-4),
        schedule=Cosine(warmup_epochs=1),
        epochs=16,
        batch_size=128,
    )


@RECIPES.add
def digits_few() -> TrainConfig:
    """Return a run that over-fits: 200 of scikit-learn's digits, other ones for every seed, and 1,198 to test on.

    Source: our own. Plain training reaches 100 % of the training images here, the regime that mixing is for. Command:
    ``multimix train digits-few``. Hardware: 2 CPU cores.
    """
    return replace(
        digits(),
        data="digits-few",
        validation=1 / 3,
        train_size=200,
        split_seed=None,
        strides=(1, 2, 2, 1),
        optimizer=SGD(learning_rate=0.1, weight_decay=5e-4),
        epochs=150,
        batch_size=64,
        validate_every=150,
    )


@RECIPES.add
def cifar10() -> TrainConfig:
    """Return 30 epochs of PreActResNet-18 on CIFAR-10, a budget that people have.

    Source: our own. Command: ``multimix train cifar10 --precision bf16-mixed``, or with the data in one file ``--data
    npz:cifar10.npz``. Hardware: one GPU; on a CPU add ``--width 16``.
    """
    return TrainConfig(
        data="cifar10",
        optimizer=SGD(learning_rate=0.1, nesterov=True, weight_decay=5e-4),
        schedule=Cosine(warmup_epochs=1),
        epochs=30,
    )


@RECIPES.add
def cifar100() -> TrainConfig:
    """Return the recipe of :func:`cifar10` for CIFAR-100.

    Source: our own. Command: ``multimix train cifar100``. Hardware: one GPU.
    """
    return replace(cifar10(), data="cifar100")


@RECIPES.add
def cifar10_small() -> TrainConfig:
    """Return 25 epochs of a narrow PreActResNet-18 on a tenth of CIFAR-10, a budget for a CPU.

    4,500 training images and a validation split of 5,000. Source: our own. Command: ``multimix train cifar10-small
    --data npz:cifar10.npz``; with each method ``multimix compare studies/comparison.py:cifar10_small_headline``.
    Hardware: 2 CPU cores.
    """
    return replace(cifar10(), **_NARROW, train_size=4500, epochs=25, validate_every=5)


@RECIPES.add
def cifar10_paper() -> TrainConfig:
    """Return the published setting: PreActResNet-18, 2000 epochs, batch 128, a tenth of the rate at 500, 1000 and 1500.

    Source: the settings of AlignMixup's code, which the MultiMix paper follows; reported (unverified): 97.07 % on
    CIFAR-10 as the mean of the best test epochs of 3 runs. Ours reports the last epoch. Command: ``multimix train
    cifar10-paper``. Hardware: one GPU.
    """
    return _published("cifar10", 2000, (0.25, 0.5, 0.75))


@RECIPES.add
def cifar100_paper() -> TrainConfig:
    """Return the published setting of :func:`cifar10_paper` for CIFAR-100.

    Source: as there; reported (unverified): 81.82 %. Command: ``multimix train cifar100-paper``. Hardware: one GPU.
    """
    return replace(cifar10_paper(), data="cifar100")


@RECIPES.add
def tiny_imagenet() -> TrainConfig:
    """Return 30 epochs of PreActResNet-18 on TinyImageNet-200 at 64 × 64 pixels.

    Source: our own. Command: ``multimix train tiny-imagenet --root DATA``. Hardware: one GPU.
    """
    return replace(cifar10(), data="tiny-imagenet")


@RECIPES.add
def tiny_imagenet_small() -> TrainConfig:
    """Return 16 epochs of a narrow PreActResNet-18 on a twentieth of TinyImageNet-200 at 32 x 32 pixels, for a CPU.

    5,000 training images of 200 classes and a validation split of 2,000. Source: our own. Command: ``multimix train
    tiny-imagenet-small --root DATA``; what it reaches is in the study of the same name. Hardware: 2 CPU cores.
    """
    return replace(
        tiny_imagenet(), **_NARROW, image_size=32, validation=0.02, train_size=5000, epochs=16, validate_every=8
    )


@RECIPES.add
def tiny_imagenet_paper() -> TrainConfig:
    """Return the published setting: PreActResNet-18, 1200 epochs, batch 256, a tenth of the rate at 600 and 900.

    Source: the settings of AlignMixup's code, which the MultiMix paper follows; a step takes 2 mini-batches of 128 and
    images are mixed within one, as on each of the paper's GPUs (2, from memory). Reported (unverified): 67.11 %.
    Command: ``multimix train tiny-imagenet-paper --root DATA``. Hardware: one GPU.
    """
    return replace(_published("tiny-imagenet", 1200, (0.5, 0.75)), accumulate=2)


@RECIPES.add
def imagenet() -> TrainConfig:
    """Return 100 epochs of ResNet-50 on ImageNet in bfloat16.

    Source: our own. Command: ``multimix train imagenet --root DATA``. Hardware: one large GPU.
    """
    return TrainConfig(
        **_IMAGENET, data="imagenet", validation=0.01, schedule=Cosine(warmup_epochs=5), epochs=100, batch_size=256
    )


@RECIPES.add
def imagenet_paper() -> TrainConfig:
    """Return the published setting: ResNet-50, 300 epochs, batch 1024, a tenth of the rate every 75 epochs.

    Source: the settings of AlignMixup's code, which the MultiMix paper follows; a step takes 8 mini-batches of 128 and
    images are mixed within one, as on each of its 8 GPUs. Reported: 78.81 %. Colour jitter and PCA lighting of that
    code are left out. Command: ``multimix train imagenet-paper --root DATA``, on 8 GPUs with ``--devices 8 --batch-size
    1024 --accumulate 1``. Hardware: one large GPU, or 8.
    """
    return replace(_published("imagenet", 300, (0.25, 0.5, 0.75)), **_IMAGENET, final_norm=None, accumulate=8)


@RECIPES.add
def digits_multimix() -> TrainConfig:
    """Return the recipe of digits with the recommended form of MultiMix.

    Source: our own; the form is that of the study ``defaults-short``. Command: ``multimix train digits-multimix``.
    Hardware: 2 CPU cores.
    """
    return _recommended(digits())


@RECIPES.add
def cifar10_small_multimix() -> TrainConfig:
    """Return the recipe of a tenth of CIFAR-10 with the recommended form of MultiMix and four times the weight decay.

    Source: the study ``defaults-photos-short``; the trials of ``cifar10-small`` prefer that decay for every method.
    Command: ``multimix train cifar10-small-multimix --data npz:cifar10.npz``. Hardware: 2 CPU cores.
    """
    recipe = cifar10_small()
    optimizer = replace(recipe.optimizer, weight_decay=4 * recipe.optimizer.weight_decay)
    return replace(_recommended(recipe), optimizer=optimizer)


@RECIPES.add
def cifar10_multimix() -> TrainConfig:
    """Return the recipe of CIFAR-10 with the recommended form of MultiMix, which is measured on a tenth of it only.

    Source: the study ``defaults-photos-short``. Command: ``multimix train cifar10-multimix``. Hardware: one GPU.
    """
    return _recommended(cifar10())


def _published(data: str, epochs: int, milestones: tuple[float, ...]) -> TrainConfig:
    return TrainConfig(
        label="multimix-paper",
        data=data,
        validation=0.0,
        final_norm=False,
        method=multimix_paper(),
        optimizer=SGD(learning_rate=0.1, weight_decay=1e-4),
        schedule=Step(milestones=milestones),
        epochs=epochs,
        batch_size=128,
    )


def _recommended(config: TrainConfig) -> TrainConfig:
    return replace(config, label="multimix", method=MultiMix())
