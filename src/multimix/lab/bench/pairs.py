"""Pairwise mixing, from a mini-batch and its labels to mixed images and soft targets, against timm's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from multimix.lab.bench.timing import Case, Comparison
from multimix.methods import METHODS, CutMix, MixesInputs, Mixup
from multimix.ops import Mode, as_probabilities

MODES_MOST: dict[Mode, float] = {"batch": 1.0, "pair": 1.5, "elem": 1.5}
"""The bars of the modes, in parts of the time of timm's batch mode."""
SIZES = ((128, 32, 100, 401), (32, 224, 1000, 61))
"""Mini-batch, side of an image, classes, rounds."""


def pair_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons with timm of every method that mixes inputs and asks for no network."""
    alone = [
        cls
        for cls in METHODS
        if issubclass(cls, MixesInputs) and cls.mixes and not cls.needs_network and not hasattr(cls, "prepare")
    ]
    makers = [
        *(partial(against_timm, cls, mode) for cls in (Mixup, CutMix) for mode in MODES_MOST),
        *(partial(against_timm, cls, None) for cls in alone if cls not in (Mixup, CutMix)),
    ]
    return [partial(make, *size, device) for size in SIZES for make in makers]


def against_timm(
    cls: type[MixesInputs], mode: Mode | None, b: int, side: int, classes: int, rounds: int, device: torch.device
) -> Comparison:
    """Compare a method with timm's in batch mode; one that timm does not have (mode None) with timm's mixup.

    A mode is compared as the op alone, which has the bar, and with its arguments checked: timm checks nothing, and
    mixes in place.
    """
    generator = Generator(device).manual_seed(0)
    images = torch.randn(b, 3, side, side, generator=generator, device=device)
    batch = images, torch.randint(classes, (b,), generator=generator, device=device), classes
    method: Any = cls() if mode is None else cls(mode=mode)  # type: ignore[call-arg]
    name, theirs = f"{method.name} and soft targets", Mixup if mode is None else cls
    cases = [Case(method.name if mode is None else f"{mode}, checked", _checked(method, *batch))]
    if mode is not None:
        name += f", {mode}"
        cases.insert(0, Case(mode, _op(method, *batch), MODES_MOST[mode]))
        if mode != "batch":
            cases.append(Case(f"timm, {mode}", _timm(cls, *batch, mode)))
    baseline = Case(f"timm, {'mixup' if mode is None else 'batch'}", _timm(theirs, *batch, "batch"))
    return Comparison(name, {"b": b, "side": side, "k": classes}, baseline, tuple(cases), rounds)


def _op(method: Mixup | CutMix, images: Tensor, labels: Tensor, classes: int) -> Callable[[], object]:
    generator = Generator(images.device).manual_seed(0)

    def call() -> tuple[Tensor, Tensor]:
        mixing = method.draw(None, images, labels, generator)
        return mixing.mix(images), mixing.mix_targets(as_probabilities(labels, classes))

    return call


def _checked(method: MixesInputs, images: Tensor, labels: Tensor, classes: int) -> Callable[[], object]:
    generator = Generator(images.device).manual_seed(0)
    return lambda: method.mix(images, labels, num_classes=classes, generator=generator)


def _timm(cls: type, images: Tensor, labels: Tensor, classes: int, mode: str) -> Callable[[], object]:
    """Return timm's own call on images of its own, since it mixes them in place."""
    from timm.data.mixup import Mixup as Timm

    alphas = {"mixup_alpha": float(cls is Mixup), "cutmix_alpha": float(cls is CutMix)}
    theirs = Timm(**alphas, mode=mode, label_smoothing=0.0, num_classes=classes)
    mine = images.clone()
    return lambda: theirs(mine, labels)
