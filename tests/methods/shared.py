"""What the tests of the mixing methods share: seeds, one problem in float64, and a method for each of them."""

from typing import Any

import torch

import toy
from multimix import methods

MAKES = {
    "mixup": methods.Mixup,
    "mixup-elem": lambda: methods.Mixup(mode="elem"),
    "c-mixup": methods.CMixup,
    "cutmix": methods.CutMix,
    "cutmix-pair": lambda: methods.CutMix(mode="pair"),
    "fmix": methods.FMix,
    "resizemix": methods.ResizeMix,
    "resizemix-bilinear": lambda: methods.ResizeMix(interpolation="bilinear"),
    "zeta-mixup": methods.ZetaMixup,
    "augmix-plain": lambda: methods.AugMix(consistency=0.0),
    "saliencymix": methods.SaliencyMix,
    "smoothmix": methods.SmoothMix,
    "gridmix": methods.GridMix,
    "guidedmixup": methods.GuidedMixup,
    "guidedmixup-gradient": lambda: methods.GuidedMixup("gradient"),
    "snapmix": lambda: methods.SnapMix(weighted=False),
    "attentivemix": methods.AttentiveMix,
    "opttransmix": methods.OptTransMix,
    "puzzlemix": lambda: methods.PuzzleMix(adversarial=1.0, clean=0.5),
    "co-mixup": methods.CoMixup,
    "stylemix": lambda: methods.StyleMix(prob=1.0, learning_rate=0.0),
    "stylecutmix": lambda: methods.StyleCutMix(prob=1.0, warmup=1, gamma="auto"),
    "stylecutmix-scaled": lambda: methods.StyleCutMix(prob=1.0, learning_rate=0.0, size=8),
    "alignmix": lambda: methods.AlignMix(prob=1.0),
    "automix": lambda: methods.AutoMix(width=4),
    "transmix": methods.TransMix,
    "smmix": methods.SMMix,
    "supermix": lambda: methods.SuperMix(side=3, iterations=4),
    "adamixup": methods.AdaMixUp,
    "manifold": methods.ManifoldMixup,
    "erm": methods.ERM,
}
"""Methods as they mix in every step, and plain training."""
MIXERS = {name: make for name, make in MAKES.items() if name not in ("alignmix", "adamixup", "manifold", "erm")}
"""Those that mix inputs."""


def labels_of(targets: torch.Tensor, *, soft: bool) -> torch.Tensor:
    """Return class probabilities in float64, of the targets or soft ones."""
    b = len(targets)
    return toy.soft_targets(b, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)


def problem(b: int, *shape: int, soft: bool) -> tuple[toy.Toy, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a network in float64, images, targets as they are given, and their class probabilities."""
    inputs, targets = toy.batch(b, 3, *shape, dtype=torch.float64)
    rows = labels_of(targets, soft=soft)
    return toy.images().double().eval(), inputs, rows if soft else targets, rows


def state(network: torch.nn.Module) -> list[Any]:
    """Return what a method must leave alone: parameters, statistics, modes and gradients."""
    return [
        *(t.clone() for t in network.state_dict().values()),
        *(m.training for m in network.modules()),
        *(p.requires_grad for p in network.parameters()),
        *(None if p.grad is None else p.grad.clone() for p in network.parameters()),
    ]


def same(first: list[Any], second: list[Any]) -> bool:
    """Return whether two states are alike."""
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(first, second, strict=True))


def same_gradients(ours: torch.Tensor, truth: torch.Tensor, parameters: Any, atol: float = 1e-7) -> None:
    """Assert that two losses are the same, and their gradients."""
    parameters = [p for p in parameters if p.requires_grad]
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)
    found, wanted = (torch.autograd.grad(total, parameters, retain_graph=True) for total in (ours, truth))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=atol)
