"""The corruptions: noise, blur, digital ones and weather, of images, one severity's parameters and random numbers."""

import io
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

from multimix.lab.data import seed_of

Level = tuple[float, ...]  # one severity's parameters of one corruption
Draw = Callable[[Callable[[Generator], Tensor]], Tensor]
"""Asks for each example's random numbers: from what one generator gives to the stack of a batch, on its device."""
_NEGLIGIBLE = 1e-6  # weights below it would not change a 32-bit pixel that anyone could tell
_KEPT = 64  # matrices of each kind; a run over all corruptions at one size needs fewer
_PANE = 480  # side of a frost texture, in pixels of a 224-pixel image
_ICE = (
    ((0.31, 0.58, 0.65), 0.08),
    ((0.79, 0.80, 0.84), 0.09),
    ((0.79, 0.80, 0.84), 0.09),
    ((0.54, 0.60, 0.65), 0.11),
    ((0.44, 0.48, 0.53), 0.17),
)
"""Mean colour and contrast of each texture: those of the benchmark's five photographs."""


def along(
    pixels: Float[Tensor, "*any h w"], rows: Float[Tensor, "i h"], columns: Float[Tensor, "j w"]
) -> Float[Tensor, "*any i j"]:
    """Return ``rows @ pixels @ columns.T`` of each image, as two large products."""
    across = pixels @ columns.to(pixels).T
    return (across.mT @ rows.to(pixels).T).mT


@lru_cache(_KEPT)
def gaussian(size: int, sigma: float, truncate: float = 4.0, border: str = "nearest") -> Float[Tensor, "size size"]:
    """Return SciPy's Gaussian blur of an axis, cut off at ``truncate * sigma``, as a matrix."""
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(gaussian_filter1d(np.eye(size), sigma, axis=0, mode=border, truncate=truncate))


@lru_cache(_KEPT)
def zoom(size: int, factor: float) -> Float[Tensor, "size size"]:
    """Return SciPy's linear enlargement of the middle of an axis, cut to the axis's length, as a matrix."""
    from scipy import ndimage

    part = math.ceil(size / factor)
    top = (size - part) // 2
    # By rounding, the last place may lie beyond the last pixel: "nearest" keeps it from being black.
    large = ndimage.zoom(np.eye(size)[top : top + part], (factor, 1), order=1, mode="nearest")
    trim = (len(large) - size) // 2
    return torch.from_numpy(large[trim : trim + size].copy())


@lru_cache(_KEPT)
def box(size: int, new: int) -> Float[Tensor, "new size"]:
    """Return Pillow's resize of an axis by means over boxes, as a matrix."""
    from PIL import Image

    pixels = Image.fromarray(np.eye(size, dtype=np.float32))
    return torch.from_numpy(np.array(pixels.resize((size, new), Image.Resampling.BOX)))


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


def defocus_blur(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Average over a disk; ``level`` is its radius and the sigma of the blur that softens its edge."""
    kernel = _disk(*level).to(pixels)
    planes = _reflected(pixels.flatten(0, 1).unsqueeze(1), len(kernel) // 2)
    return conv2d(planes, kernel[None, None]).view_as(pixels)


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
    """Blur, let pixels take a near one's place, and blur again; ``level``: sigma, how near, and how often."""
    # The benchmark means to swap pairs, from the last row up, but copies: the partner stays. Published sets are so.
    sigma, reach, rounds = level
    b, c, h, w = pixels.shape
    blur = gaussian(h, sigma), gaussian(w, sigma)
    pixels = along(pixels, *blur)
    reach, size = int(reach), (int(rounds), 2, h, w)
    shifts = draw(lambda g: torch.randint(-reach, reach, size, generator=g, dtype=torch.int16)).long()
    rows, columns = (torch.arange(n, device=shifts.device) for n in (h, w))
    moves = ((rows > reach) & (rows <= h - reach))[:, None] & ((columns > reach) & (columns <= w - reach))
    steps = torch.where(moves, shifts[:, :, 0] * w + shifts[:, :, 1], 0).flatten(2)
    for partners in (steps + torch.arange(h * w, device=shifts.device)).unbind(1):
        pixels = pixels.flatten(2).gather(2, _in_turn(partners)[:, None].expand(b, c, h * w)).view(b, c, h, w)
    return along(pixels, *blur)


def _in_turn(partners: Int[Tensor, "b hw"]) -> Int[Tensor, "b hw"]:
    """Return where each pixel comes from if, from the last to the first, each copies its partner."""
    # A partner further on has its partner's value by then: chains are followed to their end, all at once, by doubling.
    here = torch.arange(partners.shape[1], device=partners.device).expand_as(partners)
    later = torch.where(partners > here, partners, here)
    while True:
        further = later.gather(1, later)
        if torch.equal(further, later):
            return partners.gather(1, later)
        later = further


def motion_blur(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Smear each image in a direction within 45 degrees of the horizontal; ``level``: radius and sigma."""
    angles = draw(lambda generator: torch.rand(1, generator=generator, dtype=torch.float64) * 90 - 45)
    return moved(pixels, level[0], level[1], angles.squeeze(1))


def moved(
    pixels: Float[Tensor, "b c h w"], radius: float, sigma: float, degrees: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return means over the pixels in a direction, weighted by half a Gaussian, as ImageMagick's motion blur does."""
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
    if h * w <= 1024:  # through one matrix it is several times faster
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


def contrast(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Pull every value towards its channel's mean; ``level`` is what is left of the distance."""
    (left,) = level
    return torch.lerp(pixels.mean((2, 3), keepdim=True), pixels, left)


def pixelate(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Shrink by means over boxes and enlarge by repetition; ``level`` is the share of the side that is left."""
    (share,) = level
    sides = [(size, max(int(size * share), 1)) for size in pixels.shape[2:]]
    small = along(pixels, *(box(size, new) for size, new in sides))
    return along(small, *(box(new, size) for size, new in sides))


def jpeg_compression(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Compress as JPEG, three channels in an RGB file, of others each in a grey one; ``level`` is the quality."""
    from PIL import Image

    (quality,) = level
    images = pixels if pixels.shape[1] == 3 else pixels.flatten(0, 1)[:, None]
    bytewise = (images * 255).round().to("cpu", torch.uint8).movedim(1, -1).contiguous()
    read = bytearray()
    for image in bytewise.squeeze(-1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(quality))
        read += Image.open(file, formats=("JPEG",)).tobytes()
    found = torch.frombuffer(read, dtype=torch.uint8).view(bytewise.shape)
    return found.to(pixels).div(255).movedim(-1, 1).reshape(pixels.shape)


def elastic_transform(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Shear the image at random and then displace every pixel by a smooth random field."""
    # The level: size and sigma of the displacements, and how far the points that fix the shear may move, as shares.
    h, w = pixels.shape[2:]
    size, sigma, shift = (share * min(h, w) for share in level)
    drawn = draw(lambda g: torch.rand(2 * h * w + 6, generator=g) * 2 - 1)
    pixels = _sheared(pixels, drawn[:, :6].reshape(-1, 3, 2) * shift)
    if not size:
        return pixels
    smooth = gaussian(h, sigma, 3.0, "reflect"), gaussian(w, sigma, 3.0, "reflect")
    moves = along(drawn[:, 6:].reshape(-1, 2, h, w), *smooth) * size
    return _sampled(pixels, _grid(h, w, moves) + moves.movedim(1, -1), corners=False)


def _sheared(pixels: Tensor, moves: Float[Tensor, "b 3 2"]) -> Tensor:
    """Return images under the affine map that moves three points (x, y) around the middle."""
    h, w = pixels.shape[2:]
    reach = min(h, w) // 3
    corners = torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64)
    before = torch.tensor([w // 2, h // 2]) + reach * corners
    after = before + moves.cpu().double()
    # Where a pixel (x, y, 1) of the result comes from: the map from the moved points to the old ones.
    back = torch.linalg.solve(torch.cat([after, torch.ones(len(after), 3, 1, dtype=torch.float64)], -1), before)
    back = back.to(moves)
    grid = _grid(h, w, moves).view(1, h * w, 2)
    places = torch.baddbmm(back[:, 2:], grid.expand(len(back), -1, -1), back[:, :2])
    return _sampled(pixels, places.view(-1, h, w, 2), corners=True)


def _grid(h: int, w: int, like: Tensor) -> Float[Tensor, "h w 2"]:
    """Return each pixel's place (x, y)."""
    y, x = (torch.arange(n, device=like.device, dtype=like.dtype) for n in (h, w))
    return torch.stack(torch.broadcast_tensors(x, y[:, None]), -1)


def _sampled(pixels: Tensor, places: Float[Tensor, "b h w 2"], *, corners: bool) -> Tensor:
    """Return images at places (x, y) in pixels, reflected about the middle (corners) or the edge of the last pixel."""
    sizes = torch.tensor([pixels.shape[3], pixels.shape[2]]).to(places)
    scaled = places * 2 / (sizes - 1).clamp(min=1) - 1 if corners else (places * 2 + 1) / sizes - 1
    return grid_sample(pixels, scaled.to(pixels.dtype), padding_mode="reflection", align_corners=corners)


def snow(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Whiten the image and let flakes fall over it, from both sides: enlarged noise above a threshold, in motion."""
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
    """Add a random part of a texture, drawn here, of the benchmark's photographs of ice; ``level``: weights, scale."""
    clear, icy, scale = level
    panes = _panes(scale).to(pixels)
    side = panes.shape[-1]
    place = draw(lambda g: torch.stack([torch.randint(n, (), generator=g) for n in (len(panes), side, side)]))
    # Textures continue beyond their edges at the other side.
    sides = (torch.arange(n, device=place.device) for n in pixels.shape[2:])
    y, x = ((place[:, i, None] + places) % side for i, places in enumerate(sides, 1))
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
    """Return height maps in [0, 1] by the diamond-square algorithm on a torus whose side is a power of two."""
    side = wobble.shape[-1]
    # Each point departs from the mean of its four neighbours by ``wobble``, in [-1, 1], times the size.
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
    """Add ``level`` to a pixel's largest channel, and let the others grow by the same factor; black turns grey."""
    (more,) = level
    value = pixels.amax(1, keepdim=True)
    brighter = (value + more).clamp(max=1)
    return torch.where(value > 0, pixels * (brighter / value.clamp(min=1e-12)), brighter)
