"""The arithmetic of the law against loops in float64 and against draws."""

import math

import pytest
import torch

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
from multimix.ops import dirichlet

M, K = 7, 3


def problem(scale=1.0):
    generator = torch.Generator().manual_seed(1)
    logits = scale * torch.randn(M, K, generator=generator, dtype=torch.float64)
    return logits, torch.randint(K, (M,), generator=generator)


def softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def looped_plain(logits, labels):
    rows = [
        [(p - (c == int(label))) / M for c, p in enumerate(softmax(row))]
        for row, label in zip(logits.tolist(), labels, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def looped_quadratic(logits, labels, shrink):
    """By the matrix K and the covariance of the weights, entry by entry."""
    rows, y = logits.tolist(), [[float(c == int(label)) for c in range(K)] for label in labels]
    mean = [sum(row[c] for row in rows) / M for c in range(K)]
    histogram = [sum(row[c] for row in y) / M for c in range(K)]
    p = softmax(mean)
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


def test_plain_gradient_is_the_softmax_error():
    logits, labels = problem()
    torch.testing.assert_close(plain_gradient(logits, labels), looped_plain(logits, labels))


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
    for predicted in (
        law_gradient(plain_gradient(logits, labels), shrink),
        quadratic_gradient(logits, labels, shrink),
    ):
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
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: shrinkage(0.0, 4), "alpha must be above 0 and finite, got 0.0"),
        (lambda: shrinkage(1.0, 0), "m must be at least 1, got 0"),
        (
            lambda: relative_variance(torch.ones(1, 3), torch.ones(3)),
            "draws must be at least two",
        ),
    ],
)
def test_bad_input_is_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()
