"""Weather against plain loops in NumPy, with the same random numbers."""

import colorsys
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from multimix.lab.evaluate.corruption import corrupt
from multimix.lab.evaluate.corruption.effects import moved
from multimix.lab.evaluate.corruption.levels import level_of
from multimix.lab.evaluate.corruption.weather import _ICE, _panes, plasma


def corrupted(name: str, pixels: torch.Tensor, severity: int) -> torch.Tensor:
    return corrupt(pixels, name, severity, examples=range(len(pixels)))


@pytest.mark.parametrize(("size", "severity"), [(32, 1), (32, 5), (64, 2), (122, 5)])
def test_brightness_adds_to_the_value_of_hsv(photos, size, severity):
    pixels = photos(size, 1)
    pixels[0, :, :2, :2] = torch.tensor([[[0.0, 1.0], [0.0, 0.2]], [[0.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    (more,) = level_of("brightness", severity, size, size)
    expected = torch.zeros_like(pixels)
    for y in range(size):
        for x in range(size):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixels[0, :, y, x].tolist())
            expected[0, :, y, x] = torch.tensor(colorsys.hsv_to_rgb(hue, saturation, min(value + more, 1.0)))
    torch.testing.assert_close(corrupted("brightness", pixels, severity), expected, atol=1e-6, rtol=0)


def diamond_square(wobble: np.ndarray, decay: float) -> np.ndarray:
    """Point by point: centres of squares, then the middles of their sides, on a torus, the mesh halved each time."""
    side = len(wobble)
    heights = np.zeros((side, side))
    step, rough = side, 100.0
    while step >= 2:
        half = step // 2
        for y in range(half, side, step):
            for x in range(half, side, step):
                near = [heights[(y + dy) % side, (x + dx) % side] for dy in (-half, half) for dx in (-half, half)]
                heights[y, x] = sum(near) / 4 + rough**2 * wobble[y, x]
        for y in range(0, side, half):
            for x in range(half if y % step == 0 else 0, side, step):
                near = [heights[(y + d) % side, x] for d in (-half, half)]
                near += [heights[y, (x + d) % side] for d in (-half, half)]
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
def test_fog_is_plasma_over_the_image(photos, drawn, size, side, severity):
    pixels = photos(size, 2) * 0.9
    weight, decay = level_of("fog", severity, size, size)
    wobble = drawn("fog", 2, lambda g: torch.rand((side, side), generator=g) * 2 - 1).double()
    clouds = plasma(wobble, decay)[:, None, :size, :size]
    largest = pixels.double().amax((1, 2, 3), keepdim=True)
    expected = (pixels + weight * clouds) * largest / (largest + weight)
    torch.testing.assert_close(corrupted("fog", pixels, severity).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("size", [32, 64, 125])
def test_snow_is_moving_flakes_over_a_whitened_image(photos, drawn, size, severity):
    pixels = photos(size, 2)
    mean, deviation, larger, threshold, radius, sigma, kept = level_of("snow", severity, size, size)
    numbers = drawn("snow", 2, lambda g: torch.randn(size * size + 1, generator=g)).double().numpy()
    found = corrupted("snow", pixels, severity).double().numpy()
    for i, image in enumerate(pixels.double().numpy()):
        flakes = numbers[i, :-1].reshape(size, size) * deviation + mean
        part = math.ceil(size / larger)
        top = (size - part) // 2
        flakes = ndimage.zoom(flakes[top : top + part, top : top + part], larger, order=1)
        trim = (len(flakes) - size) // 2
        flakes = flakes[trim : trim + size, trim : trim + size]
        flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
        degrees = torch.tensor([-135 + 90 * stats.norm.cdf(numbers[i, -1])])
        flakes = moved(torch.from_numpy(flakes)[None, None], radius, sigma, degrees)[0, 0].numpy()
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
def test_frost_is_ice_added_to_the_image(photos, drawn, size, scale):
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
