"""Ops against other ways: the loss against the naive form, the Dirichlet draw against torch's, pairs against timm's."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from multimix.lab.bench.timing import Case, Comparison
from multimix.methods import (
    CMixup,
    CutMix,
    FMix,
    GridMix,
    GuidedMixup,
    KernelWarpingMixup,
    MixesInputs,
    Mixup,
    MixupIO,
    MixupPath,
    RecursiveMix,
    RegMixup,
    ResizeMix,
    SmoothMix,
    ZetaMixup,
)
from multimix.ops import (
    Impl,
    LazyWeights,
    Mode,
    SquaredError,
    as_probabilities,
    dense_mixed_cross_entropy,
    dirichlet,
    mixed_cross_entropy,
    reweight,
    soft_cross_entropy,
)

MODES_MOST: dict[Mode, float] = {"batch": 1.0, "pair": 1.5, "elem": 1.5}
"""The bars of the modes, in parts of the time of timm's batch mode."""
OTHERS: dict[Any, tuple[float, float]] = {
    **dict.fromkeys((ZetaMixup(), FMix(), ResizeMix()), (3.0, 3.0)),
    **dict.fromkeys((MixupIO(), KernelWarpingMixup(distance="input"), SmoothMix(), GridMix()), (3.0, 1.5)),
    **dict.fromkeys((GuidedMixup(), RecursiveMix(), RegMixup(), CMixup(), MixupPath()), (3.0, 1.5)),
}
"""Methods that timm does not have, and their bars at both sizes, in parts of the time of its mixup in batch mode."""
PAIR_SIZES = ((128, 32, 100, 401), (32, 224, 1000, 61))
"""Mini-batch, side of an image, classes, rounds."""


@dataclass(frozen=True)
class Problem:
    """Embeddings (b, d), labels, head and weights, or the dense form: embeddings (b, r, d) and attention (b, r)."""

    features: Tensor
    labels: Tensor
    weights: Tensor
    head: nn.Linear
    attention: Tensor | None = None

    def naive(self) -> Tensor:
        """Mix the embeddings, classify them, mix one-hot labels, take the cross-entropy: the equations, by autograd."""
        weights = self.weights if self.attention is None else reweight(self.weights, self.attention)
        values = self.features if self.attention is None else self.features.transpose(0, 1)
        targets = weights @ one_hot(self.labels, self.head.out_features).to(weights.dtype)
        return soft_cross_entropy(self.head(weights @ values), targets)

    def loss(self, impl: Impl = "auto", weights: Tensor | LazyWeights | None = None) -> Tensor:
        """Classify the clean embeddings, and let the op do the rest."""
        weights, logits = self.weights if weights is None else weights, self.head(self.features)
        if self.attention is None:
            return mixed_cross_entropy(logits, self.labels, weights, impl=impl)
        return dense_mixed_cross_entropy(logits, self.labels, weights, self.attention, impl=impl)

    def gradients(self, loss: Callable[[], Tensor]) -> Callable[[], None]:
        """Return a call that computes a loss and its gradients, made anew as in a loop that sets them to None."""

        def call() -> None:
            loss().backward()
            self.forget()

        return call

    def forget(self) -> None:
        """Set every gradient to None."""
        for leaf in (self.features, *self.head.parameters()):
            leaf.grad = None

    @property
    def shape(self) -> dict[str, int]:
        """Return the sizes, r of the dense form alone."""
        (n, b), (*_, d) = self.weights.shape, self.features.shape
        dense = {} if self.features.ndim == 2 else {"r": self.features.shape[1]}
        return {"b": b, **dense, "d": d, "k": self.head.out_features, "n": n}

    @property
    def least(self) -> tuple[float, float]:
        """Return the products of the head, three, and of the clean logits; inputs read, gradients written."""
        b, d, k = (self.shape[name] for name in "bdk")
        r = self.shape.get("r", 1)
        products, moved = self.least_of_loss
        return products + 2 * 3 * r * b * d * k, moved + 4 * (2 * self.features.numel() + 2 * d * k)

    @property
    def least_of_loss(self) -> tuple[float, float]:
        """Return the same without the head: two products of the clean logits, and the weights read."""
        b, k, n = (self.shape[name] for name in "bkn")
        return 2 * 2 * self.shape.get("r", 1) * n * b * k, 4 * n * b


def problem(b: int, d: int, k: int, n: int, device: torch.device, *, r: int | None = None) -> Problem:
    """Return a random problem, the same every time."""
    generator = Generator(device).manual_seed(0)
    shape = (b, d) if r is None else (b, r, d)
    head = nn.Linear(d, k).to(device)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, device=device) / d**0.5)
    return Problem(
        torch.randn(shape, generator=generator, device=device, requires_grad=True),
        torch.randint(k, (b,), generator=generator, device=device),
        dirichlet(n, b, 1.0, generator=generator, device=device),
        head,
        None if r is None else torch.rand(b, r, generator=generator, device=device),
    )


def op_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons of the core op and of the draw, each to be made when its turn comes."""
    small, large = (128, 512, 100, 1000), (128, 2048, 1000, 1000)
    sizes = (((16, 64, 10, 100), 51), ((128, 512, 10, 1000), 51), (small, 51), ((128, 512, 100, 20_000), 15))
    make = partial(problem, device=device)
    return [
        lambda: loss_part(make(*small), most=1 / 4, rounds=101),
        lambda: loss_part(make(*large), most=1 / 10, rounds=21),
        lambda: against_naive(make(*small), most=1 / 3, rounds=101),
        lambda: against_naive(make(*large), most=1 / 4.5, rounds=21),
        lambda: against_naive(make(*large, r=49), most=1 / 5, memory_most=1 / 10, rounds=3),
        lambda: many_tuples(make(128, 512, 100, 1), (10_000, 1_000_000)),
        lambda: draw(1000, 128, 1 / 126, device, most=1 / 6),
        lambda: draw(1000, 128, (0.5, 2.0), device, most=1 / 3),
        *(lambda size=size, rounds=rounds: implementations(make(*size), rounds=rounds) for size, rounds in sizes),
        lambda: implementations(make(128, 512, 10, 1000, r=16), rounds=21),
        lambda: implementations(make(128, 512, 1000, 1000), rounds=21),
    ]


def against_naive(p: Problem, *, most: float, memory_most: float | None = None, rounds: int = 15) -> Comparison:
    """Compare ``auto`` with the naive form, forward and backward, hard labels."""
    name = "mixed cross-entropy" if p.attention is None else "dense mixed cross-entropy"
    cases = (Case("auto", p.gradients(p.loss), most, memory_most),)
    naive = Case("naive", p.gradients(p.naive))
    return Comparison(f"{name}, forward and backward", p.shape, naive, cases, rounds, p.least)


def loss_part(p: Problem, *, most: float, rounds: int) -> Comparison:
    """Compare them without what both cannot do without: classifying the clean embeddings, forward and backward."""
    ones = torch.ones(len(p.labels), p.head.out_features, device=p.labels.device)

    def classify() -> None:
        p.head(p.features).backward(ones)
        p.forget()

    whole, classifier = against_naive(p, most=most, rounds=rounds), Case("classifier, taken off both", classify)
    return replace(whole, name=f"{whole.name}, loss part", least=p.least_of_loss, less=classifier)


def many_tuples(p: Problem, counts: tuple[int, int]) -> Comparison:
    """Compare the memory of few and of many tuples, drawn inside the loss."""
    b, device = len(p.labels), p.labels.device
    generator = Generator(device).manual_seed(0)

    def case(n: int, memory_most: float | None = None) -> Case:
        lazy = LazyWeights(n, lambda rows: dirichlet(rows, b, 0.5, generator=generator, device=device))
        return Case(f"n {n}", p.gradients(lambda: p.loss(weights=lazy)), memory_most=memory_most)

    few, many = counts
    shape = {name: p.shape[name] for name in "bdk"}
    return Comparison("tuples drawn inside the loss, forward and backward", shape, case(few), (case(many, 1.1),), 2)


def implementations(p: Problem, *, rounds: int) -> Comparison:
    """Compare what ``impl`` can be."""
    plain, *cases = [Case(impl, p.gradients(partial(p.loss, impl))) for impl in ("plain", "commuted", "fused")]
    if p.labels.device.type == "cuda":
        cases.append(Case("commuted, compiled", p.gradients(torch.compile(lambda: p.loss("commuted")))))
        cases.append(Case("fused, CUDA graph", _graphed(p)))
    return Comparison("implementations, forward and backward", p.shape, plain, tuple(cases), rounds, p.least)


def draw(
    n: int, m: int, alpha: float | tuple[float, float], device: torch.device, *, most: float | None = None
) -> Comparison:
    """Compare the Dirichlet draw with torch's sampler, and with the random numbers alone that ours starts from."""
    generator = Generator(device).manual_seed(0)
    low, high = alpha if isinstance(alpha, tuple) else (alpha, alpha)
    rows = (torch.rand(n, 1, generator=generator, device=device) * (high - low) + low).expand(n, m).contiguous()
    return Comparison(
        f"Dirichlet draw, alpha {f'in ({low:g}, {high:g})' if high > low else f'{low:.3g}'}",
        {"n": n, "m": m},
        Case("torch._sample_dirichlet", lambda: torch._sample_dirichlet(rows, generator=generator)),
        (
            Case("dirichlet", lambda: dirichlet(n, m, alpha, generator=generator, device=device), most),
            Case("normals alone", lambda: torch.randn(n, m, generator=generator, device=device)),
        ),
        rounds=101,
    )


def _graphed(p: Problem) -> Callable[[], None]:
    """Return the same as one CUDA graph, recorded now and replayed at each call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            p.loss("fused").backward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        p.loss("fused").backward()
    return graph.replay


def pair_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons with timm of the methods that mix whole mini-batches at once, and ask no network."""
    return [
        make
        for at, size in enumerate(PAIR_SIZES)
        for make in (
            *(partial(against_timm, cls, mode, *size, device) for cls in (Mixup, CutMix) for mode in MODES_MOST),
            *(partial(against_mixup, method, most[at], *size, device) for method, most in OTHERS.items()),
        )
    ]


def against_timm(
    cls: type[MixesInputs], mode: Mode, b: int, side: int, classes: int, rounds: int, device: torch.device
) -> Comparison:
    """Compare a method that timm has, in any mode, with timm's in batch mode.

    The bars are for the op alone, since timm checks no argument, and mixes in place.
    """
    batch = _batch(b, side, classes, device)
    method: Any = cls(mode=mode)  # type: ignore[call-arg]
    op, checked = _ours(method, *batch)
    cases = [Case(mode, op, MODES_MOST[mode]), Case(f"{mode}, checked", checked)]
    if mode != "batch":
        cases.append(Case(f"timm, {mode}", _timm(cls, *batch, mode)))
    baseline = Case("timm, batch", _timm(cls, *batch, "batch"))
    shape = {"b": b, "side": side, "k": classes}
    return Comparison(f"{method.name} and soft targets, {mode}", shape, baseline, tuple(cases), rounds)


def against_mixup(
    method: Any, most: float, b: int, side: int, classes: int, rounds: int, device: torch.device
) -> Comparison:
    """Compare a method that timm does not have with as many calls of timm's mixup as it makes mixed mini-batches."""
    images, labels, _ = _batch(b, side, classes, device)
    values, times = isinstance(method, CMixup), getattr(method, "lambdas", 1)
    op, checked = _ours(deepcopy(method), images, labels.float() if values else labels, classes)
    once = _timm(Mixup, images, labels, classes, "batch")
    baseline = Case("timm, mixup" + f", {times} times" * (times > 1), lambda: [once() for _ in range(times)][-1])
    cases = (Case(method.name, op, most), Case(f"{method.name}, checked", checked))
    name = f"{method.name} and {'values' if values else 'soft targets'}"
    return Comparison(name, {"b": b, "side": side, "k": classes}, baseline, cases, rounds)


def _batch(b: int, side: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
    generator = Generator(device).manual_seed(0)
    images = torch.randn(b, 3, side, side, generator=generator, device=device)
    return images, torch.randint(classes, (b,), generator=generator, device=device), classes


def _ours(method: Any, images: Tensor, targets: Tensor, classes: int) -> tuple[Callable[[], object], ...]:
    """Return a call of the op alone, and one of the method, on labels or, where they are no integers, on values."""
    generator, values = Generator(images.device).manual_seed(0), targets.is_floating_point()
    options: Any = {"objective": SquaredError()} if values else {"num_classes": classes}

    def op() -> tuple[Tensor, Tensor]:
        mixing = method.draw(None, images, targets, generator)
        rows = targets.unsqueeze(1) if values else as_probabilities(targets, classes)
        return mixing.mix(images), mixing.mix_targets(rows)

    return op, lambda: method.mix(images, targets, generator=generator, **options)


def _timm(cls: type, images: Tensor, labels: Tensor, classes: int, mode: str) -> Callable[[], object]:
    """Return timm's own call on images of its own, since it mixes them in place."""
    from timm.data.mixup import Mixup as Timm

    alphas = {"mixup_alpha": float(cls is Mixup), "cutmix_alpha": float(cls is CutMix)}
    theirs = Timm(**alphas, mode=mode, label_smoothing=0.0, num_classes=classes)
    mine = images.clone()
    return lambda: theirs(mine, labels)
