"""All methods at equal budget: each with as many trials on the validation split, then the same seeds for all."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from multimix.distill import SelfDistilled
from multimix.lab.recipes import Study, arms, cifar10_small, digits, tiny_imagenet_small
from multimix.lab.train import SGD, TrainConfig
from multimix.methods import (
    ERM,
    AlignMix,
    Alternate,
    Chain,
    CoMixup,
    CutMix,
    DenseMultiMix,
    ManifoldMixup,
    Mixup,
    MultiMix,
    PuzzleMix,
    SaliencyMix,
    ZetaMixup,
)
from multimix.names import dense_multimix_paper, multimix_balanced, multimix_paper
from multimix.protocols import Method

Candidates = dict[str, tuple[Method, ...]]

RIVALS: Candidates = {
    "mixup": (Mixup(alpha=0.2), Mixup(alpha=1.0)),
    "cutmix": (CutMix(prob=0.5), CutMix()),
    "mixup+cutmix": (Alternate((Mixup(alpha=0.2), CutMix())), Alternate((Mixup(), CutMix()))),
    "manifold-mixup": (ManifoldMixup(alpha=0.2), ManifoldMixup(alpha=2.0)),
    "saliencymix": (SaliencyMix(prob=0.5), SaliencyMix()),
    "zeta-mixup": (ZetaMixup(gamma=2.8), ZetaMixup(gamma=4.0)),
    "alignmix": (AlignMix(alpha=0.2), AlignMix(alpha=2.0)),
    "puzzlemix": (PuzzleMix(alpha=1.0), PuzzleMix(alpha=1.0, clean=1.0)),
    "co-mixup": (CoMixup(clean=1.0), CoMixup(clean=0.0)),
}
"""What the paper compares itself with, and the two that people alternate; two candidates each."""

PUBLISHED: Candidates = {
    "multimix-paper": (
        multimix_paper(),
        Alternate((MultiMix(alpha=(0.5, 2.0), balanced=False), Mixup(alpha=1.0)), (0.5, 0.5)),
    ),
    "dense-multimix-paper": (
        dense_multimix_paper(),
        Alternate((DenseMultiMix(alpha=(0.5, 2.0)), Mixup(alpha=1.0)), (0.5, 0.5)),
    ),
}
"""The published forms, with the published and the usual concentration of their input mixup."""

_BALANCED = multimix_balanced()
RECOMMENDED = MultiMix(alpha=(0.5, 2.0), tuples=4000, balanced=True, clean=0.5, confidence=0.9)
"""What was recommended until the studies of defaults."""
_DENSE = DenseMultiMix(alpha=(0.5, 2.0), balanced=True)

OURS: Candidates = {
    "multimix": (MultiMix(balanced=False), MultiMix(effective=1.5, clean=0.5, balanced=False)),
    "multimix-balanced": (_BALANCED, replace(_BALANCED, confidence=0.99)),
    "multimix-recommended": (RECOMMENDED, replace(RECOMMENDED, clean=0.25)),
    "dense-multimix": (DenseMultiMix(), DenseMultiMix(effective=1.5, clean=0.5)),
    "dense-multimix-balanced": (_DENSE, replace(_DENSE, confidence=0.99)),
}
"""Ours: few images a tuple, or the published concentration with its gradient balanced."""

_CANDIDATES: Candidates = {**RIVALS, **PUBLISHED, **OURS}
_PAIRWISE = ("mixup", "cutmix", "manifold-mixup")
_HEADLINE = (*_PAIRWISE, "multimix-recommended")


def digits_all() -> Study:
    """Which method pays on digits, with and without self-distillation, at equal epochs?"""
    return _comparison("digits-all", digits_all, digits(), _CANDIDATES, distilled=True)


def cifar10_small_headline() -> Study:
    """Does MultiMix pay on a tenth of CIFAR-10, at equal epochs, each with its own weight decay: the headline?"""
    base = cifar10_small()
    methods = {"erm": ERM(), **{name: first_candidate(name) for name in _HEADLINE}}
    return Study(
        name="cifar10-small",
        question=(cifar10_small_headline.__doc__ or "").strip(),
        arms={label: _decays(base, label, method) for label, method in methods.items()},
    )


def cifar10_small_settings() -> Study:
    """Which of two settings of its own does each method want on a tenth of CIFAR-10, at the usual weight decay?"""
    methods = {name: _CANDIDATES[name] for name in (*_PAIRWISE, "multimix-balanced")}
    return _comparison("cifar10-small-settings", cifar10_small_settings, cifar10_small(), methods)


def cifar10_small_forms() -> Study:
    """Which form of ours does validation prefer on a tenth of CIFAR-10, at the weight decay that the rivals prefer?"""
    few = MultiMix(effective=1.5, clean=0.5, balanced=False)
    forms: tuple[Method, ...] = (
        MultiMix(balanced=False),
        few,
        replace(_BALANCED, clean=0.5),
        RECOMMENDED,
        DenseMultiMix(effective=1.5, clean=0.5),
        Chain(Mixup(alpha=0.2), few),
    )
    base = cifar10_small()
    base = replace(base, optimizer=replace(base.optimizer, weight_decay=4 * base.optimizer.weight_decay))
    return Study(
        name="cifar10-small-forms",
        question=(cifar10_small_forms.__doc__ or "").strip(),
        arms=arms(base, {"ours": forms}),
        against="ours",
    )


def cifar10_small_all() -> Study:
    """Which method pays on a tenth of CIFAR-10, with and without self-distillation, at equal epochs?"""
    return _comparison("cifar10-small-all", cifar10_small_all, cifar10_small(), _CANDIDATES, distilled=True)


def tiny_imagenet_small_headline() -> Study:
    """Does MultiMix pay with 200 classes, untuned, at equal epochs?"""
    methods: dict[str, Method] = {"erm": ERM(), **{name: first_candidate(name) for name in _HEADLINE}}
    return Study(
        name="tiny-imagenet-small",
        question=(tiny_imagenet_small_headline.__doc__ or "").strip(),
        arms=arms(tiny_imagenet_small(), methods),
    )


def _comparison(
    name: str, about: Callable[[], Study], base: TrainConfig, methods: Candidates, *, distilled: bool = False
) -> Study:
    plain = {"erm": _decays(base, "erm", ERM()), **arms(base, methods)}
    taught = {
        f"distilled-{label}": tuple(_taught(config, f"distilled-{label}") for config in candidates)
        for label, candidates in plain.items()
    }
    return Study(name=name, question=(about.__doc__ or "").strip(), arms=plain | (taught if distilled else {}))


def first_candidate(name: str) -> Method:
    """Return the first candidate of a method; those of ``cifar10-small-settings`` and ``-forms`` were chosen there."""
    return _CANDIDATES[name][0]


def _decays(base: TrainConfig, label: str, method: Method) -> tuple[TrainConfig, ...]:
    """Return two candidates that differ in weight decay: the usual one and four times it."""
    optimizer = cast("SGD", base.optimizer)
    (plain,) = arms(base, {label: method})[label]
    return tuple(
        replace(plain, optimizer=replace(optimizer, weight_decay=factor * optimizer.weight_decay)) for factor in (1, 4)
    )


def _taught(config: TrainConfig, label: str) -> TrainConfig:
    return replace(config, label=label, method=SelfDistilled(cast("Method", config.method), warmup=True))
