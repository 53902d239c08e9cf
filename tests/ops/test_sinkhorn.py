"""Sinkhorn's iteration against loops in float64, and against the assignment problem that it approaches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from fuzz.strategies import close, law, normals
from multimix.ops import _transport, sinkhorn


def loop(cost: torch.Tensor, epsilon: float, iterations: int, tolerance: float = 0.0) -> tuple[torch.Tensor, int]:
    """Every pair by loops over Python floats, and how many iterations it took."""
    costs = cost.double().tolist()
    r, s = cost.shape[1:]
    us, vs = [[0.0] * r for _ in costs], [[0.0] * s for _ in costs]
    done = 0
    for done in range(1, iterations + 1):  # noqa: B007
        changes = []
        for c, u, v in zip(costs, us, vs, strict=True):
            before = list(u)
            for i in range(r):
                u[i] = -epsilon * (math.log(r) + np.logaddexp.reduce([(v[j] - c[i][j]) / epsilon for j in range(s)]))
            for j in range(s):
                v[j] = -epsilon * (math.log(s) + np.logaddexp.reduce([(u[i] - c[i][j]) / epsilon for i in range(r)]))
            changes.append(sum(abs(a - b) for a, b in zip(u, before, strict=True)))
        if sum(changes) / len(changes) < tolerance:
            break
    plans = [
        [[math.exp((u[i] + v[j] - c[i][j]) / epsilon) for j in range(s)] for i in range(r)]
        for c, u, v in zip(costs, us, vs, strict=True)
    ]
    return torch.tensor(plans, dtype=torch.float64), done


def costs(pairs: int, r: int, s: int, scale: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    points = torch.randn(pairs, r + s, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first, second = points.split([r, s], 1)
    return (scale * torch.cdist(first, second).square()).to(dtype)


@law(
    "sinkhorn",
    examples=60,
    lead=st.lists(st.integers(1, 3), max_size=2),
    epsilon=st.sampled_from([1e-3, 0.1, 10.0]),
    iterations=st.sampled_from([1, 2, 11, 37]),
)
def test_plans_equal_the_loop(h, w, lead, epsilon, iterations, kind, data):
    cost = data.draw(normals(*lead, h, w, kind=kind)).abs()
    found = sinkhorn(cost, epsilon, iterations=iterations)
    expected, _ = loop(cost.reshape(-1, h, w), epsilon, iterations)
    close(found, expected.view(cost.shape), torch.float32, scale=1.0)
    close(found.sum(-2), torch.full((*lead, w), 1 / w), torch.float32)


@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_both_ways_to_iterate_are_the_same(scale, monkeypatch):
    """The rounding of float32 costs is that of their largest over epsilon."""
    cost = costs(5, 9, 9, scale, torch.float32)
    fast = sinkhorn(cost, 0.1, iterations=60)
    monkeypatch.setattr(_transport, "_in_scalings", lambda *_: None)
    slow = sinkhorn(cost, 0.1, iterations=60)
    torch.testing.assert_close(fast, slow, rtol=0, atol=float(cost.max()) / 0.1 * 1e-6)


def test_scalings_that_leave_the_range_give_way_to_logarithms(monkeypatch):
    """Two far clusters that differ in size: mass has to cross between them, against a plan that underflows."""
    near, far = 0.1 * torch.rand(40), 30 + 0.1 * torch.rand(40)
    first, second = torch.cat([near, far[:1]]), torch.cat([near[:1], far])
    cost = (first[:, None] - second[None, :]).square()[None]
    answers = []
    original = _transport._in_scalings

    def recording(*arguments):
        answers.append(original(*arguments))
        return answers[-1]

    monkeypatch.setattr(_transport, "_in_scalings", recording)
    plan = sinkhorn(cost.double(), 0.1, iterations=40)
    expected, _ = loop(cost, 0.1, 40)
    torch.testing.assert_close(plan, expected, rtol=1e-8, atol=1e-12)
    assert any(answer is None for answer in answers)


@pytest.mark.parametrize("scale", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("tolerance", [0.3, 0.1, 2e-2])
def test_it_stops_where_the_loop_stops(scale, tolerance):
    cost = costs(3, 6, 6, scale)
    expected, done = loop(cost, 0.1, 200, tolerance)
    assert done < 200
    torch.testing.assert_close(
        sinkhorn(cost, 0.1, iterations=200, tolerance=tolerance), expected, rtol=1e-8, atol=1e-12
    )


def test_with_little_entropy_it_is_the_assignment_of_least_cost():
    for cost in costs(4, 6, 6, 1.0):
        rows, columns = linear_sum_assignment(cost.numpy())
        expected = torch.zeros(6, 6, dtype=torch.float64)
        expected[rows, columns] = 1 / 6
        torch.testing.assert_close(sinkhorn(cost, 0.01, iterations=3000), expected, rtol=0, atol=1e-3)


def test_no_gradient_passes_and_autocast_changes_nothing():
    cost = costs(2, 5, 5, 1.0, torch.float32).requires_grad_()
    expected = sinkhorn(cost)
    assert not expected.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sinkhorn(cost), expected)
    assert sinkhorn(cost.bfloat16()).dtype == torch.float32
