"""Static saliency: where an image differs from its surroundings, at several scales, with nothing learned."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimix.ops._checks import accurate

SURROUNDS = (12, 24, 28, 48, 56, 112)
"""How many pixels a surround reaches to each side, at each scale."""

_LUMA = (0.299, 0.587, 0.114)
_LEAST_CONTRAST = 1e-5
"""Contrast, as a share of the largest value, below which an image is constant but for rounding."""


def static_saliency(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    r"""Return the fine-grained saliency of each image, at most 2 and largest where it stands out; 0 if it is constant.

    The grey image is smoothed twice by a binomial filter of 3 x 3 pixels. At each scale a pixel is compared with the
    mean of its surround, a square of :math:`2s + 1` pixels without the pixel itself, cut at the image's edges. What is
    brighter is summed over scales to the on-map, what is darker to the off-map. Saliency is their sum, each divided by
    its maximum over the image:

    .. math:: \frac{\sum_s [g - \mu_s]_+}{\max \sum_s [g - \mu_s]_+} + \frac{\sum_s [\mu_s - g]_+}{\max \ldots}

    Adding a number to all values of an image, or multiplying them by a positive one, changes nothing. Three channels
    are red, green and blue and weigh as in luma; any other number of channels is averaged. Half precision is computed
    in float32. The result carries no gradient.

    Args:
        images: A mini-batch.

    Reference:
        Montabone and Soto, "Human detection using a mobile platform and novel features derived from a visual saliency
        mechanism", Image and Vision Computing 28(3), 2010, with the scales of OpenCV's `StaticSaliencyFineGrained`.
    """
    with torch.no_grad():
        largest = images.abs().amax((1, 2, 3)).view(-1, 1, 1)
        grey = _grey(accurate(images.detach()))
        grey = grey - grey.mean((1, 2), keepdim=True)  # sums of small numbers lose fewer digits
        flat = grey.abs().amax((1, 2), keepdim=True) <= _LEAST_CONTRAST * largest
        grey = _smooth(_smooth(grey, 1), 2)
        grey = _smooth(_smooth(grey, 1), 2)
        on, off = _differences(grey)
        return torch.where(flat, 0, _to_one(on) + _to_one(off))


def saliency_peaks(saliency: Float[Tensor, "b h w"]) -> Int[Tensor, "b 2"]:
    """Return row and column of each map's largest value, the first of equal ones."""
    at = saliency.flatten(1).argmax(1)
    width = saliency.shape[2]
    return torch.stack([at.div(width, rounding_mode="floor"), at % width], 1)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(1)
    red, green, blue = images.unbind(1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _smooth(grey: Tensor, axis: int) -> Tensor:
    """Return (1, 2, 1) / 4 along an axis; beyond an edge the image is its mirror image about the edge's pixel."""
    size = grey.shape[axis]
    if size == 1:
        return grey
    before = torch.cat([grey.narrow(axis, 1, 1), grey.narrow(axis, 0, size - 1)], axis)
    after = torch.cat([grey.narrow(axis, 1, size - 1), grey.narrow(axis, size - 2, 1)], axis)
    return (before + after).div_(4).add_(grey, alpha=0.5)


def _differences(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much brighter and how much darker each pixel is than its surrounds, summed over scales."""
    _, height, width = grey.shape
    integral = torch.nn.functional.pad(grey.cumsum(1).cumsum(2), (1, 0, 1, 0))
    on, off = torch.zeros_like(grey), torch.zeros_like(grey)
    for reach, scales in _distinct(max(height, width)):
        rows, tall = _window_sums(integral, 1, reach)
        total, broad = _window_sums(rows, 2, reach)
        others = (tall.view(-1, 1) * broad - 1).clamp_min(1)  # a surround of nothing has the sum 0
        difference = grey - (total - grey) / others
        on.add_(difference.clamp_min(0), alpha=scales)
        off.sub_(difference.clamp_max(0), alpha=scales)
    return on, off


def _distinct(size: int) -> list[tuple[int, int]]:
    """Return how far surrounds reach, with how many scales; those that cover the whole image are the same."""
    reaches = [min(reach, size) for reach in SURROUNDS]
    return [(reach, reaches.count(reach)) for reach in sorted(set(reaches))]


def _window_sums(integral: Tensor, axis: int, reach: int) -> tuple[Tensor, Tensor]:
    """Return sums over windows along an axis, from sums up to each place, and how many places a window has."""
    size = integral.shape[axis] - 1
    place = torch.arange(size, device=integral.device)
    low, high = (place - reach).clamp_min(0), (place + reach + 1).clamp_max(size)
    return integral.index_select(axis, high) - integral.index_select(axis, low), high - low


def _to_one(values: Tensor) -> Tensor:
    """Return maps divided by their maximum; a map of zeros stays."""
    most = values.amax((1, 2), keepdim=True)
    return values / torch.where(most > 0, most, 1)
