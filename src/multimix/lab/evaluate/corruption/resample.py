"""Blurring and resizing along one axis as matrices: exact at the borders, for images of any size."""

import math
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["along", "box", "gaussian", "zoom"]

_KEPT = 64
"""Matrices of each kind that are kept; a run over all corruptions at one size needs fewer."""


def along(
    pixels: Float[Tensor, "*any h w"], rows: Float[Tensor, "i h"], columns: Float[Tensor, "j w"]
) -> Float[Tensor, "*any i j"]:
    """Return ``rows @ pixels @ columns.T`` of each image, as two large products."""
    across = pixels @ columns.to(pixels).T
    return (across.mT @ rows.to(pixels).T).mT


@lru_cache(_KEPT)
def gaussian(
    size: int, sigma: float, truncate: float = 4.0, border: Literal["nearest", "reflect"] = "nearest"
) -> Float[Tensor, "size size"]:
    """Return the blur with a Gaussian that is cut off at ``truncate * sigma`` (SciPy's ``gaussian_filter1d``).

    Beyond the border the last pixel is repeated, or the image is reflected with its last pixel repeated once.
    """
    radius = int(truncate * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    # Without a radius the weight is 1, whatever sigma (0 included).
    weights = torch.exp(-0.5 * (offsets.double() / max(sigma, 1e-9)).square())
    where = torch.arange(size)[:, None] + offsets
    if border == "nearest":
        where = where.clamp(0, size - 1)
    else:
        where = where % (2 * size)
        where = torch.minimum(where, 2 * size - 1 - where)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, where, (weights / weights.sum()).expand(size, -1))


@lru_cache(_KEPT)
def zoom(size: int, factor: float) -> Float[Tensor, "size size"]:
    """Return the linear enlargement of the middle of an axis by a factor of at least 1, cut to the axis's length.

    The first and last pixel of the middle part stay where they are (SciPy's ``zoom`` of order 1).
    """
    part = math.ceil(size / factor)
    top = (size - part) // 2
    large = round(part * factor)
    trim = (large - size) // 2
    places = torch.arange(trim, trim + size, dtype=torch.float64) * ((part - 1) / max(large - 1, 1))
    low = places.floor().clamp(0, max(part - 2, 0))
    share = (places - low)[:, None]
    low = low.long()[:, None] + top
    matrix = torch.zeros(size, size, dtype=torch.float64).scatter_(1, low, 1 - share)
    return matrix.scatter_add_(1, (low + 1).clamp(max=size - 1), share)


@lru_cache(_KEPT)
def box(size: int, new: int) -> Float[Tensor, "new size"]:
    """Return the resize by means over boxes: each pixel whose middle lies in the box counts whole (Pillow's BOX)."""
    scale = size / new
    width = max(scale, 1.0)
    pixels = torch.arange(size, dtype=torch.float64)
    centres = ((torch.arange(new, dtype=torch.float64) + 0.5) * scale)[:, None]
    # In Pillow's order: where a pixel's middle lies on the edge of a box, the last digit decides, twice.
    distance = (pixels - centres + 0.5) * (1 / width)
    near = (pixels >= (centres - width / 2 + 0.5).floor()) & (pixels < (centres + width / 2 + 0.5).floor())
    inside = (near & (distance > -0.5) & (distance <= 0.5)).double()
    return inside / inside.sum(1, keepdim=True)
