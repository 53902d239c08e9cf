"""Batched crop, flip and normalisation against a loop over images."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from multimix.lab.data import Augment, Crops, normalise

MEAN, STD = (0.3, 0.5, 0.6), (0.2, 0.25, 0.3)


def pictures(b, c=3, h=9, w=7):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (b, c, h, w), dtype=torch.uint8, generator=generator)


def loop(images, crops, padding):
    """Crop and flip pixel by pixel: the truth that the batched form must equal."""
    b, h, w = len(images), *images.shape[2:]
    out = np.zeros_like(images)
    for i in range(b):
        for y in range(h):
            for x in range(w):
                row = int(crops.top[i]) + y - padding
                column = int(crops.left[i]) + (w - 1 - x if crops.mirrored[i] else x) - padding
                if 0 <= row < h and 0 <= column < w:
                    out[i, :, y, x] = images[i, :, row, column]
    return out


@pytest.mark.parametrize(
    ("b", "c", "h", "w", "padding"), [(17, 3, 9, 7, 4), (1, 1, 8, 8, 2), (5, 4, 1, 6, 3), (6, 3, 5, 5, 0)]
)
def test_apply_equals_the_loop(b, c, h, w, padding, generator):
    images, augment = pictures(b, c, h, w), Augment(crop_padding=padding)
    crops = augment.draw(b, generator)
    assert np.array_equal(augment.apply(images, crops).numpy(), loop(images.numpy(), crops, padding))


def test_call_draws_applies_and_normalises():
    images, augment = pictures(11), Augment(crop_padding=2)
    crops = augment.draw(11, torch.Generator().manual_seed(3))
    before = torch.get_rng_state()
    got = augment(images, MEAN, STD, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, pictures(11))
    truth = loop(images.numpy(), crops, 2) / 255.0
    truth = (truth - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(got.numpy(), truth, rtol=0, atol=2e-6)
    assert got.dtype == torch.float32


def test_without_crop_and_flip_nothing_but_normalisation_is_left(generator):
    images = pictures(4)
    got = Augment(crop_padding=0, flip=False)(images, MEAN, STD, generator)
    assert torch.equal(got, normalise(images, torch.tensor(MEAN), torch.tensor(STD)))


def test_corners_and_flips_are_uniform_and_apart_for_each_image(generator):
    crops = Augment().draw(81 * 200, generator)
    cells = np.bincount((crops.top * 9 + crops.left).numpy() * 2 + crops.mirrored.numpy(), minlength=162)
    assert len(cells) == 162
    assert chisquare(cells).pvalue > 1e-3
    assert not Augment(flip=False).draw(200, generator).mirrored.any()


def test_on_each_device(device):
    images, augment = pictures(9).to(device), Augment(crop_padding=3)
    crops = augment.draw(9, torch.Generator(device).manual_seed(1))
    on_cpu = Crops(*(part.cpu() for part in crops))
    assert torch.equal(augment.apply(images, crops).cpu(), augment.apply(images.cpu(), on_cpu))
    out = augment(images, MEAN, STD, torch.Generator(device).manual_seed(1))
    assert out.device.type == device.type


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="crop_padding must be at least 0, got -1"):
        Augment(crop_padding=-1)
    with pytest.raises(ValueError, match=r"images must be uint8 .*float32"):
        normalise(torch.zeros(1, 3, 2, 2), MEAN, STD)
    with pytest.raises(ValueError, match=r"mean must have one number for each of 3 channels, got \(1,\)"):
        normalise(pictures(1), (0.5,), STD)
    with pytest.raises(ValueError, match="std must have one number for each of 1 channels"):
        normalise(pictures(1, c=1), (0.5,), STD)
