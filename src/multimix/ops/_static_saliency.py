"""Static saliency: where an image differs from its surroundings, at several scales, with nothing learned."""

from collections import Counter

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimix.ops._checks import accurate

_SURROUNDS = (12, 24, 28, 48, 56, 112)
"""Half the side of a pixel's surround, in pixels, at each scale."""

_LUMA = (0.299, 0.587, 0.114)
_LEAST_CONTRAST = 1e-5
"""Contrast, as a share of the largest value, below which an image is constant but for rounding."""


def static_saliency(
    images: Float[Tensor, "b c h w"], *, levels: tuple[float, float] | None = None
) -> Float[Tensor, "b h w"]:
    r"""Return the fine-grained saliency of each image, from 0 to 2, largest where it stands out; 0 if it is constant.

    The grey image :math:`g` has 256 levels and is smoothed twice by a binomial filter of 3 x 3 pixels. At each scale
    :math:`s` a pixel is compared with the mean :math:`\mu_s` of its surround, a square from :math:`s - 1` pixels before
    it to :math:`s` pixels after it, cut at the image's edges and without the pixel itself. What is brighter by whole
    levels is summed over scales to the on-map, what is darker to the off-map. Saliency is their sum, each divided by
    its maximum over the image:

    .. math::
        \frac{O}{\max O} + \frac{D}{\max D}, \qquad O = \sum_s \lfloor [g - \mu_s]_+ \rfloor, \quad
        D = \sum_s \lfloor [\mu_s - g]_+ \rfloor

    Three channels are red, green and blue and weigh as in luma; any other number of channels is averaged. The result
    carries no gradient.

    Args:
        images: A mini-batch.
        levels: The values of black and white. By default each image's own smallest and largest value, so that adding a
            number to an image or multiplying it by a positive one, as standardisation does, changes nothing.

    Reference:
        Montabone and Soto, "Human detection using a mobile platform and novel features derived from a visual saliency
        mechanism", Image and Vision Computing 28(3), 2010, with the scales, the surrounds and the whole levels of
        OpenCV's `StaticSaliencyFineGrained`.
    """
    with torch.no_grad():
        images = accurate(images.detach())
        grey, flat = _grey_levels(images, levels)
        maps = torch.stack(_differences(_smooth(_smooth(grey))))
        most = maps.amax((2, 3), keepdim=True)
        on, off = maps / torch.where(most > 0, most, 1)
        return torch.where(flat, 0, on + off)


def saliency_peaks(saliency: Float[Tensor, "b h w"]) -> Int[Tensor, "b 2"]:
    """Return row and column of each map's largest value, the first of equal ones."""
    at = saliency.flatten(1).argmax(1)
    width = saliency.shape[2]
    return torch.stack([at.div(width, rounding_mode="floor"), at % width], 1)


def _grey_levels(images: Tensor, levels: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Return grey levels (b, h, w) from -128 to 127, which are small so that sums stay exact, and who has no contrast.

    Everything after it up to the mean of a surround is arithmetic on integers, the same in any precision.
    """
    low, high = images.amin((1, 2, 3)), images.amax((1, 2, 3))
    flat = high - low <= _LEAST_CONTRAST * torch.maximum(high.abs(), low.abs())
    if levels is not None:
        low, high = (torch.full_like(low, level) for level in levels)
    span = torch.where(flat, 1, high - low)
    channels = images.unbind(1)
    grey = sum(w * c for w, c in zip(_LUMA, channels, strict=True)) if len(channels) == 3 else images.mean(1)
    grey = _round((grey - low.view(-1, 1, 1)) * (255 / span).view(-1, 1, 1))
    return grey.clamp_(0, 255).sub_(128), flat.view(-1, 1, 1)


def _round(values: Tensor) -> Tensor:
    """Return the nearest integers; halves go up, where torch.round would go to even ones."""
    return (values + 0.5).floor_()


def _smooth(grey: Tensor) -> Tensor:
    """Return (1, 2, 1) / 4 along both axes; beyond an edge the image is its mirror image about the edge's pixel."""
    for axis in (1, 2):
        size = grey.shape[axis]
        inner = min(1, size - 1)  # the neighbour of an edge
        before = torch.cat([grey.narrow(axis, inner, 1), grey.narrow(axis, 0, size - 1)], axis)
        after = torch.cat([grey.narrow(axis, 1, size - 1), grey.narrow(axis, size - 1 - inner, 1)], axis)
        grey = before.add_(after).add_(grey, alpha=2)
    return _round(grey / 16)


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
