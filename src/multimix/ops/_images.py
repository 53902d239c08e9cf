"""What methods on images cut out and paste, how they mix styles, and where they find an image salient."""

import math
from collections import Counter
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from multimix._declared import Count, Fraction
from multimix.ops._checks import (
    Device,
    Finite,
    accurate,
    check,
    check_floating,
    check_fractions,
    check_pairs,
    check_shape,
    check_tensor,
    home_of,
    looks_are_free,
)

_Share = Float[Tensor, ""]
_LARGE = 20_000  # numbers in an image from which on copying its box alone is faster than a pass over all
_EPS = 1e-5  # added to each variance, so that a constant channel has a deviation to divide by
_SURROUNDS = (12, 24, 28, 48, 56, 112)  # half the side of a pixel's surround, in pixels, at each scale of saliency
_LUMA = (0.299, 0.587, 0.114)
_LEAST_CONTRAST = 1e-5  # as a share of the largest value; with less, an image is constant but for rounding


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
    check(Count, height=height, width=width)
    check(Fraction, lam=lam)
    ratio = math.sqrt(1 - lam)  # rounded right, unlike a power, so that whole pixels are those of draw_boxes
    across, along = torch.rand(2, generator=generator, device=home_of(generator, None)).tolist()
    tall, broad = int(height * ratio) // 2, int(width * ratio) // 2  # half of it
    y, x = int(across * height), int(along * width)
    return Box(max(y - tall, 0), min(y + tall, height), max(x - broad, 0), min(x + broad, width))


def draw_boxes(height: int, width: int, lam: Float[Tensor, " b"], *, generator: Generator | None = None) -> Boxes:
    """Return one box for each ``lam``, drawn as :func:`draw_box` draws one; on the device of ``lam``."""
    check(Count, height=height, width=width)
    if not isinstance(lam, Tensor) or lam.ndim != 1 or not lam.is_floating_point():
        raise TypeError(f"lam must be a floating-point tensor of shape (b,), got {lam!r}")
    check_fractions("lam", lam)
    home = home_of(generator, lam.device)
    size: int | Tensor = height
    if height != width:
        size = torch.tensor([[height], [width]], dtype=lam.dtype).to(lam.device, non_blocking=True)
    centres = torch.rand(2, len(lam), generator=generator, device=home).to(lam.device).mul_(size).floor_()
    halves = (1 - lam).sqrt_().mul(size / 2).floor_()
    return Boxes((centres - halves).clamp_(min=0), centres.add_(halves).clamp_(max=size))


def paste_box(images: Float[Tensor, "b c h w"], partners: Int[Tensor, " b"], box: Box) -> Float[Tensor, "b c h w"]:
    """Return images with ``box`` taken from each one's partner.

    Raises:
        ValueError: If the box is not inside the images, or shapes do not fit.
        TypeError: If images or partners are no tensors, or partners no integers.
    """
    check_pairs("images", images, partners, "b", "c", "h", "w")
    top, bottom, left, right = box
    height, width = images.shape[2:]
    if not (0 <= top <= bottom <= height and 0 <= left <= right <= width):
        raise ValueError(f"box must lie within images of {height} x {width} pixels, got {box}")
    mixed = images.clone()
    theirs, ours = images[..., top:bottom, left:right], mixed[..., top:bottom, left:right]
    if _is_recorded(images):
        ours.copy_(theirs.index_select(0, partners))
    else:  # without a copy in between, of which autograd would know nothing
        torch.index_select(theirs, 0, partners, out=ours)
    return mixed


def paste_boxes(
    images: Float[Tensor, "b c h w"], partners: Int[Tensor, " b"], boxes: Boxes
) -> Float[Tensor, "b c h w"]:
    """Return images with a box of its own taken from each one's partner."""
    check_floating("images", images)
    check_pairs("images", images, partners, "b", "c", "h", "w")
    if not isinstance(boxes, Boxes):
        raise TypeError(f"boxes must be Boxes, as draw_boxes returns them, got {boxes!r}")
    check_shape("boxes.start", boxes.start, 2, len(images))
    *_, height, width = images.shape
    if images[:1].numel() >= _LARGE and looks_are_free(images) and not _is_recorded(images):
        return _paste_each(images, partners, boxes)
    places = torch.arange(max(height, width), dtype=boxes.start.dtype, device=images.device)
    outside = (places < boxes.start.unsqueeze(2)) | (places >= boxes.end.unsqueeze(2))
    rows, columns = outside.to(images.dtype).unbind()
    kept = torch.maximum(rows[:, :height].unsqueeze(2), columns[:, :width].unsqueeze(1))
    return images.index_select(0, partners).lerp_(images, kept.unsqueeze(1))


def _is_recorded(images: Tensor) -> bool:
    return images.requires_grad and torch.is_grad_enabled()


def _paste_each(images: Tensor, partners: Tensor, boxes: Boxes) -> Tensor:
    """Return the same by copying each box alone, which takes fewer passes over memory and more calls."""
    mixed, chosen, corners = images.clone(), partners.tolist(), torch.cat(boxes).long().T.tolist()
    if min(chosen) < 0 or max(chosen) >= len(images):
        raise ValueError(f"partners must lie in 0..{len(images) - 1}, got {chosen}")
    for ours, partner, (top, left, bottom, right) in zip(mixed, chosen, corners, strict=True):
        ours[:, top:bottom, left:right].copy_(images[partner, :, top:bottom, left:right])
    return mixed


def paste_where(
    images: Float[Tensor, "b c h w"],
    partners: Int[Tensor, " b"],
    kept: Float[Tensor, "#b #c h w"] | Float[Tensor, "h w"],
) -> Float[Tensor, "b c h w"]:
    """Return images that keep their own pixels where ``kept`` is 1 and take their partner's where it is 0."""
    check_floating("images", images)
    check_pairs("images", images, partners, "b", "c", "h", "w")
    check_tensor("kept", kept)
    # Exact for these two weights, and several times as fast on a CPU as torch.where.
    return images.index_select(0, partners).lerp_(images, kept.to(images.dtype))


def draw_mask(
    height: int, width: int, lam: float, decay: float, *, generator: Generator | None = None, device: Device = None
) -> Float[Tensor, "h w"]:
    r"""Return a mask of 0 and 1 in which ``round(lam * h * w)`` pixels are 1, in few connected pieces.

    They are the largest of a random image whose Fourier coefficients, complex normal numbers, are divided by
    :math:`f^\mathrm{decay}`, f being their frequency, of at least one period an image.

    Raises:
        ValueError: If ``lam`` lies outside [0, 1].

    Reference:
        Harris et al., "FMix: enhancing mixed sample data augmentation", 2020, section 4.
    """
    home = home_of(generator, device)
    check(Count, height=height, width=width)
    check(Fraction, lam=lam)
    check(Finite, decay=decay)
    down, along = torch.fft.fftfreq(height, device=home), torch.fft.fftfreq(width, device=home)
    frequencies = torch.hypot(down.unsqueeze(1), along).clamp_(min=1 / max(height, width))
    normal = torch.randn(height, width, 2, generator=generator, device=home)
    # All frequencies rather than half of them: a half plane has to be weighted to be the same in every direction.
    image = torch.fft.ifft2(torch.view_as_complex(normal) * frequencies.pow_(-decay)).real.flatten()
    ones = image.topk(round(lam * height * width)).indices
    return torch.zeros_like(image).index_fill_(0, ones, 1).view(height, width).to(device)


def channel_statistics(
    features: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b c 1 1"], Float[Tensor, "b c 1 1"]]:
    """Return mean and standard deviation of each channel over the positions.

    The variance is the unbiased one; of a single position, which has none, it is zero.
    """
    check_floating("features", features)
    check_shape("features", features, "b", "c", "h", "w")
    correction = min(1, features.shape[-2] * features.shape[-1] - 1)
    variance, mean = torch.var_mean(features, (2, 3), correction=correction, keepdim=True)
    return mean, (variance + _EPS).sqrt()


def mix_styles(
    features: Float[Tensor, "b c h w"], partners: Int[Tensor, " b"], content: _Share, style: _Share, both: _Share
) -> Float[Tensor, "b c h w"]:
    """Return ``t f1 + (1 - rc - rs + t) f2 + (rc - t) adain(f1, f2) + (rs - t) adain(f2, f1)``, f2 the partner's.

    Args:
        features: Feature maps, f1.
        partners: Whose features are f2.
        content: The first example's share of the content, rc.
        style: The first example's share of the style, rs.
        both: The share of its content in its own style, t, from ``max(0, rc + rs - 1)`` to ``min(rc, rs)``.

    Reference:
        Hong et al., "StyleMix: separating content and style for enhanced data augmentation", CVPR 2021, section 3.2.
    """
    mean, std = channel_statistics(features)
    check_pairs("features", features, partners)
    content, style, both = (share.to(features.dtype) for share in (content, style, both))
    ratio = std[partners] / std
    centred = features - mean
    first = both + (content - both) * ratio
    second = (1 - content - style + both) + (style - both) / ratio
    return first * centred + second * centred[partners] + torch.lerp(mean[partners], mean, style)


def exchange_styles(features: Float[Tensor, "b c h w"], partners: Int[Tensor, " b"]) -> Float[Tensor, "b2 c h w"]:
    """Return ``adain(f1, f2)`` of every pair and, after them, ``adain(f2, f1)``.

    ``adain(content, style)`` is the content with the mean and the deviation of each channel of the style.

    Reference:
        Huang and Belongie, "Arbitrary style transfer in real-time with adaptive instance normalization", ICCV 2017,
        equation (8).
    """
    mean, std = channel_statistics(features)
    check_pairs("features", features, partners)
    plain = (features - mean) / std
    return torch.cat([plain * std[partners] + mean[partners], plain[partners] * std + mean])


def paste_styles(
    images: Float[Tensor, "b c h w"],
    exchanged: Float[Tensor, "b2 c h w"],
    partners: Int[Tensor, " b"],
    box: Box,
    style: _Share,
    gamma: _Share | Float[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """Return each image's content inside ``box`` and its partner's outside, the styles mixed everywhere.

    Inside, the image's own style has the share ``style``, and the rest is the blend of ``gamma`` of the image and
    ``1 - gamma`` of the image in its partner's style; outside, the same with the two exchanged and ``1 - style``.

    Args:
        images: The images.
        exchanged: Images in their partners' style and, after them, partners in the images' style.
        partners: Whose content is outside.
        box: Where the content is the image's own.
        style: The image's share of the style.
        gamma: How much of a restyled image is the original: one number, or one a pair.

    Reference:
        Hong et al., CVPR 2021, section 3.3.
    """
    check_pairs("images", images, partners, "b", "c", "h", "w")
    check_shape("exchanged", exchanged, 2 * len(images), *images.shape[1:])
    blend = (1 - gamma.reshape(-1, 1, 1, 1)).to(images.dtype)
    style = style.to(images.dtype)
    restyled, partners_restyled = exchanged[: len(images)], exchanged[len(images) :]
    mixed = torch.lerp(images[partners], partners_restyled, style * blend)
    inside = (..., slice(box.top, box.bottom), slice(box.left, box.right))
    mixed[inside] = torch.lerp(images[inside], restyled[inside], (1 - style) * blend)
    return mixed


@torch.no_grad()
def static_saliency(
    images: Float[Tensor, "b c h w"], *, levels: tuple[float, float] | None = None
) -> Float[Tensor, "b h w"]:
    r"""Return the fine-grained saliency of each image, from 0 to 2, largest where it stands out; 0 if it is constant.

    The grey image :math:`g` has 256 levels and is smoothed twice by a binomial filter of 3 x 3 pixels. At each scale
    :math:`s` a pixel is compared with the mean :math:`\mu_s` of its surround, a square from :math:`s - 1` pixels before
    it to :math:`s` pixels after it, cut at the image's edges and without the pixel itself. Saliency, without gradient,
    is the sum of what is brighter and what is darker by whole levels, each divided by its maximum over the image:

    .. math::
        \frac{O}{\max O} + \frac{D}{\max D}, \qquad O = \sum_s \lfloor [g - \mu_s]_+ \rfloor, \quad
        D = \sum_s \lfloor [\mu_s - g]_+ \rfloor

    Args:
        images: A mini-batch. Three channels are red, green and blue and weigh as in luma; others are averaged.
        levels: The values of black and white. By default each image's own smallest and largest value, so that adding a
            number to an image or multiplying it by a positive one, as standardisation does, changes nothing.

    Reference:
        Montabone and Soto, "Human detection using a mobile platform and novel features derived from a visual saliency
        mechanism", Image and Vision Computing 28(3), 2010, with the scales, the surrounds and the whole levels of
        OpenCV's `StaticSaliencyFineGrained`.
    """
    check_shape("images", images, "b", "c", "h", "w")
    grey, flat = _grey_levels(accurate(images), levels)
    maps = torch.stack(_differences(_smooth(_smooth(grey))))
    most = maps.amax((2, 3), keepdim=True)
    on, off = maps / torch.where(most > 0, most, 1)
    return torch.where(flat, 0, on + off)


def saliency_peaks(saliency: Float[Tensor, "b h w"]) -> Int[Tensor, "b 2"]:
    """Return row and column of each map's largest value, the first of equal ones."""
    check_shape("saliency", saliency, "b", "h", "w")
    return torch.stack(torch.unravel_index(saliency.flatten(1).argmax(1), saliency.shape[1:]), 1)


def _grey_levels(images: Tensor, levels: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Return grey levels (b, h, w), integers from -128 to 127 whose sums stay exact, and which have no contrast."""
    low, high = images.amin((1, 2, 3)), images.amax((1, 2, 3))
    flat = high - low <= _LEAST_CONTRAST * torch.maximum(high.abs(), low.abs())
    if levels is not None:
        low, high = (torch.full_like(low, level) for level in levels)
    span = torch.where(flat, 1, high - low)
    channels = images.unbind(1)
    grey = sum(w * c for w, c in zip(_LUMA, channels, strict=True)) if len(channels) == 3 else images.mean(1)
    grey = (grey - low.view(-1, 1, 1)) * (255 / span).view(-1, 1, 1)
    # To integers with halves going up, where torch.round would go to even ones.
    return (grey + 0.5).floor_().clamp_(0, 255).sub_(128), flat.view(-1, 1, 1)


def _smooth(grey: Tensor) -> Tensor:
    """Return (1, 2, 1) / 4 along both axes; beyond an edge the image is its mirror image about the edge's pixel."""
    for axis in (1, 2):
        size = grey.shape[axis]
        inner = min(1, size - 1)  # the neighbour of an edge
        before = torch.cat([grey.narrow(axis, inner, 1), grey.narrow(axis, 0, size - 1)], axis)
        after = torch.cat([grey.narrow(axis, 1, size - 1), grey.narrow(axis, size - 1 - inner, 1)], axis)
        grey = before.add_(after).add_(grey, alpha=2)
    return (grey / 16 + 0.5).floor_()


def _differences(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much brighter and how much darker each pixel is than its surrounds, summed over scales."""
    _, height, width = grey.shape
    integral = torch.nn.functional.pad(grey.cumsum(1).cumsum(2), (1, 0, 1, 0))
    on, off = torch.zeros_like(grey), torch.zeros_like(grey)
    reaches = [min(reach, max(height, width)) for reach in _SURROUNDS]  # those that cover the whole image are the same
    for reach, scales in Counter(reaches).items():
        rows, tall = _window_sums(integral, 1, reach)
        total, broad = _window_sums(rows, 2, reach)
        others = (tall.view(-1, 1) * broad - 1).clamp_min(1)  # a surround of nothing has the sum 0
        whole = grey.sub(total.sub_(grey).div_(others)).trunc_()
        on.add_(whole.clamp_min(0), alpha=scales)
        off.sub_(whole.clamp_max_(0), alpha=scales)
    return on, off


def _window_sums(integral: Tensor, axis: int, reach: int) -> tuple[Tensor, Tensor]:
    """Return sums over windows along an axis, from sums up to each place, and how many places a window has."""
    size = integral.shape[axis] - 1
    place = torch.arange(size, device=integral.device)
    low, high = (place - reach + 1).clamp_min(0), (place + reach + 1).clamp_max(size)
    return integral.index_select(axis, high).sub_(integral.index_select(axis, low)), high - low
