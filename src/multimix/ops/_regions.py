"""Boxes cut from one image and pasted into another."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
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


class Boxes(NamedTuple):
    """Regions of b images in pixels, ends excluded."""

    top: Int[Tensor, " b"]
    bottom: Int[Tensor, " b"]
    left: Int[Tensor, " b"]
    right: Int[Tensor, " b"]

    @property
    def area(self) -> Int[Tensor, " b"]:
        """Return the number of pixels of each."""
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


def draw_boxes(height: int, width: int, lam: Float[Tensor, " b"], *, generator: Generator | None = None) -> Boxes:
    """Return one box for each ``lam``, drawn as :func:`draw_box` draws one; on the device of ``lam``."""
    device = lam.device if generator is None else generator.device
    size = lam.new_tensor([[height], [width]])
    centres = torch.rand(2, len(lam), generator=generator, device=device).to(lam.device).mul_(size).floor_()
    halves = (1 - lam).sqrt().mul(size).floor_().div_(2, rounding_mode="floor")
    starts = (centres - halves).clamp_(min=0).long()
    ends = torch.minimum(centres + halves, size).long()
    return Boxes(starts[0], ends[0], starts[1], ends[1])


def paste_box(images: Float[Tensor, "b c h w"], partners: Int[Tensor, " b"], box: Box) -> Float[Tensor, "b c h w"]:
    """Return images with ``box`` taken from each one's partner."""
    mixed = images.clone()
    top, bottom, left, right = box
    mixed[..., top:bottom, left:right] = images[..., top:bottom, left:right].index_select(0, partners)
    return mixed


def paste_boxes(
    images: Float[Tensor, "b c h w"], partners: Int[Tensor, " b"], boxes: Boxes
) -> Float[Tensor, "b c h w"]:
    """Return images with a box of its own taken from each one's partner."""
    height, width = images.shape[-2:]
    rows = _between(boxes.top, boxes.bottom, height).to(images.dtype)
    columns = _between(boxes.left, boxes.right, width).to(images.dtype)
    return paste_where(images, partners, 1 - rows[:, None, :, None] * columns[:, None, None, :])


def paste_where(
    images: Float[Tensor, "b c h w"],
    partners: Int[Tensor, " b"],
    kept: Float[Tensor, "#b #c h w"] | Float[Tensor, "h w"],
) -> Float[Tensor, "b c h w"]:
    """Return images that keep their own pixels where ``kept`` is 1 and take their partner's where it is 0."""
    # Exact for these two weights, and several times as fast on a CPU as torch.where.
    return images.index_select(0, partners).lerp_(images, kept.to(images.dtype))


def _between(start: Int[Tensor, " b"], end: Int[Tensor, " b"], length: int) -> Bool[Tensor, "b l"]:
    places = torch.arange(length, device=start.device)
    return (places >= start.unsqueeze(1)) & (places < end.unsqueeze(1))
