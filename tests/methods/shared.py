"""What the tests of the mixing methods share: seeds, one problem in float64, and a method for each of them."""

from typing import Any

import torch

import toy
from multimix.methods import (
    AdaMixUp,
    AlignMix,
    AutoMix,
    CoMixup,
    FMix,
    OptTransMix,
    PuzzleMix,
    ResizeMix,
    SaliencyMix,
    StyleCutMix,
    StyleMix,
    SuperMix,
    ZetaMixup,
)

MAKES = {
    "fmix": FMix,
    "resizemix": ResizeMix,
    "resizemix-bilinear": lambda: ResizeMix(interpolation="bilinear"),
    "zeta-mixup": ZetaMixup,
    "saliencymix": SaliencyMix,
    "opttransmix": OptTransMix,
    "puzzlemix": lambda: PuzzleMix(adversarial=1.0, clean=0.5),
    "co-mixup": CoMixup,
    "stylemix": lambda: StyleMix(prob=1.0, learning_rate=0.0),
    "stylecutmix": lambda: StyleCutMix(prob=1.0, warmup=1, gamma="auto"),
    "stylecutmix-scaled": lambda: StyleCutMix(prob=1.0, learning_rate=0.0, size=8),
    "alignmix": lambda: AlignMix(prob=1.0),
    "automix": lambda: AutoMix(width=4),
    "supermix": lambda: SuperMix(side=3, iterations=4),
    "adamixup": AdaMixUp,
}
"""Methods that mix in every step."""
MIXERS = {name: make for name, make in MAKES.items() if name not in ("alignmix", "adamixup")}
"""Those that mix inputs."""


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator of its own."""
    return torch.Generator().manual_seed(seed)


def problem(b: int, *shape: int, soft: bool) -> tuple[toy.Toy, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a network in float64, images, targets as they are given, and their class probabilities."""
    inputs, targets = toy.batch(b, 3, *shape, dtype=torch.float64)
    rows = toy.soft_targets(b, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)
    return toy.images().double().eval(), inputs, rows if soft else targets, rows


def same_gradients(ours: torch.Tensor, truth: torch.Tensor, parameters: Any, atol: float = 1e-7) -> None:
    """Assert that two losses are the same, and their gradients."""
    parameters = [p for p in parameters if p.requires_grad]
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)
    found, wanted = (torch.autograd.grad(total, parameters) for total in (ours, truth))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=atol)
