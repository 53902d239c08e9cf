"""Where mixing pays: training that over-fits, and training that does not; questions and bars set before the runs.

Each arm has four candidates where training over-fits. Successive halving on validation images chooses one (seeds 1000
and on, eight runs an arm); the arms are then trained with seeds 0 to 9, each with 200 training images of its own, and
tested once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from comparison import RECOMMENDED
from multimix.lab.recipes import Study, arms, digits, digits_few
from multimix.lab.train import SGD, CrossEntropy, TrainConfig
from multimix.methods import ERM, Alternate, Chain, CutMix, DenseMultiMix, ManifoldMixup, Mixup, MultiMix, RegMixup
from multimix.protocols import Losses, Method, Network


@dataclass(frozen=True)
class Focal:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002, equation 4): (1 - p)^gamma times cross-entropy."""

    name: ClassVar[str] = "focal"
    gamma: float = 2.0

    def __call__(self, network: Network, inputs: Tensor, targets: Tensor, **_: object) -> Losses:
        """Return the mean over the mini-batch."""
        logp = network(inputs).log_softmax(1).gather(1, targets[:, None])[:, 0]
        return Losses(-((1 - logp.exp()).clamp_min(1e-6) ** self.gamma * logp).mean())


@dataclass(frozen=True)
class Squared:
    """Squared error of the logits from a one-hot label of some height (Hui and Belkin 2021, arXiv 2006.07322)."""

    name: ClassVar[str] = "squared"
    height: float = 1.0

    def __call__(self, network: Network, inputs: Tensor, targets: Tensor, **_: object) -> Losses:
        """Return the mean over classes and the mini-batch."""
        logits = network(inputs)
        return Losses((logits - self.height * F.one_hot(targets, logits.shape[1])).square().mean())


_BALANCED = replace(RECOMMENDED, confidence=None)
_DENSE = DenseMultiMix(alpha=(0.5, 2.0), balanced=True, clean=0.5)


def loss_digits() -> Study:
    """As a loss alone, on 200 digits: is MultiMix more accurate than cross-entropy, and its NLL below smoothing's?

    Success: a form of ours at least 0.5 point above cross-entropy, the paired 95 % interval above 0, with an NLL below
    that of label smoothing.
    """
    base = digits_few()
    return _study(loss_digits, "loss-digits", {**_losses(base), **arms(base, _forms())})


def inputs_digits() -> Study:
    """On mixed inputs, on 200 digits: does MultiMix in the same step add to the best pairwise rival of equal cost?

    Success: an arm of ours at least 1.0 point above the best of the pairwise ones, the paired 95 % interval above 0,
    with NLL and ECE no worse.
    """
    return _study(inputs_digits, "inputs-digits", {"erm": _decays(digits_few()), **arms(digits_few(), _mixed())})


def regmixup_digits() -> Study:
    """RegMixup, on 200 digits: does it pay at equal cost and at equal epochs, and does MultiMix add to it?

    Its step costs two of mixup's, so that 75 epochs cost as much as 150. Nothing is tuned: alpha is mixup's of the
    trials before, and the paper's. Success of MultiMix: above the same without it, the paired 95 % interval above 0.
    """
    base = digits_few()
    half = replace(base, epochs=75, validate_every=75)
    few = MultiMix(effective=2.0, clean=0.5, balanced=False)
    equal: dict[str, Method] = {
        "regmixup-half": RegMixup(alpha=0.5),
        "regmixup-20-half": RegMixup(),
        "regmixup+multimix-half": Chain(RegMixup(alpha=0.5), few),
    }
    longer: dict[str, Method] = {"mixup": Mixup(alpha=0.5), "regmixup": RegMixup(alpha=0.5)}
    chosen = {**arms(base, longer), **arms(half, equal)}
    return _study(regmixup_digits, "regmixup-digits", chosen, against="mixup")


def turns_digits() -> Study:
    """In turns, on 200 digits: does a coin of MultiMix and mixed inputs, as the paper's, beat either by itself?

    Nothing is tuned but mixup, whose alpha the trials before chose. Success: an arm of ours with mixed inputs at least
    1.0 point above the better of mixup and coin, the paired 95 % interval above 0, with NLL and ECE no worse.
    """
    pair = Mixup(alpha=0.5)
    forms: dict[str, Method] = {
        "mixup": pair,
        "coin": Alternate((pair, CutMix())),
        "multimix": MultiMix(balanced=False),
        "multimix-or-mixup": Alternate((MultiMix(balanced=False), pair)),
        "multimix-or-coin": Alternate((MultiMix(balanced=False), pair, CutMix()), (0.5, 0.25, 0.25)),
        "erm-or-mixup": Alternate((ERM(), pair)),
    }
    return _study(turns_digits, "turns-digits", arms(digits_few(), forms), against="mixup")


def short_digits() -> Study:
    """Under-fitted, 1,294 digits for 16 epochs: are the forms that are recommended at most 0.3 below plain training?

    Success: no paired difference to cross-entropy below -0.3 point in the mean.
    """
    forms: dict[str, Method] = {
        "erm": ERM(),
        "multimix": MultiMix(balanced=False),
        "multimix-recommended": RECOMMENDED,
        "recommended-0.99": replace(RECOMMENDED, confidence=0.99),
        "balanced": _BALANCED,
        "mixup": Mixup(),
        "coin": _coin(1.0),
    }
    return _study(short_digits, "short-digits", arms(digits(), forms))


def _study(
    about: Callable[[], Study], name: str, chosen: dict[str, tuple[TrainConfig, ...]], against: str = "erm"
) -> Study:
    question = " ".join((about.__doc__ or "").split())
    return Study(name=name, question=question, arms=chosen, against=against, seeds=10)


def _decays(base: TrainConfig) -> tuple[TrainConfig, ...]:
    return tuple(
        replace(base, label="erm", method=ERM(), optimizer=SGD(learning_rate=0.1, weight_decay=decay))
        for decay in (2e-4, 5e-4, 1e-3, 2e-3)
    )


def _losses(base: TrainConfig) -> dict[str, tuple[TrainConfig, ...]]:
    """Return what people take in place of cross-entropy."""
    smoothed = (CrossEntropy(label_smoothing=share) for share in (0.02, 0.05, 0.1, 0.2))
    return {
        "erm": _decays(base),
        "smoothing": tuple(replace(base, label="smoothing", method=ERM(), objective=own) for own in smoothed),
        **arms(base, {"focal": map(Focal, (0.5, 1.0, 2.0, 3.0)), "squared": map(Squared, (1.0, 3.0, 10.0, 30.0))}),
    }


def _forms() -> dict[str, Iterable[Method]]:
    """Return ours as a loss alone: few images a tuple, or the published concentration with its gradient balanced."""
    return {
        "multimix": (
            MultiMix(balanced=False),
            *(MultiMix(effective=e, clean=0.5, balanced=False) for e in (1.5, 2.0, 3.0)),
        ),
        "recommended": (RECOMMENDED, *(replace(RECOMMENDED, confidence=c) for c in (0.95, 0.97, 0.99))),
        "balanced": (_BALANCED, *(replace(_BALANCED, clean=c) for c in (0.0, 0.25, 0.75))),
        "dense": (_DENSE, *(replace(_DENSE, confidence=c) for c in (0.9, 0.97, 0.99))),
    }


def _mixed() -> dict[str, Iterable[Method]]:
    """Return pairwise mixing of inputs, and the same with ours on the mixed mini-batch."""
    few = [MultiMix(effective=e, clean=c, balanced=False) for e, c in ((1.5, 0.5), (1.5, 0.0), (2.0, 0.5), (1.2, 0.5))]
    strong = [replace(RECOMMENDED, confidence=c) for c in (None, 0.99, 0.97, 0.9)]
    return {
        "mixup": map(Mixup, (0.2, 0.5, 1.0, 2.0)),
        "cutmix": (CutMix(prob=0.5), CutMix(), CutMix(alpha=0.5), CutMix(alpha=0.5, prob=0.5)),
        "manifold-mixup": map(ManifoldMixup, (0.2, 0.5, 1.0, 2.0)),
        "coin": map(_coin, (0.2, 0.5, 1.0, 2.0)),
        "mixup+multimix": [Chain(Mixup(), form) for form in few],
        "coin+multimix": [_coin(1.0, form) for form in few],
        "mixup+balanced": [Chain(Mixup(), form) for form in strong],
        "coin+balanced": [_coin(1.0, form) for form in strong],
    }


def _coin(alpha: float, then: Method | None = None) -> Alternate:
    """Return Mixup or CutMix by the flip of a coin, with a method on what was mixed."""
    sides: tuple[Mixup | CutMix, ...] = (Mixup(alpha), CutMix())
    return Alternate(tuple(side if then is None else Chain(side, then) for side in sides))
