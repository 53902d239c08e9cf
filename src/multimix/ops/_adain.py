"""Style as the mean and the deviation of each channel, and mixtures of two examples' contents and styles."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimix.ops._regions import Box

_EPS = 1e-5
"""Added to each variance, so that a constant channel has a deviation to divide by."""


def channel_statistics(
    features: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b c 1 1"], Float[Tensor, "b c 1 1"]]:
    """Return mean and standard deviation of each channel over the positions.

    The variance is the unbiased one; of a single position, which has none, it is zero.
    """
    correction = min(1, features.shape[-2] * features.shape[-1] - 1)
    variance, mean = torch.var_mean(features, (2, 3), correction=correction, keepdim=True)
    return mean, (variance + _EPS).sqrt()


def mix_styles(
    features: Float[Tensor, "b c h w"],
    partners: Int[Tensor, " b"],
    content: Float[Tensor, ""],
    style: Float[Tensor, ""],
    both: Float[Tensor, ""],
) -> Float[Tensor, "b c h w"]:
    """Return ``t f1 + (1 - rc - rs + t) f2 + (rc - t) adain(f1, f2) + (rs - t) adain(f2, f1)``, f2 the partner's.

    The four terms are two: each is an affine function, one number a channel, of the centred features of one example.

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
    plain = (features - mean) / std
    return torch.cat([plain * std[partners] + mean[partners], plain[partners] * std + mean])


def paste_styles(
    images: Float[Tensor, "b c h w"],
    exchanged: Float[Tensor, "b2 c h w"],
    partners: Int[Tensor, " b"],
    box: Box,
    style: Float[Tensor, ""],
    gamma: Float[Tensor, ""] | Float[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """Return each image's content inside ``box`` and its partner's outside, the styles mixed everywhere.

    Inside, the first example's own style has the share ``style``, and the rest is the blend of ``gamma`` of the image
    and ``1 - gamma`` of the image in its partner's style; outside, the partner's own style has the share
    ``1 - style``, and the rest is the blend of the partner and the partner in the first example's style.

    Args:
        images: The images.
        exchanged: Images in their partners' style and, after them, partners in the images' style.
        partners: Whose content is outside.
        box: Where the content is the image's own.
        style: The first example's share of the style.
        gamma: How much of a restyled image is the original: one number, or one a pair.

    Reference:
        Hong et al., CVPR 2021, section 3.3.
    """
    blend = (1 - gamma.reshape(-1, 1, 1, 1)).to(images.dtype)
    style = style.to(images.dtype)
    restyled, partners_restyled = exchanged[: len(images)], exchanged[len(images) :]
    mixed = torch.lerp(images[partners], partners_restyled, style * blend)
    inside = (..., slice(box.top, box.bottom), slice(box.left, box.right))
    mixed[inside] = torch.lerp(images[inside], restyled[inside], (1 - style) * blend)
    return mixed
