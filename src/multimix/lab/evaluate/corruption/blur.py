"""Blur: by a lens, frosted glass, motion and zoom."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import conv2d, pad

from multimix.lab.evaluate.corruption.levels import Level
from multimix.lab.evaluate.corruption.noise import Draw
from multimix.lab.evaluate.corruption.resample import along, gaussian, zoom

__all__ = ["defocus_blur", "glass_blur", "motion_blur", "moved", "zoom_blur"]

_NEGLIGIBLE = 1e-6
"""Weights below it would not change a 32-bit pixel that anyone could tell."""

_ONE_MATRIX = 1024
"""Images of up to so many pixels go through one matrix: at 32 x 32 pixels several times faster than one by one."""


def defocus_blur(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Average over a disk; ``level`` is its radius and the sigma of the blur that softens its edge."""
    kernel = _disk(*level).to(pixels)
    reach = len(kernel) // 2
    b, c, h, w = pixels.shape
    planes = pixels.reshape(b * c, 1, h, w)
    return conv2d(_reflected(planes, reach), kernel[None, None]).view(b, c, h, w)


@lru_cache(16)
def _disk(radius: float, sigma: float) -> Float[Tensor, "s s"]:
    """Return the pixels within a radius, blurred by a Gaussian of 3 x 3 or 5 x 5 pixels, without empty borders."""
    small = radius <= 8
    half = 8 if small else math.ceil(radius)
    offsets = torch.arange(-half, half + 1, dtype=torch.float64)
    disk = ((offsets[:, None] ** 2 + offsets**2) <= radius**2).double()
    reach = 1 if small else 2
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma).square())
    taps = taps / taps.sum()
    edge = _reflected((disk / disk.sum())[None, None], reach)
    kernel = conv2d(conv2d(edge, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))[0, 0]
    full = int((kernel[half] > _NEGLIGIBLE).sum()) // 2
    return kernel[half - full : half + full + 1, half - full : half + full + 1]


def _reflected(planes: Float[Tensor, "n 1 h w"], reach: int) -> Tensor:
    """Add a border in which the image is reflected about its last pixel, as often as a small image needs it."""
    while reach > 0:
        step = min(reach, planes.shape[-1] - 1, planes.shape[-2] - 1)
        planes = pad(planes, (step, step, step, step), mode="reflect")
        reach -= step
    return planes


def glass_blur(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Blur, let pixels take a near one's place, and blur again; ``level``: sigma, how near, and how often.

    The benchmark's code means to swap pairs of pixels one after the other, from the last row up, but its assignment
    copies: each pixel becomes what its partner is by then, and the partner stays. The published sets are made so.
    """
    sigma, reach, rounds = level
    b, c, h, w = pixels.shape
    blur = gaussian(h, sigma), gaussian(w, sigma)
    pixels = along(pixels, *blur)
    for step in _glass(draw, (int(rounds), h, w), int(reach)):
        pixels = pixels.flatten(2).gather(2, step.flatten(1)[:, None].expand(b, c, h * w)).view(b, c, h, w)
    return along(pixels, *blur)


def _glass(draw: Draw, shape: tuple[int, int, int], reach: int) -> list[Int[Tensor, "b h w"]]:
    """Return where every pixel comes from in each round, as places in the flat image."""
    rounds, h, w = shape
    shifts = draw(lambda g: torch.randint(-reach, reach, (rounds, 2, h, w), generator=g, dtype=torch.int16)).long()
    device = shifts.device
    rows, columns = (torch.arange(n, device=device) for n in (h, w))
    here = rows[:, None] * w + columns
    moves = ((rows > reach) & (rows <= h - reach))[:, None] & ((columns > reach) & (columns <= w - reach))
    partners = here + torch.where(moves, shifts[:, :, 0] * w + shifts[:, :, 1], 0)
    return [_in_turn(partners[:, i]) for i in range(rounds)]


def _in_turn(partners: Int[Tensor, "b h w"]) -> Int[Tensor, "b h w"]:
    """Return where each pixel comes from if, from the last to the first, each copies its partner.

    A partner further on has been given its own partner's value before: such chains are followed to their end, all at
    once, by doubling.
    """
    flat = partners.flatten(1)
    here = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
    later = torch.where(flat > here, flat, here)
    while True:
        further = later.gather(1, later)
        if torch.equal(further, later):
            return flat.gather(1, later).view_as(partners)
        later = further


def motion_blur(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Smear each image in a direction within 45 degrees of the horizontal; ``level``: radius and sigma."""
    angles = draw(lambda generator: torch.rand(1, generator=generator, dtype=torch.float64) * 90 - 45)
    return moved(pixels, level[0], level[1], angles.squeeze(1))


def moved(
    pixels: Float[Tensor, "b c h w"], radius: float, sigma: float, degrees: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return a mean over the pixels that lie in a direction, weighted by half a Gaussian (ImageMagick's motion blur).

    Whole pixels are taken, up to ``2 * radius`` away; beyond the border the last one is repeated.
    """
    b, c, h, w = pixels.shape
    steps = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (steps / sigma).square())
    weights = weights / weights.sum()
    weights = weights[weights > _NEGLIGIBLE]
    turned = torch.deg2rad(degrees.cpu().double())[:, None] * torch.ones(len(weights), dtype=torch.float64)
    steps = steps[: len(weights)]
    down, right = (torch.ceil(steps * f(turned) - 0.5).long().to(pixels.device) for f in (torch.sin, torch.cos))
    rows, columns = (torch.arange(n, device=pixels.device) for n in (h, w))
    flat, out = pixels.flatten(2), torch.zeros_like(pixels).flatten(2)
    for i, weight in enumerate(weights.tolist()):
        y = (rows + down[:, i, None]).clamp(0, h - 1)
        x = (columns + right[:, i, None]).clamp(0, w - 1)
        places = (y[:, :, None] * w + x[:, None]).view(b, 1, h * w).expand(b, c, h * w)
        out.add_(flat.gather(2, places), alpha=weight)
    return out.view(b, c, h, w)


def zoom_blur(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Average the image and its enlargements by 1, 1 + step, ...; ``level``: step and how many."""
    count, (b, c, h, w) = int(level[1]), pixels.shape
    step = (1 + level[0]) - 1  # as numpy.arange steps: the last digit decides how 26 * 1.25 is rounded
    factors = tuple(1 + i * step for i in range(count))
    if h * w <= _ONE_MATRIX:
        total = (pixels.reshape(b * c, h * w) @ _zooms(h, w, factors).to(pixels)).view_as(pixels)
    else:
        total = torch.zeros_like(pixels)
        for factor in factors:
            total += along(pixels, zoom(h, factor), zoom(w, factor))
    return (pixels + total) / (count + 1)


@lru_cache(8)
def _zooms(h: int, w: int, factors: tuple[float, ...]) -> Float[Tensor, "hw hw"]:
    """Return the sum of enlargements of whole images, as one matrix from pixels to pixels, in float32."""
    total = torch.zeros(h * w, h * w, dtype=torch.float64)
    for factor in factors:
        total += torch.kron(zoom(h, factor), zoom(w, factor))
    return total.T.float().contiguous()
