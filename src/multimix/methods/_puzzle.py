"""What PuzzleMix minimises: grids of blocks, the energy of a mask on them, and how blocks are put together."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

_LEAST = 1e-4
"""Least lambda and 1 - lambda that the prior looks at: beyond, its logarithm would outweigh everything else."""


class Energy(NamedTuple):
    """An energy of labels on a grid, as ``solve_ordered_labels`` takes it."""

    unary: Float[Tensor, "b l h w"]
    vertical: Float[Tensor, "b y w"]
    horizontal: Float[Tensor, "b h x"]


def block_sizes(height: int, width: int, grids: tuple[int, ...]) -> list[int]:
    """Return the sides of square blocks that tile an image, with one of ``grids`` blocks along the shorter side.

    Where none does, the side that comes closest from below, or else the largest that tiles the image.
    """
    short, both = min(height, width), math.gcd(height, width)
    fitting = [short // n for n in grids if short % n == 0 and both % (short // n) == 0]
    if fitting:
        return fitting
    tiling = [size for size in range(1, both + 1) if both % size == 0]
    return [next((size for size in tiling if short // size <= max(grids)), both)]


def largest_divisor(of: int, at_most: int) -> int:
    """Return the largest divisor of a number that does not exceed another."""
    return next(d for d in range(min(of, at_most), 0, -1) if of % d == 0)


def pool_saliency(saliency: Float[Tensor, "b h w"], size: int) -> Float[Tensor, "b y x"]:
    """Return each block's share of its image's saliency, equal where an image has none."""
    pooled = avg_pool2d(saliency.unsqueeze(1), size)[:, 0]
    total = pooled.sum((1, 2), keepdim=True)
    return torch.where(total > 0, pooled / total, 1 / pooled[0].numel())


def energy(
    pixels: Float[Tensor, "b c h w"],
    shares: Float[Tensor, "b y x"],
    partners: Int[Tensor, " b"],
    lam: Float[Tensor, ""],
    *,
    labels: int,
    beta: float,
    gamma: float,
    eta: float,
    patch: int,
) -> Energy:
    """Return the energy of masks ``label / (labels - 1)``, which weigh the first image of each pair.

    Args:
        pixels: Images in [0, 1].
        shares: Saliency of their blocks, which sums to 1 over each image.
        partners: The second image of each pair.
        lam: Share of the first image that the prior expects.
        labels: How many labels there are.
        beta: Weight of the mask's smoothness.
        gamma: Weight of the image's smoothness, relative to ``beta``.
        eta: Weight of the prior.
        patch: Largest side of the patches that are compared on both sides of a border.
    """
    rows, columns = shares.shape[1:]
    size = pixels.shape[-1] // columns
    smooth = beta / (16 * min(rows, columns))
    # What choosing the first or the second image costs: the saliency of the other one, and half of each border.
    first, second = shares[partners].clone(), shares.clone()
    patch = largest_divisor(size, patch)
    patches = avg_pool2d(pixels, patch)
    weights = []
    for axis in (1, 2):
        borders = _borders(patches if axis == 1 else patches.transpose(2, 3), partners, size // patch)
        both, neither, leaving, entering = (border if axis == 1 else border.transpose(1, 2) for border in borders)
        half = smooth * gamma / 2
        cells = shares.shape[axis] - 1
        first.narrow(axis, 0, cells).add_(leaving + both, alpha=half)
        second.narrow(axis, 0, cells).add_(entering + neither, alpha=half)
        first.narrow(axis, 1, cells).add_(entering + both, alpha=half)
        second.narrow(axis, 1, cells).add_(leaving + neither, alpha=half)
        # Where both images have an edge, a change of mask may pay; it must not, or there would be no exact cut.
        weight = smooth + half * (leaving + entering - both - neither)
        weights.append(weight.clamp_min(0) / (labels - 1) ** 2)
    share = torch.linspace(0, 1, labels, device=shares.device).view(1, -1, 1, 1)
    unary = share * first.unsqueeze(1) + (1 - share) * second.unsqueeze(1)
    return Energy(unary + eta * _prior(lam, labels).view(1, -1, 1, 1) / (rows * columns), *weights)


def _borders(patches: Tensor, partners: Tensor, per_block: int) -> tuple[Tensor, ...]:
    """Return the differences across horizontal borders of blocks (b, rows - 1, columns), by who is above and below.

    In this order: the first image on both sides, the second on both, first above second, second above first.
    """
    above, below = patches[:, :, per_block - 1 : -1 : per_block], patches[:, :, per_block::per_block]
    both = _difference(above, below, per_block)
    return (
        both,
        both[partners],
        _difference(above, below[partners], per_block),
        _difference(above[partners], below, per_block),
    )


def _difference(one: Tensor, other: Tensor, per_block: int) -> Tensor:
    return (one - other).abs().mean(1).unflatten(2, (-1, per_block)).mean(3)


def _prior(lam: Tensor, labels: int) -> Tensor:
    """Return minus the logarithm of the binomial distribution whose mean is lam."""
    lam, n = lam.float().clamp(_LEAST, 1 - _LEAST), labels - 1
    count = torch.arange(labels, device=lam.device)
    ways = torch.tensor([math.log(math.comb(n, i)) for i in range(labels)], device=lam.device)
    return -(ways + count * lam.log() + (n - count) * (-lam).log1p())


def spread(blocks: Tensor, size: int) -> Tensor:
    """Return a value for each pixel from one for each block (..., y, x)."""
    return blocks.repeat_interleave(size, -2).repeat_interleave(size, -1)


def source_pixels(blocks: Int[Tensor, "b y x"], size: int) -> Int[Tensor, "b h w"]:
    """Return which pixel goes where, row-major, if these blocks of side ``size`` do."""
    columns = blocks.shape[2]
    corner = (blocks // columns * columns * size + blocks % columns) * size
    inside = torch.arange(size, device=blocks.device)
    offset = inside.view(-1, 1) * columns * size + inside
    return (
        (spread(corner, size).unflatten(1, (-1, size)).unflatten(3, (-1, size)) + offset.view(size, 1, size))
        .flatten(3)
        .flatten(1, 2)
    )


def move_pixels(images: Float[Tensor, "b c h w"], source: Int[Tensor, "b h w"]) -> Float[Tensor, "b c h w"]:
    """Return images whose pixels come from the places given."""
    index = source.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view_as(images)
