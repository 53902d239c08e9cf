"""Blur against plain loops and SciPy, with the same random numbers."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from multimix.lab.evaluate.corruption import corrupt
from multimix.lab.evaluate.corruption.effects import moved
from multimix.lab.evaluate.corruption.levels import level_of


def planes(pixels: torch.Tensor) -> np.ndarray:
    """Images (b, c, h, w) in float64."""
    return pixels.double().numpy()


def corrupted(name: str, pixels: torch.Tensor, severity: int) -> np.ndarray:
    return planes(corrupt(pixels, name, severity, examples=range(len(pixels))))


@pytest.mark.parametrize("severity", [1, 3, 4, 5])
@pytest.mark.parametrize("size", [32, 64, 130])
def test_defocus_blur_is_a_soft_disk(photos, size, severity):
    pixels = photos(size, 1)
    radius, sigma = level_of("defocus_blur", severity, size, size)
    half, reach = (8, 1) if radius <= 8 else (radius, 2)
    grid = np.arange(-half, half + 1)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(float)
    soft = ndimage.gaussian_filter(disk / disk.sum(), sigma, mode="mirror", radius=reach)
    theirs = [ndimage.convolve(plane, soft, mode="mirror") for plane in planes(pixels)[0]]
    np.testing.assert_allclose(corrupted("defocus_blur", pixels, severity)[0], theirs, atol=3e-6)


def in_turn(image: np.ndarray, shifts: np.ndarray, reach: int) -> None:
    """The benchmark's loop: from the last pixel to the first, each becomes what the one it points to is by then."""
    h, w = image.shape[1:]
    for y in range(h - reach, reach, -1):
        for x in range(w - reach, reach, -1):
            down, right = shifts[:, y, x]
            image[:, y, x] = image[:, y + down, x + right]


@pytest.mark.parametrize(("size", "severity"), [(32, 1), (32, 5), (64, 5), (122, 3)])
def test_glass_blur_moves_pixels_one_after_the_other(photos, drawn, size, severity):
    pixels = photos(size, 2)
    sigma, reach, rounds = level_of("glass_blur", severity, size, size)
    shifts = drawn(
        "glass_blur",
        2,
        lambda g: torch.randint(-reach, reach, (rounds, 2, size, size), generator=g, dtype=torch.int16),
    )
    for i, found in enumerate(corrupted("glass_blur", pixels, severity)):
        image = ndimage.gaussian_filter(planes(pixels)[i], (0, sigma, sigma), mode="nearest")
        for turn in range(rounds):
            in_turn(image, shifts[i, turn].numpy(), reach)
        image = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest")
        np.testing.assert_allclose(found, image, atol=2e-6)


def smeared(image: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Weights of half a Gaussian along a line, whole pixels, the border repeated."""
    _, h, w = image.shape
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    out = np.zeros_like(image)
    for i, weight in enumerate(weights):
        down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
        for y in range(h):
            for x in range(w):
                out[:, y, x] += weight * image[:, min(max(y + down, 0), h - 1), min(max(x + right, 0), w - 1)]
    return out / sum(weights)


@pytest.mark.parametrize(("radius", "sigma"), [(6, 1), (9, 2.5), (20, 15)])
def test_motion_is_half_a_gaussian_along_a_line(photos, radius, sigma):
    pixels = photos(16, 6)
    degrees = torch.tensor([0.0, 37.0, -45.0, 90.0, -135.0, 171.3])
    found = planes(moved(pixels, radius, sigma, degrees))
    for i, angle in enumerate(degrees.tolist()):
        np.testing.assert_allclose(found[i], smeared(planes(pixels)[i], radius, sigma, angle), atol=1e-5)


def test_motion_blur_goes_sideways(photos, drawn):
    pixels = photos(32, 50)
    angles = drawn("motion_blur", 50, lambda g: torch.rand(1, generator=g, dtype=torch.float64) * 90 - 45).flatten()
    assert -45 <= angles.min() < -35 < 35 < angles.max() <= 45
    expected = planes(moved(pixels, 9, 2.5, angles))
    np.testing.assert_allclose(corrupted("motion_blur", pixels, 5), expected, atol=1e-6)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("size", [20, 32, 33, 64, 130])
def test_zoom_blur_is_the_mean_of_enlargements(photos, size, severity):
    """32 pixels and fewer go through one matrix, larger images through one for each enlargement."""
    pixels = photos(size, 1)
    step, count = level_of("zoom_blur", severity, size, size)
    image = planes(pixels)[0]
    total = image.copy()
    for factor in np.arange(1, 1 + step * (count - 0.5), step):
        part = math.ceil(size / factor)
        top = (size - part) // 2
        large = ndimage.zoom(image[:, top : top + part, top : top + part], (1, factor, factor), order=1)
        trim = (large.shape[1] - size) // 2
        total += large[:, trim : trim + size, trim : trim + size]
    np.testing.assert_allclose(corrupted("zoom_blur", pixels, severity)[0], total / (count + 1), atol=2e-6)
