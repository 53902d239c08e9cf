"""Digital corruptions against Pillow and SciPy, with the same random numbers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from multimix.lab.evaluate.corruption import corrupt
from multimix.lab.evaluate.corruption.levels import level_of


def corrupted(name: str, pixels: torch.Tensor, severity: int) -> torch.Tensor:
    return corrupt(pixels, name, severity, examples=range(len(pixels)))


def picture(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray((pixels * 255).round().byte().movedim(0, -1).numpy().squeeze())


def jpeg(image: Image.Image, quality: float) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [32, 64, 125])
def test_jpeg_is_pillows(photos, size, severity):
    """Image by image, whatever the batch."""
    pixels = photos(size, 2)
    found = corrupted("jpeg_compression", pixels, severity) * 255
    (quality,) = level_of("jpeg_compression", severity, size, size)
    for one, before in zip(found, pixels, strict=True):
        theirs = torch.from_numpy(jpeg(picture(before), quality).astype(np.float32)).movedim(-1, 0)
        torch.testing.assert_close(one, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("channels", [1, 2])
def test_other_channels_are_grey_files(photos, channels):
    pixels = photos(32, 2)[:, :channels]
    found = corrupted("jpeg_compression", pixels, 5) * 255
    theirs = [[jpeg(picture(plane[None]), 40) for plane in image] for image in pixels]
    torch.testing.assert_close(found, torch.from_numpy(np.array(theirs).astype(np.float32)), atol=1e-3, rtol=0)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [32, 64, 125])
def test_pixelate_is_pillows_but_for_rounding_to_eight_bits(photos, size, severity):
    pixels = photos(size, 2)
    (share,) = level_of("pixelate", severity, size, size)
    small = (int(size * share),) * 2
    for found, before in zip(corrupted("pixelate", pixels, severity), pixels, strict=True):
        box = Image.Resampling.BOX
        theirs = np.asarray(picture(before).resize(small, box).resize((size, size), box))
        assert np.abs(found.movedim(0, -1).numpy() * 255 - theirs).max() <= 1.001


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_contrast_pulls_towards_each_channels_mean(photos, severity):
    pixels = photos(32, 3)
    (left,) = level_of("contrast", severity, 32, 32)
    found = corrupted("contrast", pixels, severity)
    for i in range(3):
        for channel in range(3):
            plane = pixels[i, channel]
            torch.testing.assert_close(found[i, channel], (plane - plane.mean()) * left + plane.mean())


def warped(image: np.ndarray, y: np.ndarray, x: np.ndarray, mode: str) -> np.ndarray:
    return np.stack([ndimage.map_coordinates(plane, (y, x), order=1, mode=mode) for plane in image])


def affine(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The 2 x 3 matrix that takes three points (x, y) to three others."""
    unknown = np.zeros((6, 6))
    for i, (x, y) in enumerate(before):
        unknown[2 * i, :3] = unknown[2 * i + 1, 3:] = (x, y, 1)
    return np.linalg.solve(unknown, after.reshape(-1)).reshape(2, 3)


@pytest.mark.parametrize("severity", [1, 2, 5])
@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 64), (124, 130), (28, 40)])
def test_elastic_transform_shears_and_displaces(photos, drawn, h, w, severity):
    pixels = photos(max(h, w), 2)[:, :, :h, :w]
    size, sigma, shift = (share * min(h, w) for share in level_of("elastic_transform", severity, h, w))
    numbers = drawn("elastic_transform", 2, lambda g: torch.rand(2 * h * w + 6, generator=g) * 2 - 1).double().numpy()
    found = corrupted("elastic_transform", pixels, severity).double().numpy()
    rows, columns = np.mgrid[:h, :w]
    for i, image in enumerate(pixels.double().numpy()):
        middle, reach = np.array([w // 2, h // 2]), min(h, w) // 3
        before = np.array([middle + reach, [middle[0] + reach, middle[1] - reach], middle - reach], float)
        matrix = affine(before + numbers[i, :6].reshape(3, 2) * shift, before)  # where the result comes from
        x, y = (m[0] * columns + m[1] * rows + m[2] for m in matrix)
        sheared = warped(image, y, x, "mirror")
        right, down = numbers[i, 6:].reshape(2, h, w)
        if size:
            smooth = [
                ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3) * size for field in (right, down)
            ]
            sheared = warped(sheared, rows + smooth[1], columns + smooth[0], "reflect")
        np.testing.assert_allclose(found[i], sheared, atol=2e-4)
