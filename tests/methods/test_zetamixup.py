"""Zeta-mixup against sums in float64."""

import collections

import pytest
import torch
from scipy import stats

import references
import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods.zetamixup import ZetaMixup
from multimix.ops import zeta_weights


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_by_hand():
    weights = zeta_weights(2, 1.0, generator=seeded())
    torch.testing.assert_close(weights, torch.tensor([[2 / 3, 1 / 3], [1 / 3, 2 / 3]]))


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


def test_a_batch_of_one_stays_as_it_is():
    inputs, targets = toy.batch(1, 3, 6, 6)
    mixed, wanted = ZetaMixup().mix(inputs, targets, num_classes=5, generator=seeded())
    assert torch.equal(mixed, inputs)
    assert torch.equal(wanted, toy.one_hot(targets))


def test_with_a_large_gamma_nothing_is_mixed():
    inputs, targets = toy.batch(7, 8)
    mixed, wanted = ZetaMixup(gamma=200.0).mix(inputs, targets, num_classes=5, generator=seeded())
    torch.testing.assert_close(mixed, inputs)
    assert torch.equal(wanted, toy.one_hot(targets))


def test_from_173_on_an_input_weighs_as_much_as_all_others():
    assert series(10**5, 1.729)[0] > 0.5 > series(10**5, 1.70)[0]
    assert float(zeta_weights(2000, 1.73, generator=seeded()).diagonal().min()) > 0.5


def test_autocast_and_other_precisions():
    inputs, targets = toy.batch(7, 3, 6, 4)
    truth, wanted = ZetaMixup().mix(inputs, targets, num_classes=5, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        mixed, probabilities = ZetaMixup().mix(inputs, targets, num_classes=5, generator=seeded())
    assert torch.equal(mixed, truth)
    assert torch.equal(probabilities, wanted)
    for dtype, tolerance in ((torch.bfloat16, 3e-2), (torch.float64, 1e-6)):
        cast = inputs.to(dtype).contiguous(memory_format=torch.channels_last)
        mixed, _ = ZetaMixup().mix(cast, targets, num_classes=5, generator=seeded())
        assert mixed.dtype == dtype
        torch.testing.assert_close(mixed.float(), truth, rtol=tolerance, atol=tolerance)


def test_it_composes():
    inputs, targets = toy.batch(7, 3, 6, 6)
    for method in (SelfDistilled(ZetaMixup(), 0.3), Alternate((ZetaMixup(), ERM()))):
        network = toy.images()
        method(network, inputs, targets, generator=seeded()).total.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.bad_input
@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_gammas_are_refused(gamma):
    with pytest.raises(ValueError, match="gamma must be finite and greater than 0, got"):
        ZetaMixup(gamma=gamma)


@pytest.mark.bad_input
@pytest.mark.parametrize("gamma", ["1", None, True, (1.0, 2.0)])
def test_a_gamma_that_is_no_number_is_refused(gamma):
    with pytest.raises(TypeError, match="gamma must be a number, got"):
        ZetaMixup(gamma=gamma)
