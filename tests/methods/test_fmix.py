"""FMix against a discrete Fourier sum and a loop over pixels."""

import cmath
import math

import pytest
import torch
from scipy import stats

import toy
from methods.shared import seeded
from multimix.methods import FMix
from multimix.ops import draw_mask


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
                    if drawn.given["kept"][y, x] == 0:
                        truth[i, :, y, x] = images[j, :, y, x]
        assert torch.equal(mixed, truth)
        share = float(drawn.given["kept"].mean())
        rows = [share * probabilities[i] + (1 - share) * probabilities[j] for i, j in enumerate(drawn.partners)]
        torch.testing.assert_close(wanted, torch.stack(rows))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_the_share_is_beta(alpha):
    images, generator = torch.zeros(2, 1, 40, 40), seeded(1)
    drawn = [FMix(alpha).draw(None, images, None, generator).lam for _ in range(400)]
    for edge in (0.1003, 0.5003, 0.9003):  # between two whole numbers of pixels
        hits = sum(lam < edge for lam in drawn)
        assert stats.binomtest(hits, 400, stats.beta(alpha, alpha).cdf(edge)).pvalue > 1e-3


@pytest.mark.bad_input
@pytest.mark.parametrize("lam", [-0.1, 1.5, float("nan")])
def test_a_share_outside_the_unit_interval_is_refused(lam):
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\], got"):
        draw_mask(8, 8, lam, 3.0)
