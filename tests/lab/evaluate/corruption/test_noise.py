"""Noise: its distribution, from moments that hold exactly in expectation."""

import pytest
import torch
from scipy import stats

from multimix.lab.evaluate.corruption import corrupt
from multimix.lab.evaluate.corruption.levels import LEVELS

SIZES = [(32, 32, 40), (64, 64, 10), (224, 130, 2)]
"""Benchmark, side of the images and how many of them."""


def grey(side: int, count: int, value: float = 0.5) -> torch.Tensor:
    return torch.full((count, 3, side, side), value)


def corrupted(name: str, pixels: torch.Tensor, severity: int) -> torch.Tensor:
    return corrupt(pixels, name, severity, examples=range(len(pixels)))


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize(("benchmark", "side", "count"), SIZES)
def test_gaussian_noise_is_normal(benchmark, side, count, severity):
    (sigma,) = LEVELS["gaussian_noise"][benchmark][severity - 1]
    noise = (corrupted("gaussian_noise", grey(side, count), severity) - 0.5).flatten()
    inside = noise[noise.abs() < 0.5].numpy()  # the rest is clipped
    width = 0.5 / sigma
    assert stats.kstest(inside[::7], stats.truncnorm(-width, width, scale=sigma).cdf).pvalue > 1e-3
    tails = 2 * stats.norm.cdf(-width)
    assert float((noise.abs() == 0.5).double().mean()) == pytest.approx(tails, abs=4e-3)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize(("benchmark", "side", "count"), SIZES)
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


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize(("benchmark", "side", "count"), SIZES)
def test_impulse_noise_hits_a_share(benchmark, side, count, severity):
    (share,) = LEVELS["impulse_noise"][benchmark][severity - 1]
    noisy = corrupted("impulse_noise", grey(side, count), severity)
    values = noisy.numel()
    for value in (0.0, 1.0):
        assert stats.binomtest(int((noisy == value).sum()), values, share / 2).pvalue > 1e-3
    assert ((noisy == 0) | (noisy == 1) | (noisy == 0.5)).all()


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise"])
def test_channels_and_images_have_noise_of_their_own(name):
    noise = (corrupted(name, grey(32, 40), 5) - 0.5).movedim(1, 0).reshape(3, 40, -1)
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(3)
    between = torch.corrcoef(noise[0]) - torch.eye(40)
    assert float(correlation.abs().max()) < 0.03
    assert float(between.abs().max()) < 0.15
