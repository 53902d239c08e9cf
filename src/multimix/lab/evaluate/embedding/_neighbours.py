"""Nearest neighbours by brute force, exact, in float64 and in blocks that fit into memory."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 1 << 23
"""Distances held at a time: 64 MiB."""


def nearest(
    queries: Float[Tensor, "n d"], references: Float[Tensor, "m d"], count: int = 1, *, apart: bool = False
) -> tuple[Float[Tensor, "n count"], Int[Tensor, "n count"]]:
    """Return the Euclidean distances to the nearest references and which they are, nearest first.

    Args:
        queries: Where to look from.
        references: What to find.
        count: How many for each query.
        apart: Queries and references are the same examples in the same order, none of which is its own neighbour.

    Raises:
        ValueError: If there are fewer than ``count`` references, or ``apart`` is said of different numbers of examples.
    """
    n, m = len(queries), len(references)
    if apart and n != m:
        raise ValueError(f"queries and references must be the same examples to be apart, got {n} and {m}")
    if not 1 <= count <= m - apart:
        raise ValueError(f"count must be between 1 and the {m - apart} references there are, got {count}")
    centre = references.double().mean(0)  # distances do not depend on it, the rounding of their expansion does
    there = references.double() - centre
    found = []
    for start in range(0, n, rows_of(m)):
        block = queries[start : start + rows_of(m)].double() - centre
        squared = squared_distances(block, there)
        if apart:
            squared[:, start : start + len(block)].fill_diagonal_(torch.inf)
        found.append(squared.topk(count, dim=1, largest=False))
    squared, places = (torch.cat(parts) for parts in zip(*found, strict=True))
    return squared.clamp_min(0).sqrt(), places


def rows_of(columns: int) -> int:
    """Return how many rows of so many distances are held at a time."""
    return max(1, _BLOCK // columns)


def squared_distances(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Return all squared Euclidean distances; rounding may leave those of equal points slightly off 0."""
    norms = first.square().sum(1).unsqueeze(1) + second.square().sum(1)
    return torch.addmm(norms, first, second.mT, alpha=-2)


def vote(labels: Int[Tensor, "n count"], classes: int) -> Int[Tensor, " n"]:
    """Return the class that most neighbours have; of equally many, the one with the lowest index."""
    votes = torch.zeros(len(labels), classes, dtype=torch.int64, device=labels.device)
    return votes.scatter_add_(1, labels, torch.ones_like(labels)).argmax(1)
