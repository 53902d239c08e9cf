"""C-Mixup: who is paired with whom, by loops in float64; its cost; values, labels and classes."""

import importlib
import math

import pytest
import torch
from scipy import stats

import cases
import references
import toy
from multimix.methods import cmixup
from multimix.methods.cmixup import CMixup, near_partners
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SampleWeighted, SquaredError
from toy import seeded

LABELS = torch.tensor([2, 0, 2, 1, 0, 2, 1])
VALUES = torch.tensor([[0.0], [0.3], [0.31], [-2.0], [5.0], [0.0], [1.0]])
SEVERAL = (torch.arange(3) >= LABELS.unsqueeze(1)).float()


def probabilities(rows, sigma):
    """Each row's own, by the definition: a Gaussian of the distance, normalised over the mini-batch."""
    table = []
    for one in rows:
        weights = [
            math.exp(-sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / (2 * sigma**2)) for other in rows
        ]
        table.append([weight / sum(weights) for weight in weights])
    return table


def chosen(table, chances):
    """The partner in whose stretch of [0, 1) each number lies."""
    return [next(j for j in range(len(row)) if sum(row[: j + 1]) > u) for row, u in zip(table, chances, strict=True)]


WEIGHTED = SampleWeighted(SquaredError())
TARGETS = {
    "one value": (SquaredError(), VALUES, VALUES),
    "plain numbers": (SquaredError(), VALUES.squeeze(1), VALUES),
    "counts": (SquaredError(), LABELS, LABELS.unsqueeze(1)),
    "values": (SquaredError(), torch.cat([VALUES, VALUES.flip(0)], 1), torch.cat([VALUES, VALUES.flip(0)], 1)),
    "weighted": (WEIGHTED, WEIGHTED.join(VALUES, torch.arange(7.0), 1), VALUES),
    "labels": (BinaryCrossEntropy(), SEVERAL, SEVERAL),
    "classes": (None, LABELS, toy.one_hot(LABELS, 3)),
    "ignored": (CrossEntropy(ignore_index=2), LABELS, toy.one_hot(LABELS, 3)),
    "probabilities": (None, toy.soft_targets(7, 3), toy.soft_targets(7, 3)),
}


@pytest.mark.parametrize("rows_at_once", [1, 3, 7])
@pytest.mark.parametrize("sigma", [1e-200, 0.1, 1.0, 40.0, 1e300])
@pytest.mark.parametrize("name", TARGETS)
def test_partners_are_those_of_the_loop(name, sigma, rows_at_once, monkeypatch):
    monkeypatch.setattr(cmixup, "_CELLS", 7 * rows_at_once)
    objective, targets, rows = TARGETS[name]
    network, inputs, _ = cases.images()
    network.objective = objective
    for seed in range(20):
        drawn = CMixup(sigma=sigma).draw(network, inputs, targets, seeded(seed))
        chances = torch.rand(7, generator=seeded(seed)).tolist()
        expected = chosen(probabilities(rows.tolist(), min(max(sigma, 1e-3), 1e9)), chances)
        assert drawn.partners.tolist() == expected


@pytest.mark.parametrize("name", ["one value", "counts", "weighted", "labels"])
def test_data_alone_are_paired_as_the_objective_says(name):
    objective, targets, rows = TARGETS[name]
    inputs, method = toy.batch(7, 4)[0], CMixup(sigma=0.5)
    mixed, given = method.mix(inputs, targets, num_classes=rows.shape[1], objective=objective, generator=seeded(3))
    partners = chosen(probabilities(rows.tolist(), 0.5), torch.rand(7, generator=seeded(3)).tolist())
    network, *_ = cases.images()
    network.objective = objective
    lam = float(method.draw(network, inputs, targets, seeded(3)).lam)
    torch.testing.assert_close(mixed, references.pairs(inputs, torch.tensor(partners), lam).float())
    torch.testing.assert_close(given[:, -rows.shape[1] :], references.pairs(rows, torch.tensor(partners), lam).float())


def test_partners_are_as_frequent_as_they_are_probable():
    points, n, generator = VALUES.double(), 4000, seeded(1)
    drawn = torch.stack([near_partners(points, 0.7, torch.rand(7, generator=generator)) for _ in range(n)])
    for i, row in enumerate(probabilities(VALUES.tolist(), 0.7)):
        assert (
            stats.chisquare(torch.bincount(drawn[:, i], minlength=7).numpy() + 1e-9, [n * p for p in row]).pvalue > 1e-3
        )


def test_lambda_is_beta_and_one_a_step():
    inputs, generator = toy.batch(7, 4)[0], seeded(2)
    lams = [CMixup(alpha=0.5).draw(None, inputs, LABELS, generator).lam for _ in range(500)]
    assert all(lam.shape == () for lam in lams)
    assert stats.kstest([float(lam) for lam in lams], stats.beta(0.5, 0.5).cdf).pvalue > 1e-3


def test_far_targets_do_not_lose_digits():
    """A million away from zero, neighbours are told apart as near it."""
    near, chances = VALUES.double(), torch.rand(7, generator=seeded())
    pairs = torch.cat([near, near.flip(0)], 1)
    for points in (near, pairs):
        assert torch.equal(near_partners(points + 2.0**20, 0.3, chances), near_partners(points, 0.3, chances))


def test_memory_is_bounded(monkeypatch):
    """Of 3000 examples no more than 1000 rows of distances are there at once."""
    monkeypatch.setattr(cmixup, "_CELLS", 3_000_000)
    sizes, real = [], cmixup._distances
    monkeypatch.setattr(cmixup, "_distances", lambda rows, points: sizes.append(len(rows)) or real(rows, points))
    near_partners(torch.randn(3000, 1, generator=seeded()).double(), 1.0, torch.rand(3000, generator=seeded()))
    assert sizes == [1000, 1000, 1000]


def test_the_regressor_trains_with_it():
    pytest.importorskip("sklearn")
    estimators = importlib.import_module("multimix.integrations.sklearn")
    x = torch.randn(60, 3, generator=seeded()).numpy()
    settings = {"hidden": (8,), "epochs": 30, "learning_rate": 0.03, "random_state": 0}
    near, all_alike = (
        estimators.MultiMixRegressor(**settings, method=CMixup(sigma=sigma)).fit(x, 5 * x[:, 0] + 90)
        for sigma in (0.2, 1e6)
    )
    assert near.score(x, 5 * x[:, 0] + 90) > all_alike.score(x, 5 * x[:, 0] + 90) > 0
