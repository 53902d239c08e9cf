"""Other amounts of data and other beginnings: whole CIFAR-10 on a CPU, and fine-tuning."""

from dataclasses import replace

from comparison import first_candidate
from multimix.lab.recipes import Study, arms, cifar10_small
from multimix.methods import ERM
from multimix.protocols import Method

_PAIRWISE = ("mixup", "cutmix", "manifold-mixup")


def cifar10_whole() -> Study:
    """Does MultiMix pay where there are ten times as many images: all of CIFAR-10, 8 epochs of the narrow network?

    The optimiser takes as many steps as 80 epochs of the small recipe would. Nothing is tuned.
    """
    base = replace(cifar10_small(), train_size=None, epochs=8, validate_every=4)
    return Study(
        name="cifar10-whole",
        question=(cifar10_whole.__doc__ or "").strip(),
        arms=arms(base, _first("mixup", "manifold-mixup", "multimix-recommended")),
    )


def fine_tune() -> Study:
    """Does MultiMix pay in fine-tuning: 1,000 images of CIFAR-10, from a network trained on TinyImageNet (``--init``)?

    The network is that of a run of ``tiny-imagenet-small``, named by ``--init RUN``; 10 epochs at a tenth of the
    learning rate, a new classifier. Nothing is tuned.
    """
    base = cifar10_small()
    optimizer = replace(base.optimizer, learning_rate=base.optimizer.learning_rate / 10)
    base = replace(base, train_size=1000, epochs=10, optimizer=optimizer)
    return Study(
        name="fine-tune",
        question=(fine_tune.__doc__ or "").strip(),
        arms=arms(base, _first(*_PAIRWISE, "multimix", "multimix-recommended")),
        needs=("init",),
    )


def _first(*names: str) -> dict[str, Method]:
    """Return plain training and the first candidate of each method."""
    return {"erm": ERM(), **{name: first_candidate(name) for name in names}}
