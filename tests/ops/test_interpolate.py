"""Convex combinations of anything in a mini-batch."""

import pytest
import torch

import references
from multimix import ops


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 3), (1, 13), (31, 7)])
def test_equals_the_loop(n, m, shape, device, generator):
    weights = ops.dirichlet(n, m, 0.4, generator=generator)
    values = torch.randn(m, *shape, generator=generator)
    mixed = ops.interpolate(weights.to(device), values.to(device))
    assert mixed.shape == (n, *shape)
    torch.testing.assert_close(mixed.cpu().double(), references.interpolate(weights, values), rtol=1e-5, atol=1e-6)


def test_gradients_reach_weights_and_values():
    weights = torch.rand(3, 4, dtype=torch.float64).softmax(1).requires_grad_()
    values = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ops.interpolate, (weights, values))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.full((2, 3), 1 / 3), "weights has 3 columns for a mini-batch of 4"),
        (torch.full((4,), 0.25), r"weights must have shape \(n, m\), got \(4,\)"),
        (torch.tensor([[1.5, -0.5, 0, 0]]), "weights must not be negative, got -0.5"),
        (torch.ones(2, 4), "weights must have rows that sum to 1, got a row that is off by 3"),
        (torch.full((2, 4), float("nan")), "weights must"),
        (torch.zeros(0, 4), "weights must have at least one row"),
    ],
)
def test_what_are_no_weights_is_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        ops.interpolate(weights, torch.randn(4, 2))


@pytest.mark.bad_input
def test_integer_weights_are_refused():
    with pytest.raises(TypeError, match="weights must be floating-point"):
        ops.interpolate(torch.eye(4, dtype=torch.long), torch.randn(4, 2))


@pytest.mark.bad_input
def test_integer_values_are_refused():
    with pytest.raises(TypeError, match=r"values must be floating-point, got torch\.uint8"):
        ops.interpolate(torch.full((2, 4), 0.25), torch.full((4, 3), 200, dtype=torch.uint8))
