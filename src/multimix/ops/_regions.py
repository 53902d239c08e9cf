"""Boxes and masks, and what they cut from one image pasted into another."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from multimix.ops._checks import check_generator, check_number, check_sizes


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
    """Regions of b images in whole pixels, ends excluded; rows in the first line, columns in the second."""

    start: Float[Tensor, "2 b"]
    end: Float[Tensor, "2 b"]

    @property
    def area(self) -> Float[Tensor, " b"]:
        """Return the number of pixels of each."""
        return (self.end - self.start).prod(0)

    def of(self, image: int) -> Box:
        """Return one of them."""
        (top, left), (bottom, right) = self.start[:, image].tolist(), self.end[:, image].tolist()
        return Box(int(top), int(bottom), int(left), int(right))


def draw_box(height: int, width: int, lam: float, *, generator: Generator | None = None) -> Box:
    """Return a box of side ratio ``sqrt(1 - lam)`` whose centre is uniform over the image, clipped to it.

    Raises:
        ValueError: If ``lam`` lies outside [0, 1].

    Reference:
        Yun et al., "CutMix", ICCV 2019, equation (2).
    """
    _check_draw(height, width, lam, generator)
    ratio = math.sqrt(1 - lam)  # rounded right, unlike a power, so that whole pixels are those of draw_boxes
    device = generator.device if generator is not None else None
    across, along = torch.rand(2, generator=generator, device=device).tolist()
    half_height, half_width = int(height * ratio) // 2, int(width * ratio) // 2
    y, x = int(across * height), int(along * width)
    return Box(
        max(y - half_height, 0), min(y + half_height, height), max(x - half_width, 0), min(x + half_width, width)
    )


def draw_boxes(height: int, width: int, lam: Float[Tensor, " b"], *, generator: Generator | None = None) -> Boxes:
    """Return one box for each ``lam``, drawn as :func:`draw_box` draws one; on the device of ``lam``."""
    check_sizes(height=height, width=width)
    check_generator(generator)
    if not isinstance(lam, Tensor) or lam.ndim != 1 or not lam.is_floating_point():
        raise TypeError(f"lam must be a floating-point tensor of shape (b,), got {lam!r}")
    device = lam.device if generator is None else generator.device
    size = torch.tensor([[height], [width]], dtype=lam.dtype).to(lam.device, non_blocking=True)
    centres = torch.rand(2, len(lam), generator=generator, device=device).to(lam.device).mul_(size).floor_()
    halves = (1 - lam).sqrt_().mul(size).floor_().div_(2).floor_()
    return Boxes((centres - halves).clamp_(min=0), torch.minimum(centres.add_(halves), size))


def paste_box(images: Float[Tensor, "b c h w"], partners: Int[Tensor, " b"], box: Box) -> Float[Tensor, "b c h w"]:
    """Return images with ``box`` taken from each one's partner."""
    mixed = images.clone()
    top, bottom, left, right = box
    theirs, ours = images[..., top:bottom, left:right], mixed[..., top:bottom, left:right]
    if images.requires_grad and torch.is_grad_enabled():
        ours.copy_(theirs.index_select(0, partners))
    else:  # without a copy in between, of which autograd would know nothing
        torch.index_select(theirs, 0, partners, out=ours)
    return mixed


def paste_boxes(
    images: Float[Tensor, "b c h w"], partners: Int[Tensor, " b"], boxes: Boxes
) -> Float[Tensor, "b c h w"]:
    """Return images with a box of its own taken from each one's partner."""
    height, width = images.shape[-2:]
    places = torch.arange(max(height, width), dtype=boxes.start.dtype, device=images.device)
    outside = (places < boxes.start.unsqueeze(2)) | (places >= boxes.end.unsqueeze(2))
    rows, columns = outside.to(images.dtype)
    return paste_where(images, partners, torch.maximum(rows[:, None, :height, None], columns[:, None, None, :width]))


def paste_where(
    images: Float[Tensor, "b c h w"],
    partners: Int[Tensor, " b"],
    kept: Float[Tensor, "#b #c h w"] | Float[Tensor, "h w"],
) -> Float[Tensor, "b c h w"]:
    """Return images that keep their own pixels where ``kept`` is 1 and take their partner's where it is 0."""
    # Exact for these two weights, and several times as fast on a CPU as torch.where.
    return images.index_select(0, partners).lerp_(images, kept.to(images.dtype))


def draw_mask(
    height: int,
    width: int,
    lam: float,
    decay: float,
    *,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> Float[Tensor, "h w"]:
    r"""Return a mask of 0 and 1 in which ``round(lam * h * w)`` pixels are 1, in few connected pieces.

    They are the largest of a random image whose Fourier coefficients, complex normal numbers, are divided by
    :math:`f^\mathrm{decay}`, f being their frequency, of at least one period an image.

    Raises:
        ValueError: If ``lam`` lies outside [0, 1].

    Reference:
        Harris et al., "FMix: enhancing mixed sample data augmentation", 2020, section 4.
    """
    _check_draw(height, width, lam, generator)
    check_number("decay", decay)
    home = device if generator is None else generator.device
    image = _low_frequencies(height, width, decay, generator, home).flatten()
    ones = image.topk(round(lam * height * width)).indices
    return torch.zeros_like(image).index_fill_(0, ones, 1).view(height, width).to(device)


def _low_frequencies(
    height: int, width: int, decay: float, generator: Generator | None, device: torch.device | str | None
) -> Float[Tensor, "h w"]:
    down, along = torch.fft.fftfreq(height, device=device), torch.fft.fftfreq(width, device=device)
    frequencies = torch.hypot(down.unsqueeze(1), along).clamp_(min=1 / max(height, width))
    normal = torch.randn(height, width, 2, generator=generator, device=device)
    # All frequencies rather than half of them: a half plane has to be weighted to be the same in every direction.
    return torch.fft.ifft2(torch.view_as_complex(normal) * frequencies.pow_(-decay)).real


def _check_draw(height: int, width: int, lam: float, generator: Generator | None) -> None:
    check_sizes(height=height, width=width)
    check_number("lam", lam)
    check_generator(generator)
    if not 0 <= lam <= 1:
        raise ValueError(f"lam must lie in [0, 1], got {lam}")
