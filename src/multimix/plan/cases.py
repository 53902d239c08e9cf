"""What is measured: the cases that rates are fitted to, and others that they are checked against."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Generator, nn

from multimix.distill import SelfDistilled
from multimix.methods import ERM, DenseMultiMix, MultiMix
from multimix.ops import LazyWeights, dirichlet, mixed_cross_entropy
from multimix.plan.measure import Case, counted, layer, step_case
from multimix.plan.network import Subject
from multimix.plan.step import Setup
from multimix.plan.tuples import TupleProblem, tuple_works
from multimix.protocols import Method

_PREACT = "preact_resnet18"


def setup(method: Method, *, model: str = _PREACT, px: int = 32, k: int = 10, b: int = 64, width: int = 16) -> Setup:
    """Return a step of one device with images of px × px pixels in three channels."""
    return Setup(Subject(model, k, (3, px, px), b, width=None if ":" in model else width), method)


FITTED: dict[str, Setup] = {
    "erm b 32 width 16": setup(ERM(), b=32),
    "erm b 128 width 16": setup(ERM(), b=128),
    "erm b 64 width 8": setup(ERM(), width=8),
    "erm b 64 width 32": setup(ERM(), width=32),
    "multimix b 64 width 8 n 1000 k 100": setup(MultiMix(), k=100, width=8),
    "multimix b 128 width 8 n 4000 k 10": setup(MultiMix(4000, alpha=(0.5, 2.0)), b=128, width=8),
    "dense-multimix b 64 width 8 n 500 k 100": setup(DenseMultiMix(500), k=100, width=8),
    "distilled b 64 width 16": setup(SelfDistilled(ERM())),
}
"""Whole steps that the rates are fitted to, beside single layers and draws."""
HELD_OUT: dict[str, Setup] = {
    "erm b 72 width 18": setup(ERM(), b=72, width=18),
    "erm b 96 width 10": setup(ERM(), b=96, width=10),
    "erm b 20 width 36": setup(ERM(), b=20, width=36),
    "multimix b 72 width 18 n 2500 k 60": setup(MultiMix(2500), k=60, b=72, width=18),
    "multimix b 48 width 14 n 6000 k 10": setup(MultiMix(6000), b=48, width=14),
    "multimix b 96 width 10 n 1200 k 150": setup(MultiMix(1200, alpha=(0.5, 2.0)), k=150, b=96, width=10),
    "multimix balanced b 48 width 14 n 4000": setup(
        MultiMix(4000, alpha=(0.5, 2.0), balanced=True, clean=0.5), b=48, width=14
    ),
    "dense-multimix b 48 width 14 n 600 k 30": setup(DenseMultiMix(600), k=30, b=48, width=14),
    "dense-multimix b 72 width 18 n 300 k 80": setup(DenseMultiMix(300), k=80, b=72, width=18),
    "distilled multimix b 40 width 18 k 100": setup(SelfDistilled(MultiMix()), k=100, b=40, width=18),
    "distilled dense-multimix b 56 width 10 n 200": setup(SelfDistilled(DenseMultiMix(200)), b=56, width=10),
    "multimix resnet18 b 16 px 40 k 50": setup(MultiMix(), model="torchvision:resnet18", px=40, k=50, b=16),
    "multimix wide_resnet16 b 24 width 1": setup(MultiMix(), model="wide_resnet16_8", b=24, width=1),
}
"""Other mini-batches, widths, numbers of tuples and classes, methods, another network: nothing is fitted to them."""


def step_cases(setups: dict[str, Setup]) -> list[Case]:
    """Return the cases of whole steps."""
    return [step_case(name, one) for name, one in setups.items()]


def small_cases() -> list[Case]:
    """Return single layers, draws, losses and optimisers of many sizes."""
    return [*_convolutions(), *_layers(), *_products(), *_draws(), *_losses()]


def _convolutions() -> list[Case]:
    shapes = [  # channels in and out, filter, stride, pixels
        (3, 16, 3, 1, 32),
        (3, 64, 3, 1, 32),
        (8, 8, 3, 1, 32),
        (16, 16, 3, 1, 32),
        (16, 32, 3, 2, 32),
        (24, 24, 3, 1, 32),
        (32, 32, 3, 1, 16),
        (32, 64, 1, 2, 16),
        (48, 48, 3, 1, 16),
        (64, 64, 3, 1, 8),
        (64, 256, 1, 1, 16),
        (128, 128, 3, 1, 4),
        (256, 256, 3, 1, 8),
        (512, 512, 3, 1, 4),
        (512, 512, 1, 1, 7),
    ]
    return [
        layer(
            f"conv {i}→{o} {f}×{f} stride {s} px {px}",
            partial(nn.Conv2d, i, o, f, s, padding=f // 2, bias=False),
            (32, i, px, px),
            backward=backward,
        )
        for i, o, f, s, px in shapes
        for backward in (False, True)
    ]


def _layers() -> list[Case]:
    shapes = [(32, 16, 32, 32), (64, 64, 32, 32), (64, 32, 8, 8), (64, 128, 4, 4)]
    rows = [(26_000, 10), (1000, 100), (4000, 300), (260, 1000)]
    kinds: list[tuple[str, Callable[[int], nn.Module], list[Any]]] = [
        ("norm", nn.BatchNorm2d, shapes),
        ("relu", lambda _: nn.ReLU(), shapes),
        ("log-softmax", lambda _: nn.LogSoftmax(-1), rows),
    ]
    return [
        layer(f"{name} {shape}", partial(make, shape[1]), shape, backward=backward)
        for name, make, sizes in kinds
        for shape in sizes
        for backward in (False, True)
    ]


def _products() -> list[Case]:
    def on(n: int, m: int, k: int, device: str) -> Callable[[], object]:
        left, right = torch.randn(n, m, device=device), torch.randn(m, k, device=device)
        return lambda: left @ right

    sizes = [(1000, 64, 10), (1000, 128, 100), (256, 1024, 1000), (1024, 1024, 1024), (512, 256, 16)]
    return [counted(f"product {n} × {m} × {k}", partial(on, n, m, k)) for n, m, k in sizes]


def _draws() -> list[Case]:
    generator = Generator().manual_seed(0)
    methods: dict[str, tuple[int, MultiMix, Any]] = {
        "1000 × 128 above 1": (128, MultiMix(alpha=1.5), 1.5),
        "1000 × 128 around 1": (128, MultiMix(alpha=(0.5, 2.0)), (0.5, 2.0)),
        "4000 × 64 low": (64, MultiMix(4000), 1 / 62),
        "50 × 64 low": (64, MultiMix(50), 1 / 62),
    }
    return [
        Case(
            f"draw {name}",
            tuple(work for work in tuple_works(TupleProblem(method, b, 10)) if work.part == "draw"),
            partial(_draw, method.tuples, b, alpha, generator, TupleProblem(method, b, 10).chunk[0]),
        )
        for name, (b, method, alpha) in methods.items()
    ]


def _draw(n: int, b: int, alpha: Any, generator: Generator, chunk: int) -> None:
    for start in range(0, n, chunk):
        dirichlet(min(chunk, n - start), b, alpha, generator=generator)


def _losses() -> list[Case]:
    sizes = [(64, 10, 1000), (128, 100, 1000), (128, 1000, 1000), (64, 300, 2000)]
    return [_loss(*size) for size in sizes]


def _loss(b: int, k: int, n: int) -> Case:
    generator = Generator().manual_seed(0)
    logits = torch.randn(b, k, generator=generator, requires_grad=True)
    labels = torch.randint(k, (b,), generator=generator)
    method = MultiMix(n, alpha=1.5)

    def call() -> None:
        weights = LazyWeights(n, lambda rows: dirichlet(rows, b, 1.5, generator=generator))
        mixed_cross_entropy(logits, labels, weights).backward()
        logits.grad = None

    return Case(f"loss b {b} k {k} n {n}", tuple(tuple_works(TupleProblem(method, b, k))), call)
