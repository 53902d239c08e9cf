"""The temperature against SciPy's minimum, a fine grid, and where there is none."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

import toy
from multimix.lab.evaluate.calibration import fit_temperature, negative_log_likelihood
from multimix.lab.evaluate.calibration import LIMIT


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean of -log softmax(logits / T) at the label."""
    z = logits / temperature
    return float(np.mean(logsumexp(z, axis=1) - z[np.arange(len(z)), labels]))


def noisy(examples: int, classes: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels drawn from their softmax at a third of the scale: the best temperature is about 3."""
    generator = torch.Generator().manual_seed(examples)
    logits = torch.randn(examples, classes, generator=generator, dtype=torch.float64) * scale
    return logits, torch.multinomial((logits / 3).softmax(1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize(
    ("examples", "classes", "scale"), [(300, 5, 6.0), (50, 2, 3.0), (5000, 10, 1.0), (400, 100, 30.0)]
)
def test_it_is_the_minimum(examples, classes, scale):
    logits, labels = noisy(examples, classes, scale)
    found = fit_temperature(logits, labels)
    z, y = logits.numpy(), labels.numpy()
    best = minimize_scalar(lambda t: loss(z, y, np.exp(t)), bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    assert found == pytest.approx(np.exp(best.x), rel=1e-5)  # a minimum is flat: this is what its value can tell
    grid = np.geomspace(found / 1.5, found * 1.5, 2001)
    assert loss(z, y, found) <= min(loss(z, y, t) for t in grid) + 1e-15
    slope = (loss(z, y, found * (1 + 1e-4)) - loss(z, y, found * (1 - 1e-4))) / 2e-4
    assert abs(slope) < 1e-6


def test_it_undoes_a_scale():
    logits, labels = noisy(2000, 5, 4.0)
    one = fit_temperature(logits, labels)
    for factor in (0.03, 0.5, 7.0, 20.0):
        assert fit_temperature(logits * factor, labels) == pytest.approx(one * factor, rel=1e-9)
    assert fit_temperature(logits + 1e6, labels) == pytest.approx(one, rel=1e-6)


def test_it_never_makes_the_likelihood_worse_where_it_was_fitted():
    for seed in range(20):
        logits, labels = toy.batch(30, 4, classes=4, seed=seed)
        scaled = logits.double() / fit_temperature(logits, labels)
        assert negative_log_likelihood(scaled, labels) <= negative_log_likelihood(logits, labels) + 1e-12


def test_without_a_minimum_it_is_the_limit():
    logits = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == 1 / LIMIT
    assert fit_temperature(logits, torch.tensor([1, 0])) == LIMIT
    assert fit_temperature(torch.zeros(3, 2), torch.tensor([0, 1, 1])) == LIMIT


def test_logits_of_any_size_give_a_number():
    """Wrong by so much that only the largest temperature helps; a class ruled out (-inf) does no harm."""
    assert fit_temperature(torch.tensor([[1e6, 0.0], [0.0, 5.0]]), torch.tensor([1, 1])) == LIMIT
    logits, labels = noisy(500, 4, 4.0)
    ruled_out = torch.cat([logits, torch.full((500, 1), -torch.inf)], 1)
    assert fit_temperature(ruled_out, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-12)


@pytest.mark.bad_input
@pytest.mark.parametrize(("shape", "labels"), [((0, 3), 0), ((4, 3), 3), ((4,), 4)])
def test_what_cannot_be_fitted_is_refused(shape, labels):
    with pytest.raises(ValueError, match=r"logits must be \(n, k\) and labels \(n,\)"):
        fit_temperature(torch.ones(shape), torch.zeros(labels, dtype=torch.long))
