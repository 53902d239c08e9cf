"""Pairwise mixing, from a mini-batch and its labels to mixed images and soft targets, against timm's."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from multimix.bench.compare import Case, Comparison
from multimix.methods.cutmix import CutMix
from multimix.methods.fmix import FMix
from multimix.methods.mixup import Mixup
from multimix.methods.resizemix import ResizeMix
from multimix.methods.zetamixup import ZetaMixup
from multimix.ops import Mode

_MOST: dict[Mode, float] = {"batch": 1.0, "pair": 1.5, "elem": 1.5}
"""The bars, in parts of the time of timm's batch mode."""
SIZES = ((128, 32, 10, 401), (128, 32, 100, 401), (128, 32, 1000, 401), (32, 224, 1000, 61))
"""Mini-batch, side of an image, classes, rounds."""


def pair_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons of pairwise mixing with timm's, each to be made when its turn comes."""
    return [partial(make, *size, device) for size in SIZES for make in (against_mixup, against_cutmix)]


def against_mixup(b: int, side: int, classes: int, rounds: int, device: torch.device) -> Comparison:
    """Compare the modes of mixup, and zeta-mixup, with timm's mixup; the checks of the arguments are part of ours."""
    images, labels = _batch(b, side, classes, device)
    generator = Generator(device).manual_seed(0)
    cases = [
        *(Case(mode, _ours(Mixup(mode=mode), images, labels, classes, generator), _MOST[mode]) for mode in _MOST),
        *(Case(f"timm, {mode}", _timm(images, labels, classes, mode, mixup=1.0)) for mode in ("pair", "elem")),
        Case("zeta-mixup", _ours(ZetaMixup(), images, labels, classes, generator)),
    ]
    baseline = Case("timm, batch", _timm(images, labels, classes, "batch", mixup=1.0))
    return Comparison("mixup and soft targets", _shape(images, classes), baseline, tuple(cases), rounds)


def against_cutmix(b: int, side: int, classes: int, rounds: int, device: torch.device) -> Comparison:
    """Compare the modes of CutMix, FMix and ResizeMix with timm's CutMix; the checks are part of ours."""
    images, labels = _batch(b, side, classes, device)
    generator = Generator(device).manual_seed(0)
    cases = [
        *(Case(mode, _ours(CutMix(mode=mode), images, labels, classes, generator), _MOST[mode]) for mode in _MOST),
        *(Case(f"timm, {mode}", _timm(images, labels, classes, mode, cutmix=1.0)) for mode in ("pair", "elem")),
        Case("FMix", _ours(FMix(), images, labels, classes, generator)),
        Case("ResizeMix", _ours(ResizeMix(), images, labels, classes, generator)),
    ]
    baseline = Case("timm, batch", _timm(images, labels, classes, "batch", cutmix=1.0))
    return Comparison("CutMix and soft targets", _shape(images, classes), baseline, tuple(cases), rounds)


def _batch(b: int, side: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = Generator(device).manual_seed(0)
    images = torch.randn(b, 3, side, side, generator=generator, device=device)
    return images, torch.randint(classes, (b,), generator=generator, device=device)


def _shape(images: Tensor, classes: int) -> dict[str, int]:
    return {"b": len(images), "side": images.shape[-1], "k": classes}


def _ours(
    method: Mixup | CutMix | FMix | ResizeMix | ZetaMixup,
    images: Tensor,
    labels: Tensor,
    classes: int,
    generator: Generator,
) -> Callable[[], object]:
    return lambda: method.mix(images, labels, classes=classes, generator=generator)


def _timm(
    images: Tensor, labels: Tensor, classes: int, mode: str, *, mixup: float = 0.0, cutmix: float = 0.0
) -> Callable[[], object]:
    """Return timm's own call on images of its own, since it mixes them in place."""
    from timm.data.mixup import Mixup as Timm

    theirs = Timm(mixup_alpha=mixup, cutmix_alpha=cutmix, mode=mode, label_smoothing=0.0, num_classes=classes)
    mine = images.clone()
    return lambda: theirs(mine, labels)
