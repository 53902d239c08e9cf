"""ResizeMix against a loop over pixels."""

import pytest
import torch
from scipy import stats

import toy
from methods.shared import seeded
from multimix.methods import ResizeMix


def loop(images, drawn):
    """Put, pixel by pixel, the partner's nearest pixel where the small image lies."""
    b, _, height, width = images.shape
    top, left = drawn.given["corners"].tolist()
    small_height, small_width = drawn.given["size"]
    mixed = images.clone()
    for i in range(b):
        for y in range(small_height):
            for x in range(small_width):
                source = images[int(drawn.partners[i]), :, y * height // small_height, x * width // small_width]
                mixed[i, :, top[i] + y, left[i] + x] = source
    return mixed


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (12, 7), (7, 20)])
@pytest.mark.parametrize("b", [1, 2, 7])
def test_it_equals_the_loop(b, shape, soft):
    images, targets = toy.batch(b, 3, *shape)
    probabilities = toy.soft_targets(b, 5) if soft else toy.one_hot(targets)
    for seed in range(4):
        drawn = ResizeMix().draw(None, images, targets, seeded(seed))
        mixed, wanted = ResizeMix().mix(
            images, probabilities if soft else targets, num_classes=5, generator=seeded(seed)
        )
        assert torch.equal(mixed, loop(images, drawn))
        share = drawn.given["size"][0] * drawn.given["size"][1] / (shape[0] * shape[1])
        truth = torch.stack(
            [(1 - share) * probabilities[i] + share * probabilities[j] for i, j in enumerate(drawn.partners)]
        )
        torch.testing.assert_close(wanted, truth)


def test_bilinear_averages_what_a_pixel_covers():
    """A chessboard made half as large is grey, by the filter's weights at the edge and in the middle alike."""
    board = (torch.arange(8).view(-1, 1) + torch.arange(8)).remainder(2).double().expand(2, 1, 8, 8)
    corners = torch.tensor([[0, 4], [0, 4]])
    mixed = ResizeMix(interpolation="bilinear")._paste(board, torch.tensor([1, 0]), (4, 4), corners)
    torch.testing.assert_close(mixed[0, 0, :4, :4], torch.full((4, 4), 0.5, dtype=torch.float64), rtol=0, atol=0.05)
    assert set(mixed[0, 0, 4:].flatten().tolist()) == {0.0, 1.0}


def test_scales_are_uniform_and_one_a_step():
    images, generator = torch.zeros(1, 1, 1000, 500), seeded(1)
    sizes = [ResizeMix().draw(None, images, None, generator).given["size"] for _ in range(500)]
    assert stats.kstest([h / 1000 for h, _ in sizes], stats.uniform(0.1, 0.7).cdf).pvalue > 1e-3
    assert all(h // 2 == w for h, w in sizes)


def test_places_are_uniform_and_one_an_image():
    images = torch.zeros(900, 1, 8, 5)
    drawn = ResizeMix(scales=(0.5, 0.5)).draw(None, images, None, seeded(2))
    assert drawn.given["size"] == (4, 2)
    top, left = drawn.given["corners"]
    counts = torch.bincount(top * 4 + left, minlength=20)
    assert len(counts) == 20
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_without_a_pixel_to_paste_the_image_stays(shape):
    images, targets = toy.batch(7, 3, *shape)
    mixed, wanted = ResizeMix().mix(images, targets, num_classes=5, generator=seeded())
    assert torch.equal(mixed, images)
    assert mixed.data_ptr() != images.data_ptr()
    assert torch.equal(wanted, toy.one_hot(targets))
