"""The arithmetic of the law and of the classes against loops in float64 and against draws; gradients of networks."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Generator
from torch.nn import Linear, Sequential
from torch.nn.functional import cross_entropy

import multimix as mm
import toy
from anatomy import (
    cosine,
    expected_cosine,
    law_gradient,
    norm_ratio,
    plain_gradient,
    quadratic_gradient,
    relative_error,
    relative_variance,
    shrinkage,
)
from anatomy.geometry import class_geometry, geometry
from anatomy.probe import TOTAL, Probe, layers_of
from multimix.methods import ERM, DenseMultiMix, MultiMix
from multimix.ops import dirichlet

M, K = 7, 3


def problem(scale=1.0):
    generator = torch.Generator().manual_seed(1)
    logits = scale * torch.randn(M, K, generator=generator, dtype=torch.float64)
    return logits, torch.randint(K, (M,), generator=generator)


def looped_quadratic(logits, labels, shrink):
    """By the matrix K and the covariance of the weights, entry by entry."""
    rows, y = logits.tolist(), [[float(c == int(label)) for c in range(K)] for label in labels]
    mean = [sum(row[c] for row in rows) / M for c in range(K)]
    histogram = [sum(row[c] for row in y) / M for c in range(K)]
    p = [math.exp(value) / sum(map(math.exp, mean)) for value in mean]
    curvature = [[p[a] * (a == c) - p[a] * p[c] for c in range(K)] for a in range(K)]
    out = torch.zeros(M, K, dtype=torch.float64)
    for i in range(M):
        for j in range(M):  # sum over j of Cov(w_i, w_j) (K l_j - y_j), all uncentred: the covariance centres
            cov = shrink * ((i == j) / M - 1 / M**2)
            for c in range(K):
                out[i, c] += cov * (sum(curvature[c][a] * rows[j][a] for a in range(K)) - y[j][c])
        for c in range(K):
            out[i, c] += (p[c] - histogram[c]) / M
    return out


def drawn(logits, labels, alpha, n):
    """The MultiMix gradient by its equation, over many tuples."""
    weights = dirichlet(n, M, alpha, generator=torch.Generator().manual_seed(2)).double()
    y = torch.nn.functional.one_hot(labels, K).double()
    return weights.T @ ((weights @ logits).softmax(-1) - weights @ y) / n


@pytest.mark.parametrize("alpha", [0.1, 1.0, 2.5])
def test_shrinkage_is_what_the_covariance_of_the_weights_shows(alpha):
    weights = dirichlet(200_000, M, alpha, generator=torch.Generator().manual_seed(0)).double()
    expected = shrinkage(alpha, M) * (torch.eye(M, dtype=torch.float64) / M - 1 / M**2)
    torch.testing.assert_close(torch.cov(weights.T), expected, rtol=0, atol=0.01 / M)


def test_shrinkage_of_a_range_is_its_mean():
    steps = 10_000
    each = [1 / (128 * (0.5 + 1.5 * (i + 0.5) / steps) + 1) for i in range(steps)]
    assert shrinkage((0.5, 2.0), 128) == pytest.approx(sum(each) / steps, rel=1e-7)
    assert shrinkage((0.5, 0.5), 128) == shrinkage(0.5, 128) == 1 / 65


def test_quadratic_gradient_is_the_loop_over_the_covariance():
    logits, labels = problem(3.0)
    torch.testing.assert_close(quadratic_gradient(logits, labels, 0.3), looped_quadratic(logits, labels, 0.3))


def test_quadratic_gradient_is_that_of_the_written_loss():
    """Of the loss in docs/maths.md, the curvature and the mean being held."""
    logits, labels = problem(2.0)
    y = torch.nn.functional.one_hot(labels, K).double()
    p = logits.mean(0).softmax(-1)
    curvature = p.diag() - torch.outer(p, p)
    free = logits.clone().requires_grad_()
    own, mean = free - free.mean(0), free.mean(0)
    rest = (0.5 * (own @ curvature * own).sum(1) - ((y - y.mean(0)) * own).sum(1)).mean()
    loss = mean.logsumexp(0) - y.mean(0) @ mean + 0.2 * rest
    torch.testing.assert_close(quadratic_gradient(logits, labels, 0.2), torch.autograd.grad(loss, free)[0])


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_both_predictions_are_the_expected_gradient_where_logits_are_small(alpha):
    logits, labels = problem(0.05)
    found = drawn(logits, labels, alpha, 400_000)
    shrink = shrinkage(alpha, M)
    law = law_gradient(plain_gradient(logits, labels), shrink)
    for predicted in (law, quadratic_gradient(logits, labels, shrink)):
        assert norm_ratio(found - predicted, found) < 0.01


def test_comparisons_are_what_they_say():
    a, b = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    assert norm_ratio(a, b) == pytest.approx(5 / 3)
    assert cosine(a, b) == pytest.approx(0.6)
    assert math.isnan(cosine(a, torch.zeros(2, 2)))
    # (2 - 1)(2 - 3) < 0: estimates on both sides of a prediction agree with it
    assert relative_error(torch.tensor(2.0), torch.tensor(1.0), torch.tensor(3.0)) == 0
    assert relative_error(torch.tensor(4.0), torch.tensor(1.0), torch.tensor(3.0)) == pytest.approx(1.0)
    assert expected_cosine(a, b, b) == pytest.approx(0.6)
    assert math.isnan(expected_cosine(a, b, -b))


def test_relative_variance_is_the_loop():
    draws = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.tensor([1.0, 2.0, 0.0, -1.0], dtype=torch.float64)
    total = 0.0
    for column in draws.T.tolist():
        mean = sum(column) / 5
        total += sum((value - mean) ** 2 for value in column) / 4
    assert relative_variance(draws, expected) == pytest.approx(total / 6)


@pytest.mark.bad_input
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="alpha must be above 0 and finite"):
        shrinkage(0.0, 4)
    with pytest.raises(ValueError, match="m must be at least 1, got 0"):
        shrinkage(1.0, 0)
    with pytest.raises(ValueError, match="draws must be at least two"):
        relative_variance(torch.ones(1, 3), torch.ones(3))


def looped(embeddings, labels):
    """Numpy's covariances, class by class, and the cosines of every pair of classes."""
    x, labels = embeddings.numpy(), labels.numpy()
    means = {name: x[labels == name].mean(0) for name in set(labels.tolist())}
    within = sum(np.square(row - means[label]).sum() for row, label in zip(x, labels, strict=True))
    between = sum(np.square(means[label] - x.mean(0)).sum() for label in labels)
    away = [mean - x.mean(0) for mean in means.values()]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(away, 2)]
    return within / between, np.mean(cosines)


def test_geometry_is_the_loop_over_classes():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(11, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 2, 2, 5, 0, 5, 5, 5, 2, 0, 5])
    assert class_geometry(embeddings, labels) == pytest.approx(looped(embeddings, labels))


def test_a_simplex_of_points_is_tight_and_evenly_spread():
    k = 5
    labels = torch.arange(k).repeat(3)
    assert class_geometry(torch.eye(k)[labels], labels) == pytest.approx((0, -1 / (k - 1)), abs=1e-7)


def test_confidence_and_accuracy_are_of_the_networks_own_logits():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    network = toy.identity(2).train()
    found = geometry(network, [(logits[:2], torch.tensor([0, 1])), (logits[2:], torch.tensor([1]))])
    sure = [1 / (1 + math.exp(-difference)) for difference in (2, 1, 3)]
    assert found.confidence == pytest.approx(sum(sure) / 3)
    assert found.accuracy == pytest.approx(2 / 3)
    assert network.training


@pytest.mark.bad_input
def test_what_cannot_be_measured_is_named():
    with pytest.raises(ValueError, match="labels must be of at least two classes, got 1"):
        class_geometry(torch.ones(3, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="batches must hold at least one batch, got none"):
        geometry(toy.identity(2), [])


def by_hand(network, loss):
    """Gradients of every parameter after a backward pass, in order, as one vector."""
    network.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


@pytest.fixture
def network():
    return toy.images().double().train()


@pytest.fixture
def batch():
    return toy.batch(7, 3, 6, 6, dtype=torch.float64)


def test_plain_gradient_pulled_back_is_that_of_plain_training(network, batch):
    probe = Probe(network, *batch)
    found = probe.pull_back(probe.plain())
    assert list(found) == ["blocks", "classifier", TOTAL]
    torch.testing.assert_close(found[TOTAL], by_hand(network, cross_entropy(network(batch[0]), batch[1])))
    torch.testing.assert_close(found[TOTAL], Probe(network, *batch).through(ERM(), Generator())[TOTAL])
    torch.testing.assert_close(torch.cat([found["blocks"], found["classifier"]]), found[TOTAL])


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("alpha", [0.3, (0.5, 2.0)])
def test_mixed_gradient_pulled_back_is_that_of_the_method(network, batch, alpha, balanced):
    method = MultiMix(50, alpha=alpha, balanced=balanced)
    probe = Probe(network, *batch)
    found = probe.pull_back(probe.mixed(method, Generator().manual_seed(3)))[TOTAL]
    loss = method(network, *batch, generator=Generator().manual_seed(3)).total
    torch.testing.assert_close(found, by_hand(network, loss))


def test_any_method_goes_through_by_itself(network, batch):
    method = DenseMultiMix(20, effective=2.0)
    found = Probe(network, *batch).through(method, Generator().manual_seed(3))[TOTAL]
    loss = method(network, *batch, generator=Generator().manual_seed(3)).total
    torch.testing.assert_close(found, by_hand(network, loss))


def test_frozen_layers_are_left_out_and_adapted_models_looked_into(network):
    network.blocks.requires_grad_(False)
    assert list(layers_of(network)) == ["classifier"]
    model = Sequential(Linear(4, 3), Linear(3, 2))
    adapted = mm.adapt(model, encoder="0", head="1")
    assert list(layers_of(adapted)) == ["0", "1"]


@pytest.mark.bad_input
def test_networks_that_cannot_be_measured_are_named():
    with pytest.raises(ValueError, match=r"network must have an affine head.*got head=None"):
        Probe(toy.bent(), *toy.batch(4, 8))
    with pytest.raises(ValueError, match="network must have parameters that take a gradient, got none"):
        layers_of(toy.vectors().requires_grad_(False))
