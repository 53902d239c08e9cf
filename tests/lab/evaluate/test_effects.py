"""Every corruption against a plain loop, SciPy, Pillow or its distribution, with the same random numbers."""

import colorsys
import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torch import Generator, Tensor

from evaluate.made import photos
from multimix.lab.data import seed_of
from multimix.lab.evaluate.corruption import corrupt
from multimix.lab.evaluate.corruption.effects import _ICE, _panes, moved, plasma, zoom
from multimix.lab.evaluate.corruption.suite import LEVELS, level_of
from multimix.lab.evaluate.passes import per_example


def corrupted(name: str, pixels: Tensor, severity: int) -> Tensor:
    return corrupt(pixels, name, severity, examples=range(len(pixels)))


def exact(name: str, pixels: Tensor, severity: int) -> np.ndarray:
    return corrupted(name, pixels, severity).double().numpy()


def drawn(name: str, count: int, draw: Callable[[Generator], Tensor]) -> Tensor:
    """The numbers that ``corrupt`` draws for the first examples, from the same seeds, for a plain loop to use."""
    return per_example(draw, range(count), seed=seed_of("corruption", name, 0))


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """SciPy's enlargement of the middle of square planes (c, h, h), cut to their size."""
    size = image.shape[-1]
    part = math.ceil(size / factor)
    top = (size - part) // 2
    large = ndimage.zoom(image[:, top : top + part, top : top + part], (1, factor, factor), order=1)
    trim = (large.shape[1] - size) // 2
    return large[:, trim : trim + size, trim : trim + size]


def grey(side: int, count: int, value: float = 0.5) -> Tensor:
    return torch.full((count, 3, side, side), value)


CASES = [(32, 32, 40, 1), (64, 64, 10, 5), (224, 130, 2, 5)]
noise_cases = pytest.mark.parametrize(("benchmark", "side", "count", "severity"), CASES)


@noise_cases
def test_gaussian_noise_is_normal(benchmark, side, count, severity):
    (sigma,) = LEVELS["gaussian_noise"][benchmark][severity - 1]
    noise = (corrupted("gaussian_noise", grey(side, count), severity) - 0.5).flatten()
    inside = noise[noise.abs() < 0.5].numpy()  # the rest is clipped
    width = 0.5 / sigma
    assert stats.kstest(inside[::7], stats.truncnorm(-width, width, scale=sigma).cdf).pvalue > 1e-3
    tails = 2 * stats.norm.cdf(-width)
    assert float((noise.abs() == 0.5).double().mean()) == pytest.approx(tails, abs=4e-3)


@noise_cases
def test_shot_noise_counts_photons(benchmark, side, count, severity):
    (photons,) = LEVELS["shot_noise"][benchmark][severity - 1]
    counts = corrupted("shot_noise", grey(side, count, 0.25), severity) * photons
    torch.testing.assert_close(counts, counts.round(), atol=1e-3, rtol=0)
    exact = torch.poisson(torch.full((400_000,), 0.25 * photons), generator=torch.Generator().manual_seed(1))
    exact = exact.clamp(max=photons)
    error = float(exact.std()) / counts.numel() ** 0.5
    assert float(counts.mean()) == pytest.approx(float(exact.mean()), abs=6 * error)
    assert float(counts.var()) == pytest.approx(float(exact.var()), rel=0.03)
    assert not corrupted("shot_noise", grey(side, 1, 0.0), severity).any()


@noise_cases
def test_impulse_noise_hits_a_share(benchmark, side, count, severity):
    (share,) = LEVELS["impulse_noise"][benchmark][severity - 1]
    noisy = corrupted("impulse_noise", grey(side, count), severity)
    for value in (0.0, 1.0):
        assert stats.binomtest(int((noisy == value).sum()), noisy.numel(), share / 2).pvalue > 1e-3
    assert ((noisy == 0) | (noisy == 1) | (noisy == 0.5)).all()


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise"])
def test_channels_and_images_have_noise_of_their_own(name):
    noise = (corrupted(name, grey(32, 40), 5) - 0.5).movedim(1, 0).reshape(3, 40, -1)
    for values, most in ((noise.flatten(1), 0.03), (noise[0], 0.15)):
        assert float((torch.corrcoef(values) - torch.eye(len(values))).abs().max()) < most


@pytest.mark.parametrize("severity", [1, 4, 5])
@pytest.mark.parametrize("size", [32, 64, 130])
def test_defocus_blur_is_a_soft_disk(size, severity):
    pixels = photos(size, 1)
    radius, sigma = level_of("defocus_blur", severity, size, size)
    half, reach = (8, 1) if radius <= 8 else (radius, 2)
    grid = np.arange(-half, half + 1)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(float)
    soft = ndimage.gaussian_filter(disk / disk.sum(), sigma, mode="mirror", radius=reach)
    theirs = [ndimage.convolve(plane, soft, mode="mirror") for plane in pixels.double().numpy()[0]]
    np.testing.assert_allclose(exact("defocus_blur", pixels, severity)[0], theirs, atol=3e-6)


def in_turn(image: np.ndarray, shifts: np.ndarray, reach: int) -> None:
    """The benchmark's loop: from the last pixel to the first, each becomes what the one it points to is by then."""
    h, w = image.shape[1:]
    for y in range(h - reach, reach, -1):
        for x in range(w - reach, reach, -1):
            down, right = shifts[:, y, x]
            image[:, y, x] = image[:, y + down, x + right]


@pytest.mark.parametrize(("size", "severity"), [(32, 1), (32, 5), (64, 5), (122, 3)])
def test_glass_blur_moves_pixels_one_after_the_other(size, severity):
    pixels = photos(size, 2)
    sigma, reach, rounds = level_of("glass_blur", severity, size, size)
    shape = (rounds, 2, size, size)
    shifts = drawn("glass_blur", 2, lambda g: torch.randint(-reach, reach, shape, generator=g, dtype=torch.int16))
    for i, found in enumerate(exact("glass_blur", pixels, severity)):
        image = ndimage.gaussian_filter(pixels.double().numpy()[i], (0, sigma, sigma), mode="nearest")
        for turn in range(rounds):
            in_turn(image, shifts[i, turn].numpy(), reach)
        image = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest")
        np.testing.assert_allclose(found, image, atol=2e-6)


def smeared(image: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Weights of half a Gaussian along a line, whole pixels, the border repeated."""
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    _, rows, columns = np.indices(image.shape)
    out = np.zeros_like(image)
    for i, weight in enumerate(weights):
        down, right = (math.ceil(i * f(math.radians(degrees)) - 0.5) for f in (math.sin, math.cos))
        y, x = (rows + down).clip(0, image.shape[1] - 1), (columns + right).clip(0, image.shape[2] - 1)
        out += weight * np.take_along_axis(np.take_along_axis(image, y, 1), x, 2)
    return out / sum(weights)


@pytest.mark.parametrize(("radius", "sigma"), [(6, 1), (9, 2.5), (20, 15)])
def test_motion_is_half_a_gaussian_along_a_line(radius, sigma):
    pixels = photos(16, 6)
    degrees = torch.tensor([0.0, 37.0, -45.0, 90.0, -135.0, 171.3])
    found = moved(pixels, radius, sigma, degrees).numpy()
    for i, angle in enumerate(degrees.tolist()):
        np.testing.assert_allclose(found[i], smeared(pixels.double().numpy()[i], radius, sigma, angle), atol=1e-5)


def test_motion_blur_goes_sideways():
    pixels = photos(32, 50)
    angles = drawn("motion_blur", 50, lambda g: torch.rand(1, generator=g, dtype=torch.float64) * 90 - 45).flatten()
    assert -45 <= angles.min() < -35 < 35 < angles.max() <= 45
    expected = moved(pixels, 9, 2.5, angles).numpy()
    np.testing.assert_allclose(exact("motion_blur", pixels, 5), expected, atol=1e-6)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("size", [20, 32, 33, 64, 130])
def test_zoom_blur_is_the_mean_of_enlargements(size, severity):
    """32 pixels and fewer go through one matrix, larger images through one for each enlargement."""
    pixels = photos(size, 1)
    step, count = level_of("zoom_blur", severity, size, size)
    image = pixels.double().numpy()[0]
    total = image.copy()
    for factor in np.arange(1, 1 + step * (count - 0.5), step):
        total += enlarged(image, factor)
    np.testing.assert_allclose(exact("zoom_blur", pixels, severity)[0], total / (count + 1), atol=2e-6)


@pytest.mark.parametrize(("size", "severity"), [(32, 1), (32, 5), (64, 2), (122, 5)])
def test_brightness_adds_to_the_value_of_hsv(size, severity):
    pixels = photos(size, 1)
    pixels[0, :, :2, :2] = torch.tensor([[[0.0, 1.0], [0.0, 0.2]], [[0.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    (more,) = level_of("brightness", severity, size, size)
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in pixels[0].flatten(1).T.tolist()]
    expected = torch.tensor([colorsys.hsv_to_rgb(h, s, min(value + more, 1.0)) for h, s, value in hsv])
    found = corrupted("brightness", pixels, severity)[0].flatten(1).T
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def diamond_square(wobble: np.ndarray, decay: float) -> np.ndarray:
    """Point by point: centres of squares, then the middles of their sides, on a torus, the mesh halved each time."""
    side = len(wobble)
    heights = np.zeros((side, side))
    step, rough = side, 100.0
    while step >= 2:
        half = step // 2
        centres = [(y, x) for y in range(half, side, step) for x in range(half, side, step)]
        middles = [(y, x) for y in range(0, side, half) for x in range(half if y % step == 0 else 0, side, step)]
        corners, beside = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (1, 0), (0, -1), (0, 1))
        for places, around in ((centres, corners), (middles, beside)):
            for y, x in places:
                near = [heights[(y + dy * half) % side, (x + dx * half) % side] for dy, dx in around]
                heights[y, x] = sum(near) / 4 + rough**2 * wobble[y, x]
        step, rough = half, rough / decay
    heights -= heights.min()
    return heights / heights.max()


@pytest.mark.parametrize(("side", "decay"), [(2, 3), (8, 1.5), (32, 1.75)])
def test_plasma_is_the_diamond_square_algorithm(side, decay):
    wobble = torch.rand(3, side, side, dtype=torch.float64) * 2 - 1
    for one, found in zip(wobble, plasma(wobble, decay), strict=True):
        np.testing.assert_allclose(found, diamond_square(one.numpy(), decay), atol=1e-12)


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize(("size", "side"), [(32, 32), (64, 64), (125, 128), (20, 32)])
def test_fog_is_plasma_over_the_image(size, side, severity):
    pixels = photos(size, 2) * 0.9
    weight, decay = level_of("fog", severity, size, size)
    wobble = drawn("fog", 2, lambda g: torch.rand((side, side), generator=g) * 2 - 1).double()
    clouds = plasma(wobble, decay)[:, None, :size, :size]
    largest = pixels.double().amax((1, 2, 3), keepdim=True)
    expected = (pixels + weight * clouds) * largest / (largest + weight)
    torch.testing.assert_close(corrupted("fog", pixels, severity).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("size", [32, 64, 125])
def test_snow_is_moving_flakes_over_a_whitened_image(size, severity):
    pixels = photos(size, 2)
    mean, deviation, larger, threshold, radius, sigma, kept = level_of("snow", severity, size, size)
    numbers = drawn("snow", 2, lambda g: torch.randn(size * size + 1, generator=g)).double().numpy()
    found = exact("snow", pixels, severity)
    for i, image in enumerate(pixels.double().numpy()):
        flakes = enlarged(numbers[i, :-1].reshape(1, size, size) * deviation + mean, larger)
        flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
        degrees = torch.tensor([-135 + 90 * stats.norm.cdf(numbers[i, -1])])
        flakes = moved(torch.from_numpy(flakes)[None], radius, sigma, degrees)[0, 0].numpy()
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        white = kept * image + (1 - kept) * np.maximum(image, 1.5 * grey + 0.5)
        expected = np.clip(white + flakes + flakes[::-1, ::-1], 0, 1)
        # A flake at the very threshold may be there or not in float32.
        assert np.mean(np.abs(found[i] - expected) > 1e-5) < 1e-3


def test_ice_has_the_colours_and_contrasts_of_the_photographs():
    panes = _panes(1.0)
    for pane, (colour, contrast) in zip(panes, _ICE, strict=True):
        torch.testing.assert_close(pane.mean((1, 2)), torch.tensor(colour), atol=0.01, rtol=0)
        assert float(pane.std((1, 2)).mean()) == pytest.approx(contrast, rel=0.05)
        # Needles: neighbours are alike, far pixels are not.
        grey = pane[0] - pane[0].mean()
        near, far = ((grey * grey.roll(n, 0)).mean() / grey.square().mean() for n in (1, 100))
        assert near > 0.6
        assert abs(far) < 0.2
    assert not torch.equal(panes[1], panes[2])


@pytest.mark.parametrize(("size", "scale"), [(32, 0.2), (64, 0.3), (125, 1), (500, 1)])
def test_frost_is_ice_added_to_the_image(size, scale):
    clear, icy, found_scale = level_of("frost", 3, size, size)
    assert found_scale == scale
    panes = _panes(scale)
    side = panes.shape[-1]
    place = drawn("frost", 3, lambda g: torch.stack([torch.randint(n, (), generator=g) for n in (5, side, side)]))
    pixels = torch.rand(3, 3, size, size)
    found = corrupted("frost", pixels, 3)
    for i, (which, y, x) in enumerate(place.tolist()):
        ice = panes[which].roll((-y, -x), (1, 2)).repeat(1, 3, 3)[:, :size, :size]
        torch.testing.assert_close(found[i], (clear * pixels[i] + icy * ice).clamp(0, 1), atol=1e-6, rtol=0)


def as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels * 255).round().byte().movedim(0, -1).numpy().squeeze())


@pytest.mark.parametrize(("size", "channels", "severity"), [(32, 3, 1), (125, 3, 5), (32, 1, 5), (32, 2, 1)])
def test_jpeg_is_pillows(size, channels, severity):
    """Image by image, whatever the batch; of one or two channels each is a grey file."""
    pixels = photos(size, 2)[:, :channels]
    (quality,) = level_of("jpeg_compression", severity, size, size)
    images = pixels if channels == 3 else pixels.flatten(0, 1).unsqueeze(1)
    found = corrupted("jpeg_compression", pixels, severity).reshape(images.shape) * 255
    for image, ours in zip(images, found, strict=True):
        as_image(image).save(file := io.BytesIO(), "JPEG", quality=int(quality))
        wanted = torch.from_numpy(np.array(Image.open(file), dtype=np.float32))
        torch.testing.assert_close(ours.movedim(0, -1).squeeze(-1), wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("size", [32, 64, 125])
def test_pixelate_is_pillows_but_for_rounding_to_eight_bits(size, severity):
    pixels = photos(size, 2)
    (share,) = level_of("pixelate", severity, size, size)
    small = (int(size * share),) * 2
    box = Image.Resampling.BOX
    for found, before in zip(corrupted("pixelate", pixels, severity), pixels, strict=True):
        theirs = np.asarray(as_image(before).resize(small, box).resize((size, size), box))
        assert np.abs(found.movedim(0, -1).numpy() * 255 - theirs).max() <= 1.001


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_contrast_pulls_towards_each_channels_mean(severity):
    pixels = photos(32, 3)
    (left,) = level_of("contrast", severity, 32, 32)
    for planes, found in zip(pixels.flatten(0, 1), corrupted("contrast", pixels, severity).flatten(0, 1), strict=True):
        torch.testing.assert_close(found, (planes - planes.mean()) * left + planes.mean())


def warped(image: np.ndarray, y: np.ndarray, x: np.ndarray, mode: str) -> np.ndarray:
    return np.stack([ndimage.map_coordinates(plane, (y, x), order=1, mode=mode) for plane in image])


@pytest.mark.parametrize("severity", [1, 2, 5])
@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 64), (124, 130), (28, 40)])
def test_elastic_transform_shears_and_displaces(h, w, severity):
    pixels = photos(max(h, w), 2)[:, :, :h, :w]
    size, sigma, shift = (share * min(h, w) for share in level_of("elastic_transform", severity, h, w))
    numbers = drawn("elastic_transform", 2, lambda g: torch.rand(2 * h * w + 6, generator=g) * 2 - 1).double().numpy()
    found = exact("elastic_transform", pixels, severity)
    rows, columns = np.mgrid[:h, :w]
    for i, image in enumerate(pixels.double().numpy()):
        middle, reach = np.array([w // 2, h // 2]), min(h, w) // 3
        before = np.array([middle + reach, [middle[0] + reach, middle[1] - reach], middle - reach], float)
        after = before + numbers[i, :6].reshape(3, 2) * shift
        matrix = np.linalg.solve(np.c_[after, np.ones(3)], before).T  # where the result comes from
        x, y = (m[0] * columns + m[1] * rows + m[2] for m in matrix)
        sheared = warped(image, y, x, "mirror")
        right, down = numbers[i, 6:].reshape(2, h, w)
        if size:
            right, down = (size * ndimage.gaussian_filter(f, sigma, mode="reflect", truncate=3) for f in (right, down))
            sheared = warped(sheared, rows + down, columns + right, "reflect")
        np.testing.assert_allclose(found[i], sheared, atol=2e-4)


def test_no_enlargement_has_a_black_edge():
    """Here SciPy takes the last place for one beyond the image, by rounding."""
    assert ndimage.zoom(np.ones(30), 1.2000000000000002, order=1)[-1] == 0
    np.testing.assert_allclose(zoom(36, 1.2000000000000002).sum(1), 1)
