"""Blurring and resizing matrices against SciPy and Pillow."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from multimix.lab.evaluate.corruption.effects import along, box, gaussian, zoom


def signal(size: int) -> np.ndarray:
    return np.random.default_rng(size).random(size)


@pytest.mark.parametrize("size", [4, 7, 32, 50])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.5, 6.4, 40.0])
@pytest.mark.parametrize(("border", "truncate"), [("nearest", 4.0), ("reflect", 3.0)])
def test_the_blur_is_scipys(size, sigma, border, truncate):
    theirs = ndimage.gaussian_filter1d(signal(size), sigma, mode=border, truncate=truncate)
    np.testing.assert_allclose(gaussian(size, sigma, truncate, border).numpy() @ signal(size), theirs, atol=1e-12)


def test_without_width_it_is_no_blur():
    assert torch.equal(gaussian(5, 0.05), torch.eye(5, dtype=torch.float64))


@pytest.mark.parametrize("size", [4, 8, 32, 33, 64, 100])
@pytest.mark.parametrize("factor", [1, 1.01, 1.07, 1.25, 1.75, 2.25, 4.5])
def test_the_enlargement_is_scipys(size, factor):
    part = math.ceil(size / factor)
    top = (size - part) // 2
    large = ndimage.zoom(signal(size)[top : top + part], factor, order=1)
    trim = (len(large) - size) // 2
    np.testing.assert_allclose(zoom(size, factor).numpy() @ signal(size), large[trim : trim + size], atol=1e-12)


@pytest.mark.parametrize(("size", "new"), [(32, 30), (32, 20), (20, 32), (224, 56), (134, 224), (9, 9), (7, 1), (1, 7)])
def test_the_box_is_pillows(size, new):
    values = np.stack([signal(size)] * size).astype(np.float32)
    theirs = np.asarray(Image.fromarray(values).resize((new, size), Image.Resampling.BOX))[0]
    np.testing.assert_allclose(box(size, new).numpy() @ signal(size), theirs, atol=1e-6)


def test_rows_and_columns_are_not_confused():
    pixels = torch.rand(2, 3, 5, 8)
    rows, columns = torch.rand(4, 5), torch.rand(6, 8)
    expected = torch.einsum("ih,bchw,jw->bcij", rows, pixels, columns)
    torch.testing.assert_close(along(pixels, rows, columns), expected)
