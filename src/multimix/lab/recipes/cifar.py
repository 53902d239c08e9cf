"""CIFAR-10 and CIFAR-100."""

from dataclasses import replace

from multimix.lab.train import SGD, Cosine, Step, TrainConfig
from multimix.names import multimix_paper


def cifar10() -> TrainConfig:
    """Return 30 epochs of PreActResNet-18 on CIFAR-10, a budget that people have.

    Source: our own. Command: ``multimix train cifar10 --precision bf16-mixed``, or with the data in one file,
    ``multimix train cifar10 --data npz:cifar10.npz``. Hardware: one GPU; on a CPU add ``--width 16``. No full-width
    figure has been measured here yet.
    """
    return TrainConfig(
        recipe="cifar10",
        data="cifar10",
        optimizer=SGD(learning_rate=0.1, nesterov=True, weight_decay=5e-4),
        schedule=Cosine(warmup_epochs=1),
        epochs=30,
    )


def cifar100() -> TrainConfig:
    """Return the recipe of :func:`cifar10` for CIFAR-100.

    Source: our own. Command: ``multimix train cifar100``. Hardware: one GPU. No figure has been measured here yet.
    """
    return replace(cifar10(), recipe="cifar100", data="cifar100")


def cifar10_small() -> TrainConfig:
    """Return 25 epochs of a narrow PreActResNet-18 on a tenth of CIFAR-10, a budget for a CPU.

    4,500 training images and a validation split of 5,000; the first group halves the images, the last keeps 4 x 4
    positions. Source: our own. Command: ``multimix train cifar10-small --data npz:cifar10.npz``; what it reaches with
    each method: ``multimix compare studies/comparison.py:cifar10_small_headline``. Hardware: 2 CPU cores.
    """
    return replace(
        cifar10(),
        recipe="cifar10-small",
        train_size=4500,
        width=12,
        strides=(2, 2, 2, 1),
        channels_last=True,
        epochs=25,
        validate_every=5,
    )


def cifar10_paper() -> TrainConfig:
    """Return the published setting: PreActResNet-18, 2000 epochs, batch 128, a tenth of the rate at 500, 1000 and 1500.

    Source: the settings of AlignMixup's code, which the MultiMix paper follows; reported (unverified): 97.07 % on
    CIFAR-10 as the mean of the best test epochs of 3 runs. Ours reports the last epoch. Command: ``multimix train
    cifar10-paper``.
    Hardware: one GPU; time not measured.
    """
    return TrainConfig(
        recipe="cifar10-paper",
        label="multimix-paper",
        data="cifar10",
        validation=0.0,
        final_norm=False,
        method=multimix_paper(),
        optimizer=SGD(learning_rate=0.1, weight_decay=1e-4),
        schedule=Step(milestones=(0.25, 0.5, 0.75)),
        epochs=2000,
    )


def cifar100_paper() -> TrainConfig:
    """Return the published setting of :func:`cifar10_paper` for CIFAR-100.

    Source: as there; reported (unverified): 81.82 %. Command: ``multimix train cifar100-paper``. Hardware: one GPU;
    time not measured.
    """
    return replace(cifar10_paper(), recipe="cifar100-paper", data="cifar100")
