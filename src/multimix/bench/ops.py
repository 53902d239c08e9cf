"""The core op against the naive form, and the Dirichlet draw against torch's."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from multimix.bench.compare import Case, Comparison
from multimix.ops import dense_mixed_cross_entropy, dirichlet, mixed_cross_entropy, reweight, soft_cross_entropy


def op_comparisons(device: torch.device) -> list[Comparison]:
    """Return the comparisons of the core op and of the draw."""
    return [
        _mixed(128, 512, 100, 1000, most=1 / 4, device=device),
        _mixed(128, 2048, 1000, 1000, most=1 / 5, device=device),
        _dense(128, 49, 2048, 1000, 1000, most=1 / 5, device=device),
        _draw(1000, 128, most=1 / 3, device=device),
    ]


def _mixed(b: int, d: int, k: int, n: int, *, most: float, device: torch.device) -> Comparison:
    embeddings, labels, weights, head = _batch(b, d, k, n, device)

    def naive() -> Tensor:
        mixed = weights @ one_hot(labels, k).float()
        return soft_cross_entropy(head(weights @ embeddings), mixed)

    return Comparison(
        "mixed cross-entropy, forward and backward",
        {"b": b, "d": d, "k": k, "n": n},
        Case("naive", _both(naive)),
        (
            Case("plain", _both(lambda: mixed_cross_entropy(head(embeddings), labels, weights, impl="plain"))),
            Case("commuted", _both(lambda: mixed_cross_entropy(head(embeddings), labels, weights)), most),
        ),
    )


def _dense(b: int, r: int, d: int, k: int, n: int, *, most: float, device: torch.device) -> Comparison:
    embeddings, labels, weights, head = _batch(b, d, k, n, device)
    features = torch.randn(b, r, d, device=device, requires_grad=True)
    attention = torch.rand(b, r, device=device)
    del embeddings

    def naive() -> Tensor:
        positions = reweight(weights, attention)
        mixed = positions @ one_hot(labels, k).float()
        return soft_cross_entropy(head(positions @ features.transpose(0, 1)), mixed)

    return Comparison(
        "dense mixed cross-entropy, forward and backward",
        {"b": b, "r": r, "d": d, "k": k, "n": n},
        Case("naive", _both(naive)),
        (Case("commuted", _both(lambda: dense_mixed_cross_entropy(head(features), labels, weights, attention)), most),),
        rounds=3,
    )


def _draw(n: int, m: int, *, most: float, device: torch.device) -> Comparison:
    generator = Generator(device).manual_seed(0)
    alpha = torch.rand(n, 1, generator=generator, device=device).expand(n, m) * 1.5 + 0.5
    return Comparison(
        "Dirichlet draw, alpha in (0.5, 2)",
        {"n": n, "m": m},
        Case("torch._sample_dirichlet", lambda: torch._sample_dirichlet(alpha, generator=generator)),
        (Case("dirichlet", lambda: dirichlet(n, m, (0.5, 2.0), generator=generator, device=device), most),),
        rounds=50,
    )


def _batch(b: int, d: int, k: int, n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, nn.Linear]:
    generator = Generator(device).manual_seed(0)
    embeddings = torch.randn(b, d, generator=generator, device=device, requires_grad=True)
    labels = torch.randint(k, (b,), generator=generator, device=device)
    return embeddings, labels, dirichlet(n, b, 1.0, generator=generator, device=device), nn.Linear(d, k).to(device)


def _both(loss: Callable[[], Tensor]) -> Callable[[], None]:
    return lambda: loss().backward()
