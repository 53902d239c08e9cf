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
    """Return the comparisons of pairwise mixing with timm's, each to be made when its turn comes.

    Of every method that mixes inputs and asks for no network.
    """
    chosen = [
        cls
        for cls in METHODS
        if issubclass(cls, MixesInputs) and cls.mixes and not cls.needs_network and not hasattr(cls, "prepare")
    ]
    makers: list[Callable[..., Comparison]] = [
        *(partial(against_timm, cls, mode) for cls in (Mixup, CutMix) for mode in MODES_MOST),
        *(partial(others_against_timm, cls) for cls in chosen if cls not in (Mixup, CutMix)),
    ]
    return [partial(make, *size, device) for size in SIZES for make in makers]


def against_timm(
    cls: type[Mixup | CutMix], mode: Mode, b: int, side: int, classes: int, rounds: int, device: torch.device
) -> Comparison:
    """Compare a mode with timm's batch mode, as the op alone, which has the bar, and with its arguments checked.

    timm checks nothing, and mixes in place.
    """
    batch = _batch(b, side, classes, device)
    cases = [
        Case(mode, _op(cls(mode=mode), *batch, classes), MODES_MOST[mode]),
        Case(f"{mode}, checked", _checked(cls(mode=mode), *batch, classes)),
    ]
    if mode != "batch":
        cases.append(Case(f"timm, {mode}", _timm(cls, *batch, classes, mode)))
    baseline = Case("timm, batch", _timm(cls, *batch, classes, "batch"))
    name = f"{cls.name} and soft targets, {mode}"
    return Comparison(name, {"b": b, "side": side, "k": classes}, baseline, tuple(cases), rounds)


def others_against_timm(
    cls: type[MixesInputs], b: int, side: int, classes: int, rounds: int, device: torch.device
) -> Comparison:
    """Compare a method that timm does not have with timm's mixup in batch mode, arguments checked."""
    batch, method = _batch(b, side, classes, device), cls()
    name: str = getattr(method, "name", "")
    timm, ours = (
        Case("timm, mixup", _timm(Mixup, *batch, classes, "batch")),
        Case(name, _checked(method, *batch, classes)),
    )
    return Comparison(f"{name} and soft targets", {"b": b, "side": side, "k": classes}, timm, (ours,), rounds)


def _batch(b: int, side: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = Generator(device).manual_seed(0)
    images = torch.randn(b, 3, side, side, generator=generator, device=device)
    return images, torch.randint(classes, (b,), generator=generator, device=device)


def _op(method: Mixup | CutMix, images: Tensor, labels: Tensor, classes: int) -> Callable[[], object]:
    generator = Generator(images.device).manual_seed(0)

    def call() -> tuple[Tensor, Tensor]:
        mixing = method.draw(None, images, labels, generator)
        return mixing.mix(images), mixing.mix_targets(as_probabilities(labels, classes))

    return call


def _checked(method: MixesInputs, images: Tensor, labels: Tensor, classes: int) -> Callable[[], object]:
    generator = Generator(images.device).manual_seed(0)
    return lambda: method.mix(images, labels, num_classes=classes, generator=generator)


def _timm(cls: type[Any], images: Tensor, labels: Tensor, classes: int, mode: str) -> Callable[[], object]:
    """Return timm's own call on images of its own, since it mixes them in place."""
    from timm.data.mixup import Mixup as Timm

    alphas = {"mixup_alpha": float(cls is Mixup), "cutmix_alpha": float(cls is CutMix)}
    theirs = Timm(**alphas, mode=mode, label_smoothing=0.0, num_classes=classes)
    mine = images.clone()
    return lambda: theirs(mine, labels)
