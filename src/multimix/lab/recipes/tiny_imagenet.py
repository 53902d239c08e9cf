"""TinyImageNet-200."""

from dataclasses import replace

from multimix.lab.recipes.cifar import cifar10
from multimix.lab.train import SGD, Step, TrainConfig
from multimix.names import multimix_paper


def tiny_imagenet() -> TrainConfig:
    """Return 30 epochs of PreActResNet-18 on TinyImageNet-200 at 64 × 64 pixels.

    Source: our own. Command: ``multimix train tiny-imagenet --root DATA``. Hardware: one GPU. No figure has been
    measured here yet.
    """
    return replace(cifar10(), recipe="tiny-imagenet", data="tiny-imagenet")


def tiny_imagenet_small() -> TrainConfig:
    """Return 16 epochs of a narrow PreActResNet-18 on a twentieth of TinyImageNet-200 at 32 x 32 pixels, for a CPU.

    5,000 training images of 200 classes and a validation split of 2,000. Source: our own. Command: ``multimix train
    tiny-imagenet-small --root DATA``; what it reaches is in the study of the same name. Hardware: 2 CPU cores.
    """
    return replace(
        tiny_imagenet(),
        recipe="tiny-imagenet-small",
        image_size=32,
        validation=0.02,
        train_size=5000,
        width=12,
        strides=(2, 2, 2, 1),
        channels_last=True,
        epochs=16,
        validate_every=8,
    )


def tiny_imagenet_paper() -> TrainConfig:
    """Return the published setting: PreActResNet-18, 1200 epochs, batch 256, a tenth of the rate at 600 and 900.

    Source: the settings of AlignMixup's code, which the MultiMix paper follows; a step takes 2 mini-batches of 128 and
    images are mixed within one, as (from memory) on each of its 2 GPUs. Reported (unverified): 67.11 %. Command:
    ``multimix train tiny-imagenet-paper --root DATA``. Hardware: one GPU; time not measured.
    """
    return TrainConfig(
        recipe="tiny-imagenet-paper",
        label="multimix-paper",
        data="tiny-imagenet",
        validation=0.0,
        final_norm=False,
        method=multimix_paper(),
        optimizer=SGD(learning_rate=0.1, weight_decay=1e-4),
        schedule=Step(milestones=(0.5, 0.75)),
        epochs=1200,
        accumulate=2,
    )
