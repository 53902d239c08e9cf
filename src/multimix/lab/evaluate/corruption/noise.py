"""Noise: independent in every value of every channel."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from multimix.lab.evaluate.corruption.levels import Level

__all__ = ["Draw", "gaussian_noise", "impulse_noise", "shot_noise"]

Draw = Callable[[Callable[[Generator], Tensor]], Tensor]
"""Asks for each example's random numbers: from what one generator gives to the stack of a batch, on its device."""


def gaussian_noise(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Add normal noise; ``level`` is its standard deviation."""
    (sigma,) = level
    noise = draw(lambda generator: torch.randn(pixels.shape[1:], generator=generator))
    return torch.add(pixels, noise.to(pixels.dtype), alpha=sigma)


def shot_noise(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Count photons: a Poisson number with mean ``photons * value`` of each value, over ``photons``, the level."""
    (photons,) = level
    # Always in float32 on the CPU, where it is the same for every device.
    rates = iter(pixels.to("cpu", torch.float32) * photons)
    counts = draw(lambda generator: torch.poisson(next(rates), generator=generator))
    return counts.to(pixels.dtype) / photons


def impulse_noise(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Make values 0 or 1, half of them each; ``level`` is the share of values hit."""
    (share,) = level
    chance = draw(lambda generator: torch.rand(pixels.shape[1:], generator=generator))
    return pixels.masked_fill(chance < share / 2, 0.0).masked_fill(chance >= 1 - share / 2, 1.0)
