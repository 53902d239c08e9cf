"""FMix against a discrete Fourier sum and a loop over pixels."""

import cmath
import math

import pytest
import torch
from scipy import ndimage, stats

import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods.fmix import FMix
from multimix.ops import draw_mask


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(height, width, decay, generator):
    """The image by its defining sum over frequencies, of which the real part is taken."""
    normal = torch.randn(height, width, 2, generator=generator).double().tolist()
    image = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            total = 0j
            for v in range(height):
                for u in range(width):
                    frequency = math.hypot(min(v, height - v) / height, min(u, width - u) / width)
                    coefficient = complex(*normal[v][u]) / max(frequency, 1 / max(height, width)) ** decay
                    total += coefficient * cmath.exp(2j * math.pi * (v * y / height + u * x / width))
            image[y, x] = total.real
    return image


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(6, 6), (5, 7), (8, 3), (1, 4), (1, 1)])
def test_the_mask_is_the_top_of_the_sum_over_frequencies(shape, decay):
    image = noise(*shape, decay, seeded())
    for lam in (0.0, 0.3, 0.5, 1.0):
        mask = draw_mask(*shape, lam, decay, generator=seeded())
        n = round(lam * math.prod(shape))
        assert mask.sum() == n
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        if 0 < n < math.prod(shape):
            assert image[mask == 1].min() > image[mask == 0].max()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (12, 7)])
@pytest.mark.parametrize("b", [1, 2, 7])
def test_it_equals_the_loop(b, shape, soft):
    images, targets = toy.batch(b, 3, *shape)
    probabilities = toy.soft_targets(b, 5) if soft else toy.one_hot(targets)
    for seed in range(3):
        drawn = FMix().draw(None, images, targets, seeded(seed))
        mixed, wanted = FMix().mix(images, probabilities if soft else targets, num_classes=5, generator=seeded(seed))
        truth = images.clone()
        for i, j in enumerate(drawn.partners.tolist()):
            for y in range(shape[0]):
                for x in range(shape[1]):
                    if drawn.mask[y, x] == 0:
                        truth[i, :, y, x] = images[j, :, y, x]
        assert torch.equal(mixed, truth)
        share = float(drawn.mask.mean())
        rows = [share * probabilities[i] + (1 - share) * probabilities[j] for i, j in enumerate(drawn.partners)]
        torch.testing.assert_close(wanted, torch.stack(rows))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_the_share_is_beta(alpha):
    images, generator = torch.zeros(2, 1, 40, 40), seeded(1)
    drawn = [FMix(alpha).draw(None, images, None, generator).lam for _ in range(400)]
    for edge in (0.1003, 0.5003, 0.9003):  # between two whole numbers of pixels
        hits = sum(lam < edge for lam in drawn)
        assert stats.binomtest(hits, 400, stats.beta(alpha, alpha).cdf(edge)).pvalue > 1e-3


def test_the_first_has_the_mask_half_of_the_time_at_every_pixel():
    generator = seeded(2)
    share = sum(draw_mask(6, 6, 0.5, 3.0, generator=generator) for _ in range(600)) / 600
    assert float((share - 0.5).abs().max()) < 4 * math.sqrt(0.25 / 600)


def test_the_more_decay_the_fewer_pieces():
    pieces = []
    for decay in (0.0, 1.5, 3.0):
        masks = [draw_mask(32, 32, 0.5, decay, generator=seeded(i)).numpy() for i in range(20)]
        pieces.append(sum(ndimage.label(mask)[1] for mask in masks) / 20)
    assert pieces[0] > 5 * pieces[1] > 10 * pieces[2]


def test_neither_direction_is_preferred():
    """How often neighbours differ, down and across; the official code has one frequency across, ours all."""
    generator = seeded(3)
    masks = torch.stack([draw_mask(24, 24, 0.5, 3.0, generator=generator) for _ in range(300)])
    down = (masks[:, 1:] != masks[:, :-1]).float().mean((1, 2))
    across = (masks[:, :, 1:] != masks[:, :, :-1]).float().mean((1, 2))
    assert stats.ttest_rel(down.numpy(), across.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_and_layouts(dtype):
    images, targets = toy.batch(7, 3, 10, 6)
    truth, _ = FMix().mix(images, targets, num_classes=5, generator=seeded(1))
    cast = images.to(dtype).contiguous(memory_format=torch.channels_last)
    mixed, _ = FMix().mix(cast, targets, num_classes=5, generator=seeded(1))
    assert torch.equal(mixed, truth.to(dtype) if dtype == torch.bfloat16 else mixed)
    torch.testing.assert_close(mixed.float(), truth, rtol=1e-2, atol=1e-2)


def test_it_composes():
    inputs, targets = toy.batch(7, 3, 6, 6)
    for method in (SelfDistilled(FMix(), 0.3), Alternate((FMix(), ERM()))):
        network = toy.images()
        method(network, inputs, targets, generator=seeded()).total.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.bad_input
def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="alpha must be finite and greater than 0"):
        FMix(alpha=0.0)
    for decay in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="decay must be finite and at least 0, got"):
            FMix(decay=decay)


@pytest.mark.bad_input
@pytest.mark.parametrize("lam", [-0.1, 1.5, float("nan")])
def test_a_share_outside_the_unit_interval_is_refused(lam):
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\], got"):
        draw_mask(8, 8, lam, 3.0)


@pytest.mark.bad_input
def test_it_names_itself_where_it_needs_images():
    with pytest.raises(ValueError, match=r"images of shape \(b, c, h, w\) for FMix, got \(7, 8\)"):
        FMix().mix(*toy.batch(7, 8), num_classes=5)
