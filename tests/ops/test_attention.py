"""Attention over positions, and weights scaled by it: equations (9) to (11)."""

import itertools

import pytest
import torch

import references
from multimix import ops

CASES = [(query, activation) for query in ("gap", "cam", "uniform") for activation in ("relu", "softmax")]
SHAPES = [(1, 1, 1), (1, 7, 3), (5, 1, 4), (7, 13, 5)]


def make(b: int, r: int, d: int, generator: torch.Generator, dtype: torch.dtype = torch.float32):
    features = torch.randn(b, r, d, generator=generator, dtype=torch.float64).to(dtype)
    return features, torch.randn(b, d, generator=generator, dtype=torch.float64).to(dtype)


def attend(features, query, activation, class_weights):
    given = {"class_weights": class_weights} if query == "cam" else {}
    return ops.attention(features, query=query, activation=activation, **given)


@pytest.mark.parametrize(("query", "activation"), CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_loop(query, activation, shape, device, generator):
    features, class_weights = make(*shape, generator)
    truth = references.attention(features, query, activation, class_weights)
    ours = attend(features.to(device), query, activation, class_weights.to(device))
    torch.testing.assert_close(ours.cpu().double(), truth, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.sum(1).cpu(), torch.ones(shape[0]))


@pytest.mark.parametrize(("query", "activation"), CASES[:4])
def test_gradients_equal_those_of_the_loop(query, activation, generator):
    features, class_weights = make(4, 7, 3, generator, torch.float64)
    upstream = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    found = []
    for function in (attend, references.attention):
        z, u = features.clone().requires_grad_(), class_weights.clone().requires_grad_()
        (function(z, query, activation, u) * upstream).sum().backward()
        found.append((z.grad, torch.zeros_like(u) if u.grad is None else u.grad))
    for ours, truth in zip(*found, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-12)


def test_an_image_rejected_everywhere_is_attended_uniformly():
    features = torch.tensor([[[1.0], [1.0]], [[1.0], [3.0]]], requires_grad=True)
    attention = ops.attention(features, query="cam", class_weights=torch.tensor([[-1.0], [1.0]]))
    torch.testing.assert_close(attention, torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    (attention * torch.randn(2, 2)).sum().backward()
    assert features.grad.isfinite().all()
    assert features.grad[0].eq(0).all()


@pytest.mark.parametrize("scale", [0.0, 1e-22, 1e-19, 1e-6, 1e4, 1e15])
@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_stays_finite_at_every_scale(scale, activation, generator):
    features = (torch.randn(5, 9, 4, generator=generator) * scale).requires_grad_()
    attention = ops.attention(features, activation=activation)
    torch.testing.assert_close(attention.sum(1), torch.ones(5))
    (attention * torch.randn(5, 9, generator=generator)).sum().backward()
    assert features.grad.isfinite().all()


def test_half_precision_and_autocast_are_computed_in_float32(generator):
    for query, dtype in itertools.product(("gap", "cam"), (torch.float16, torch.bfloat16, torch.float32)):
        features, class_weights = make(5, 7, 16, generator, dtype)
        ours = attend(features, query, "relu", class_weights)
        assert ours.dtype == torch.float32
        truth = references.attention(features, query, "relu", class_weights)
        torch.testing.assert_close(ours.double(), truth, rtol=1e-4, atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(attend(features, query, "relu", class_weights), ours)


def test_only_ratios_between_images_matter(generator):
    weights = ops.dirichlet(9, 5, 1.0, generator=generator)
    attention = torch.rand(5, 3, generator=generator)
    once = ops.reweight(weights, attention)
    for scale in (1e-37, 1e-20, 1e20):
        torch.testing.assert_close(ops.reweight(weights, attention * scale), once, rtol=1e-4, atol=1e-6)


def test_gradients_of_reweighting_are_never_nan(generator):
    weights = ops.dirichlet(200, 9, 1e-3, generator=generator)
    attention = torch.rand(9, 6, generator=generator) * (torch.rand(9, 6, generator=generator) > 0.6)
    attention[:, 2], attention[4] = 0, 0
    (ops.reweight(weights, attention.requires_grad_()) * torch.randn(6, 200, 9, generator=generator)).sum().backward()
    assert attention.grad.isfinite().all()
