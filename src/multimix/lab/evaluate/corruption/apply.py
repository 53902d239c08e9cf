"""The fifteen common corruptions by name."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from multimix.lab.data import seed_of
from multimix.lab.evaluate.corruption import blur, digital, noise, weather
from multimix.lab.evaluate.corruption.levels import Level, level_of
from multimix.lab.evaluate.corruption.noise import Draw
from multimix.lab.evaluate.predict import per_example

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)
"""From hardly to strongly corrupted."""

_SMALLEST = 4
"""Images have to be larger than what is moved about in them."""

CORRUPTIONS: dict[str, Callable[[Tensor, Level, Draw], Tensor]] = {
    f.__name__: f
    for f in (
        noise.gaussian_noise,
        noise.shot_noise,
        noise.impulse_noise,
        blur.defocus_blur,
        blur.glass_blur,
        blur.motion_blur,
        blur.zoom_blur,
        weather.snow,
        weather.frost,
        weather.fog,
        weather.brightness,
        digital.contrast,
        digital.elastic_transform,
        digital.pixelate,
        digital.jpeg_compression,
    )
}
"""Every corruption by its name, in the order of Hendrycks and Dietterich (ICLR 2019, arXiv 1903.12261)."""


@torch.no_grad()
def corrupt(
    pixels: Float[Tensor, "b c h w"], name: str, severity: int, *, examples: Sequence[int] | range, seed: int = 0
) -> Float[Tensor, "b c h w"]:
    """Return images under one of the fifteen common corruptions.

    What is random belongs to the seed, the corruption and the example, not to the batch, nor to the device, nor to the
    severity: of one example, all severities share their random numbers.

    Args:
        pixels: Images in [0, 1]; RGB where c is 3.
        name: One of ``CORRUPTIONS``.
        severity: 1 to 5. What they mean depends on the images' size (:mod:`multimix.lab.evaluate.corruption.levels`).
        examples: Each image's position in its set.
        seed: Of all that is random.

    Returns:
        Images in [0, 1] in the dtype of ``pixels``, without gradient.

    Raises:
        ValueError: If there is no such corruption or severity, or pixels are not images in [0, 1], one an example.
    """
    check(name, severity)
    _check_pixels(pixels, len(examples))
    if not len(pixels):
        return pixels
    draw = partial(per_example, examples=examples, seed=seed_of("corruption", name, seed), device=pixels.device)
    exact = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
    corrupted = CORRUPTIONS[name](exact, level_of(name, severity, *pixels.shape[2:]), draw)
    return corrupted.clamp(0, 1).to(pixels.dtype)


def check(name: str, severity: int) -> None:
    """Refuse what is no corruption, or no severity."""
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name}; known are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of 1 to 5, got {severity}")


def _check_pixels(pixels: Tensor, examples: int) -> None:
    if pixels.ndim != 4 or not pixels.is_floating_point() or min(pixels.shape[2:]) < _SMALLEST:
        raise ValueError(
            f"pixels must be floating-point images (b, c, h, w) of at least {_SMALLEST} x {_SMALLEST} pixels, "
            f"got {pixels.dtype} {tuple(pixels.shape)}"
        )
    if len(pixels) != examples:
        raise ValueError(f"examples must name one position an image, got {examples} for {len(pixels)} images")
    if len(pixels) and not (pixels.amin() >= 0 and pixels.amax() <= 1):
        raise ValueError(f"pixels must lie in [0, 1], got {float(pixels.amin()):g} to {float(pixels.amax()):g}")
