"""1,000 images of CIFAR-10, 100 a class: the loss alone, mixed inputs, and both, where plain training over-fits.

Settings are those of a first look with one or two seeds an arm, none of which is used here; nothing is tuned since.
Seeds 0 to 7 have training images of their own, and the same 10,000 to be tested on once. The other shares of label
smoothing were written when those runs were done, before any of their own.
"""

from collections.abc import Iterable
from dataclasses import replace

from multimix.lab.recipes import Study, arms, cifar10_small
from multimix.lab.train import SGD, CrossEntropy, TrainConfig
from multimix.methods import ERM, Alternate, Chain, CutMix, Mixup, MultiMix
from multimix.protocols import Method


def few_cifar10() -> Study:
    """Does MultiMix pay on 1,000 images of CIFAR-10, as a loss alone, and on mixed inputs?

    Success of the loss alone: at least 0.5 point above cross-entropy, the paired 95 % interval above 0, with an NLL
    below that of label smoothing. On mixed inputs: coin+multimix at least 1.0 point above the better of mixup and
    coin, the interval above 0, with NLL and ECE no worse.
    """
    base = _base()
    few = MultiMix(effective=1.5, clean=0.5, balanced=False)
    forms: dict[str, Method | Iterable[Method]] = {
        "erm": ERM(),
        "multimix": MultiMix(balanced=False),
        "mixup": Mixup(),
        "coin": Alternate((Mixup(), CutMix())),
        "coin+multimix": Alternate((Chain(Mixup(), few), Chain(CutMix(), few))),
    }
    question = " ".join((few_cifar10.__doc__ or "").split())
    chosen = {**arms(base, forms), "smoothing": (_smoothed("smoothing", 0.1),)}
    return Study(name="few-cifar10", question=question, arms=chosen, seeds=8)


def few_cifar10_smoothing() -> Study:
    """Which share of label smoothing has the lowest NLL on the same 1,000 images?"""
    question = few_cifar10_smoothing.__doc__ or ""
    chosen = {f"smoothing-{share}": (_smoothed(f"smoothing-{share}", share),) for share in (0.05, 0.2)}
    return Study(name="few-cifar10-smoothing", question=question, arms=chosen, against="smoothing-0.05", seeds=8)


def _base() -> TrainConfig:
    return replace(
        cifar10_small(),
        train_size=1000,
        split_seed=None,
        optimizer=SGD(learning_rate=0.1, nesterov=True, weight_decay=2e-3),
        epochs=100,
        validate_every=100,
    )


def _smoothed(label: str, share: float) -> TrainConfig:
    return replace(_base(), label=label, method=ERM(), objective=CrossEntropy(label_smoothing=share))
