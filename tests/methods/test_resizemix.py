"""ResizeMix against a loop over pixels."""

import pytest
import torch
from scipy import stats

import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods.resizemix import Patching, ResizeMix


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loop(images, drawn):
    """Put, pixel by pixel, the partner's nearest pixel where the small image lies."""
    b, _, height, width = images.shape
    small_height, small_width = drawn.size
    mixed = images.clone()
    for i in range(b):
        for y in range(small_height):
            for x in range(small_width):
                source = images[int(drawn.partners[i]), :, y * height // small_height, x * width // small_width]
                mixed[i, :, int(drawn.top[i]) + y, int(drawn.left[i]) + x] = source
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
        share = drawn.size[0] * drawn.size[1] / (shape[0] * shape[1])
        truth = torch.stack([(1 - share) * probabilities[i] + share * probabilities[j] for i, j in pairs(drawn)])
        torch.testing.assert_close(wanted, truth)


def pairs(drawn):
    return enumerate(drawn.partners.tolist())


def test_the_share_is_that_of_the_pixels_pasted():
    """Images of a single colour each: the mean of a mixed one is its share of either."""
    colours = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 9, 14).contiguous()
    for seed in range(20):
        drawn = ResizeMix().draw(None, colours, None, seeded(seed))
        torch.testing.assert_close(drawn.mix(colours).mean((1, 2, 3)), drawn.mix_targets(torch.arange(5.0)))


def test_by_hand_the_whole_partner_is_there():
    images = torch.arange(32.0).view(2, 1, 4, 4)
    places = torch.tensor([1, 0]), torch.tensor([2, 0])
    mixed = Patching(torch.tensor([1, 0]), (2, 2), *places, 0.75).mix(images)
    assert mixed[0, 0].tolist() == [[0, 1, 2, 3], [4, 5, 16, 18], [8, 9, 24, 26], [12, 13, 14, 15]]
    assert mixed[1, 0].tolist() == [[0, 2, 18, 19], [8, 10, 22, 23], [24, 25, 26, 27], [28, 29, 30, 31]]


def test_bilinear_averages_what_a_pixel_covers():
    """A chessboard made half as large is grey, by the filter's weights at the edge and in the middle alike."""
    board = (torch.arange(8).view(-1, 1) + torch.arange(8)).remainder(2).double().expand(2, 1, 8, 8)
    drawn = Patching(torch.tensor([1, 0]), (4, 4), torch.tensor([0, 4]), torch.tensor([0, 4]), 0.75, "bilinear")
    mixed = drawn.mix(board)
    torch.testing.assert_close(mixed[0, 0, :4, :4], torch.full((4, 4), 0.5, dtype=torch.float64), rtol=0, atol=0.05)
    assert set(mixed[0, 0, 4:].flatten().tolist()) == {0.0, 1.0}
    chosen = ResizeMix(interpolation="bilinear").draw(None, board, None, seeded())
    assert chosen.interpolation == "bilinear"


def test_scales_are_uniform_and_one_a_step():
    images, generator = torch.zeros(1, 1, 1000, 500), seeded(1)
    sizes = [ResizeMix().draw(None, images, None, generator).size for _ in range(500)]
    assert stats.kstest([h / 1000 for h, _ in sizes], stats.uniform(0.1, 0.7).cdf).pvalue > 1e-3
    assert all(h // 2 == w for h, w in sizes)


def test_places_are_uniform_and_one_an_image():
    images = torch.zeros(900, 1, 8, 5)
    drawn = ResizeMix(scales=(0.5, 0.5)).draw(None, images, None, seeded(2))
    assert drawn.size == (4, 2)
    counts = torch.bincount(drawn.top * 4 + drawn.left, minlength=20)
    assert len(counts) == 20
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_without_a_pixel_to_paste_the_image_stays(shape):
    images, targets = toy.batch(7, 3, *shape)
    mixed, wanted = ResizeMix().mix(images, targets, num_classes=5, generator=seeded())
    assert torch.equal(mixed, images)
    assert mixed.data_ptr() != images.data_ptr()
    assert torch.equal(wanted, toy.one_hot(targets))


def test_at_full_size_the_partner_replaces_the_image():
    images, targets = toy.batch(7, 3, 6, 6)
    drawn = ResizeMix(scales=(1.0, 1.0)).draw(None, images, targets, seeded())
    assert torch.equal(drawn.mix(images), images[drawn.partners])
    assert drawn.lam == 0


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_and_layouts(dtype, interpolation):
    images, targets = toy.batch(7, 3, 10, 6)
    method = ResizeMix(interpolation=interpolation)
    truth, _ = method.mix(images, targets, num_classes=5, generator=seeded(1))
    cast = images.to(dtype).contiguous(memory_format=torch.channels_last)
    mixed, _ = method.mix(cast, targets, num_classes=5, generator=seeded(1))
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed.float(), truth, rtol=2e-2, atol=2e-2)


def test_it_composes():
    inputs, targets = toy.batch(7, 3, 6, 6)
    for method in (SelfDistilled(ResizeMix(), 0.3), Alternate((ResizeMix(), ERM()))):
        network = toy.images()
        method(network, inputs, targets, generator=seeded()).total.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.bad_input
@pytest.mark.parametrize("scales", [(0.8, 0.1), (-0.1, 0.5), (0.1, 1.1), (0.1, float("nan")), (0.5,), 0.5, None])
def test_impossible_scales_are_refused(scales):
    with pytest.raises(ValueError, match=r"scales must be \(low, high\) with 0 <= low <= high <= 1, got"):
        ResizeMix(scales=scales)


@pytest.mark.bad_input
def test_an_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match="interpolation must be nearest or bilinear, got 'cubic'"):
        ResizeMix(interpolation="cubic")


@pytest.mark.bad_input
def test_it_names_itself_where_it_needs_images():
    with pytest.raises(ValueError, match=r"images of shape \(b, c, h, w\) for ResizeMix, got \(7, 8\)"):
        ResizeMix().mix(*toy.batch(7, 8), num_classes=5)
