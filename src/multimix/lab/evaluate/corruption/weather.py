"""Weather: snow, frost, fog, and the brightness of the day."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from multimix.lab.data import seed_of
from multimix.lab.evaluate.corruption.effects import Draw, Level, along, moved, zoom

_PANE = 480
"""Side of a frost texture, in pixels of a 224-pixel image."""
_ICE = (
    ((0.31, 0.58, 0.65), 0.08),
    ((0.79, 0.80, 0.84), 0.09),
    ((0.79, 0.80, 0.84), 0.09),
    ((0.54, 0.60, 0.65), 0.11),
    ((0.44, 0.48, 0.53), 0.17),
)
"""Mean colour and contrast of each texture: those of the benchmark's five photographs."""


def snow(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Whiten the image and let flakes fall over it, from both sides.

    ``level``: mean and standard deviation of the noise that flakes are made of, how much it is enlarged, the threshold
    below which nothing falls, radius and sigma of the flakes' motion, and the share of the image that is not whitened.
    """
    mean, deviation, larger, threshold, radius, sigma, kept = level
    h, w = pixels.shape[-2:]
    drawn = draw(lambda g: torch.randn(h * w + 1, generator=g)).to(pixels.dtype)
    # The last number is the direction: a normal one's share of the distribution is uniform.
    degrees = torch.special.ndtr(drawn[:, -1].cpu().double()) * 90 - 135
    flakes = along((drawn[:, :-1] * deviation + mean).view(-1, 1, h, w), zoom(h, larger), zoom(w, larger))
    flakes = moved(flakes.masked_fill(flakes < threshold, 0.0).clamp(0, 1), radius, sigma, degrees)
    grey = pixels.mean(1, keepdim=True)
    if pixels.shape[1] == 3:
        grey = (pixels * torch.tensor([0.299, 0.587, 0.114]).to(pixels).view(3, 1, 1)).sum(1, keepdim=True)
    white = torch.maximum(pixels, grey * 1.5 + 0.5)
    return kept * pixels + (1 - kept) * white + flakes + flakes.rot90(2, (-2, -1))


def frost(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Add a random part of an ice texture; ``level``: weight of the image, weight of the ice, and the ice's scale.

    The benchmark adds one of five photographs of frosted windows; they are not ours to give away, so that ice is drawn
    here, with their mean colours and contrasts.
    """
    clear, icy, scale = level
    panes = _panes(scale).to(pixels)
    side = panes.shape[-1]
    place = draw(lambda g: torch.stack([torch.randint(n, (), generator=g) for n in (len(panes), side, side)]))
    # Textures continue beyond their edges at the other side.
    y, x = (
        (place[:, i + 1, None] + torch.arange(n, device=place.device)) % side for i, n in enumerate(pixels.shape[2:])
    )
    ice = panes.movedim(1, -1)[place[:, 0, None, None], y[:, :, None], x[:, None]].movedim(-1, 1)
    return clear * pixels + icy * (ice if pixels.shape[1] == 3 else ice.mean(1, keepdim=True))


@lru_cache(4)
def _panes(scale: float) -> Float[Tensor, "t 3 s s"]:
    """Return the frost textures at a scale, by linear interpolation without smoothing, as in the benchmark."""
    if scale == 1:
        return torch.stack([_pane(i, colour, contrast) for i, (colour, contrast) in enumerate(_ICE)])
    side = round(_PANE * scale)
    return interpolate(_panes(1), (side, side), mode="bilinear")


def _pane(index: int, colour: tuple[float, float, float], contrast: float) -> Float[Tensor, "3 s s"]:
    """Return needles of ice in many directions over uneven haze, periodic, with a given mean colour and contrast."""
    generator = torch.Generator().manual_seed(seed_of("frost", index))
    noise = torch.fft.rfft2(torch.randn(_PANE, _PANE, generator=generator))
    down, right = torch.fft.fftfreq(_PANE)[:, None], torch.fft.rfftfreq(_PANE)
    haze = _filtered(noise, 1 / (down.hypot(right) + 4 / _PANE))
    needles = torch.full_like(haze, -torch.inf)
    for angle in torch.rand(9, generator=generator) * torch.pi:
        along_it = right * angle.cos() + down * angle.sin()
        across = down * angle.cos() - right * angle.sin()
        # What is 40 pixels long and 2 wide has a spectrum that is narrow along it and wide across.
        spectrum = torch.exp(-2 * torch.pi**2 * ((along_it * 40).square() + (across * 2).square()))
        needles = torch.maximum(needles, _filtered(noise, spectrum))
    ice = needles + 0.6 * haze
    ice = (ice - ice.mean()) / ice.std()
    return (torch.tensor(colour).view(3, 1, 1) + contrast * ice).clamp(0, 1)


def _filtered(noise: Tensor, spectrum: Float[Tensor, "s f"]) -> Float[Tensor, "s s"]:
    """Return noise, given by its transform, with a spectrum and unit variance."""
    shaped = torch.fft.irfft2(noise * spectrum, s=(_PANE, _PANE))
    return (shaped - shaped.mean()) / shaped.std()


def fog(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Add a plasma fractal and scale back to the image's largest value; ``level``: weight and decay of roughness."""
    weight, decay = level
    h, w = pixels.shape[-2:]
    side = 1 << (max(h, w, 2) - 1).bit_length()
    wobble = draw(lambda generator: torch.rand((side, side), generator=generator) * 2 - 1)
    clouds = plasma(wobble.double(), decay)[:, None, :h, :w].to(pixels.dtype)
    largest = pixels.amax((1, 2, 3), keepdim=True)
    return (pixels + weight * clouds) * largest / (largest + weight)


def plasma(wobble: Float[Tensor, "b s s"], decay: float) -> Float[Tensor, "b s s"]:
    """Return height maps in [0, 1] by the diamond-square algorithm on a torus.

    Each point departs from the mean of its four neighbours by ``wobble``, in [-1, 1], times the roughness, which is
    divided by the square of ``decay`` each time the mesh is halved. The side is a power of two.
    """
    side = wobble.shape[-1]
    heights, size, step = torch.zeros_like(wobble), 100.0**2, side
    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        down = corners + corners.roll(-1, 1)
        centres = (down + down.roll(-1, 2)) / 4 + size * wobble[:, half::step, half::step]
        heights[:, half::step, half::step] = centres
        beside = corners + corners.roll(-1, 2) + centres + centres.roll(1, 1)
        heights[:, ::step, half::step] = beside / 4 + size * wobble[:, ::step, half::step]
        below = corners + corners.roll(-1, 1) + centres + centres.roll(1, 2)
        heights[:, half::step, ::step] = below / 4 + size * wobble[:, half::step, ::step]
        step, size = half, size / decay**2
    low, high = heights.amin((1, 2), keepdim=True), heights.amax((1, 2), keepdim=True)
    return (heights - low) / (high - low).clamp(min=1e-12)


def brightness(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Add ``level`` to the value of hue, saturation and value, which is a pixel's largest channel.

    Hue and saturation stay, so that all channels grow by one factor; black turns grey.
    """
    (more,) = level
    value = pixels.amax(1, keepdim=True)
    brighter = (value + more).clamp(max=1)
    return torch.where(value > 0, pixels * (brighter / value.clamp(min=1e-12)), brighter)
