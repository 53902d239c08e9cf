"""Seeds, and stratified choices among labelled images that a seed fixes."""

import hashlib

import torch
from jaxtyping import Int64
from torch import Tensor

from multimix.lab.data._sets import ImageSet

__all__ = ["first_of", "generator_for", "seed_of", "shares", "stratified"]


def seed_of(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) that is the same for the same parts on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """Return a fresh CPU generator seeded by the parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


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


def first_of(images: ImageSet, size: int | None, *, what: str, split_seed: int = 0) -> ImageSet:
    """Return so many images of a set, the same share of each class; all of them if ``size`` is None.

    Args:
        images: The set.
        size: How many.
        what: What the caller's user calls ``size``.
        split_seed: Fixes which.

    Raises:
        ValueError: There are not so many, or not one for each class.
    """
    if size is None or size == len(images):
        return images
    try:
        kept, _ = stratified(images.labels, size, seed_of("train_size", split_seed))
    except ValueError as error:
        raise ValueError(f"{what}={size} does not fit: {error}") from error
    return images.subset(kept)
