"""Stratified choices among labelled images, fixed by a seed."""

import torch
from jaxtyping import Int64
from torch import Tensor

from multimix.lab.data._seeds import generator_for

__all__ = ["shares", "stratified"]


def shares(counts: list[int], size: int) -> list[int]:
    """Divide ``size`` among classes in proportion to ``counts``, none getting less than 1 or more than it has.

    Largest remainders, ties to the first class.

    Raises:
        ValueError: ``size`` is below the number of classes or above the sum of the counts.
    """
    total = sum(counts)
    if not len(counts) <= size <= total:
        raise ValueError(f"{size} of {total} images cannot hold each of the {len(counts)} classes")
    ideal = [count * size / total for count in counts]
    taken = [max(1, int(share)) for share in ideal]
    while (missing := size - sum(taken)) != 0:
        step = 1 if missing > 0 else -1
        able = [i for i in range(len(counts)) if 1 <= taken[i] + step <= counts[i]]
        best = max(able, key=lambda i: (ideal[i] - taken[i]) * step)
        taken[best] += step
    return taken


def stratified(labels: Int64[Tensor, " size"], chosen: int, seed: int) -> tuple[Tensor, Tensor]:
    """Choose ``chosen`` images so that the classes keep their proportions and each keeps at least one.

    Each class is taken from the front of one shuffle, so under one seed a larger choice all but contains a smaller one.

    Returns:
        Ascending indices of the chosen images (chosen,) and of the others (size - chosen,).

    Raises:
        ValueError: ``chosen`` is below the number of classes or above the number of images.
    """
    counts = torch.unique(labels, return_counts=True)[1]
    taken = shares(counts.tolist(), chosen)
    order = torch.randperm(len(labels), generator=generator_for("stratified", seed))
    by_class = order[torch.argsort(labels[order], stable=True)]
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for members, count in zip(by_class.split(counts.tolist()), taken, strict=True):
        mask[members[:count]] = True
    return mask.nonzero().flatten(), (~mask).nonzero().flatten()
