"""Boxes cut from one image and pasted into another."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor


class Box(NamedTuple):
    """A region of an image in pixels, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Return the number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def draw_box(height: int, width: int, lam: float, *, generator: Generator | None = None) -> Box:
    """Return a box of side ratio ``sqrt(1 - lam)`` whose centre is uniform over the image, clipped to it.

    Raises:
        ValueError: If ``lam`` lies outside [0, 1].

    Reference:
        Yun et al., "CutMix", ICCV 2019, equation (2).
    """
    if not 0 <= lam <= 1:
        raise ValueError(f"lam must lie in [0, 1], got {lam}")
    ratio = (1 - lam) ** 0.5
    device = generator.device if generator is not None else None
    across, along = torch.rand(2, generator=generator, device=device).tolist()
    half_height, half_width = int(height * ratio) // 2, int(width * ratio) // 2
    y, x = int(across * height), int(along * width)
    return Box(
        max(y - half_height, 0), min(y + half_height, height), max(x - half_width, 0), min(x + half_width, width)
    )


def paste_box(images: Float[Tensor, "b c h w"], partners: Int[Tensor, " b"], box: Box) -> Float[Tensor, "b c h w"]:
    """Return images with ``box`` taken from each one's partner."""
    mixed = images.clone()
    top, bottom, left, right = box
    mixed[..., top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return mixed
