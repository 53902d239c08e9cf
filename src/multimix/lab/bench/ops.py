"""The core op against the naive form, its implementations against each other, the Dirichlet draw against torch's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from multimix.lab.bench.timing import Case, Comparison
from multimix.ops import (
    Impl,
    LazyWeights,
    dense_mixed_cross_entropy,
    dirichlet,
    mixed_cross_entropy,
    reweight,
    soft_cross_entropy,
)


@dataclass(frozen=True)
class Problem:
    """Embeddings (b, d), labels, head and weights, or the dense form: embeddings (b, r, d) and attention (b, r).

    Every way to the loss starts from the embeddings, so that the head is part of it.
    """

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
        leaves = (self.features, *self.head.parameters())

        def call() -> None:
            loss().backward()
            for leaf in leaves:
                leaf.grad = None

        return call

    @property
    def shape(self) -> dict[str, int]:
        """Return the sizes, r of the dense form alone."""
        (n, b), (*_, d) = self.weights.shape, self.features.shape
        dense = {} if self.features.ndim == 2 else {"r": self.features.shape[1]}
        return {"b": b, **dense, "d": d, "k": self.head.out_features, "n": n}

    @property
    def least(self) -> tuple[float, float]:
        """Return the products of the head, three, and of the clean logits, two; inputs read, gradients written."""
        b, d, k, n = (self.shape[name] for name in "bdkn")
        r = self.shape.get("r", 1)
        multiply_adds = 3 * r * b * d * k + 2 * r * n * b * k
        return 2 * multiply_adds, 4 * (2 * self.features.numel() + 2 * d * k + n * b)


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
    sizes = ((16, 64, 10, 100), (128, 512, 10, 1000), (128, 512, 100, 1000), (128, 512, 100, 20_000))
    make = partial(problem, device=device)
    return [
        lambda: against_naive(make(128, 512, 100, 1000), most=1 / 4, rounds=101),
        lambda: against_naive(make(128, 2048, 1000, 1000), most=1 / 5, rounds=21),
        lambda: against_naive(make(128, 2048, 1000, 1000, r=49), most=1 / 5, memory_most=1 / 10, rounds=3),
        lambda: many_tuples(make(128, 512, 100, 1), (10_000, 1_000_000)),
        lambda: draw(1000, 128, (0.5, 2.0), device, most=1 / 3),
        lambda: draw(1000, 128, 1 / 126, device),
        *(lambda size=size: implementations(make(*size)) for size in sizes),
        lambda: implementations(make(128, 512, 10, 1000, r=16), rounds=21),
        lambda: implementations(make(128, 512, 1000, 1000), rounds=21),
    ]


def against_naive(p: Problem, *, most: float, memory_most: float | None = None, rounds: int = 15) -> Comparison:
    """Compare ``auto`` with the naive form, forward and backward, hard labels."""
    name = "mixed cross-entropy" if p.attention is None else "dense mixed cross-entropy"
    cases = (Case("auto", p.gradients(p.loss), most, memory_most),)
    naive = Case("naive", p.gradients(p.naive))
    return Comparison(f"{name}, forward and backward", p.shape, naive, cases, rounds, p.least)


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


def implementations(p: Problem, *, rounds: int = 51) -> Comparison:
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
