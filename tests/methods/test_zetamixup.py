"""Zeta-mixup against sums in float64."""

import collections

import pytest
import torch
from scipy import stats

import references
import toy
from methods.shared import seeded
from multimix.methods import ZetaMixup
from multimix.ops import zeta_weights


def series(b, gamma):
    terms = [i**-gamma for i in range(1, b + 1)]
    total = sum(terms)
    return [term / total for term in terms]


@pytest.mark.parametrize("gamma", [0.5, 2.8, 20.0])
@pytest.mark.parametrize("b", [1, 2, 7, 64])
def test_rows_are_the_series_with_the_largest_on_the_diagonal(b, gamma):
    weights = zeta_weights(b, gamma, generator=seeded())
    truth = torch.tensor(series(b, gamma), dtype=torch.float64)
    ordered = weights.double().sort(1, descending=True).values
    torch.testing.assert_close(ordered, truth.expand(b, b), rtol=1e-5, atol=1e-9)
    assert torch.equal(weights.diagonal(), weights.amax(1))


def test_every_order_of_the_others_is_as_likely_in_every_row():
    generator = seeded(1)
    draws = torch.stack([zeta_weights(4, 2.8, generator=generator) for _ in range(600)])
    orders = draws.argsort(-1, descending=True)
    for i in range(4):
        counts = collections.Counter(tuple(order) for order in orders[:, i].tolist())
        assert len(counts) == 6
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    together = collections.Counter((tuple(a), tuple(b)) for a, b in orders[:, :2].tolist())
    assert len(together) == 36


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", [(8,), (4, 3), (3, 5, 4)])
@pytest.mark.parametrize("b", [1, 2, 7])
def test_it_equals_the_sums(b, shape, soft):
    inputs, targets = toy.batch(b, *shape)
    probabilities = toy.soft_targets(b, 5) if soft else toy.one_hot(targets)
    weights = references.rows(ZetaMixup().draw(None, inputs, targets, seeded()).weights)
    mixed, wanted = ZetaMixup().mix(inputs, probabilities if soft else targets, num_classes=5, generator=seeded())
    truth = torch.tensor(references.mix(weights, references.rows(inputs.flatten(1)))).view(b, *shape)
    torch.testing.assert_close(mixed.double(), truth.double(), rtol=1e-5, atol=1e-5)
    truth = torch.tensor(references.mix(weights, references.rows(probabilities)))
    torch.testing.assert_close(wanted.double(), truth.double(), rtol=1e-5, atol=1e-5)
