"""How far the losses are from float64: never further than the plain line at the same dtype, plus a little."""

from dataclasses import replace

import pytest
import torch

from ops.samples import Sample, sample, true_gradient, truth

IMPLS = ["plain", "commuted", "fused"]
HALVES = [torch.bfloat16, torch.float16]


def plainly(s: Sample, dtype: torch.dtype) -> tuple[float, torch.Tensor]:
    """The equations in so many words at a dtype: its loss and gradient."""
    logits = s.logits.detach().to(dtype, copy=True).requires_grad_()
    weights, k = s.weights.to(dtype), s.logits.shape[-1]
    probabilities = (s.targets if s.targets.is_floating_point() else torch.eye(k)[s.targets]).to(dtype)
    mixed, wanted = weights @ logits, weights @ probabilities
    loss = -(wanted * mixed.log_softmax(-1)).sum(-1).mean()
    if s.teacher is not None:
        taught = (weights @ s.teacher.to(dtype)).softmax(-1)
        loss = s.gamma * loss - (1 - s.gamma) * (taught * mixed.log_softmax(-1)).sum(-1).mean()
    loss.backward()
    return float(loss.detach()), logits.grad


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_no_further_from_the_truth_than_the_plain_line(dtype, scale, soft, taught, impl, device):
    s = sample(31, 13, 13, soft=soft, taught=taught, scale=scale, dtype=torch.float32).to(dtype)
    exact, gradient = truth(s), true_gradient(s)
    plain, plain_gradient = plainly(s, dtype)
    here = s.on(device)
    assert abs(float(here.loss(impl=impl)) - exact) <= abs(plain - exact) + 1e-6 * scale
    ours = here.gradient(impl=impl).cpu()
    assert ours.dtype == dtype
    worst = (plain_gradient.double() - gradient).abs().max()
    assert (ours.double() - gradient).abs().max() <= worst + 1e-6 * scale


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_computed_in_float32(dtype):
    for r in (None, 3):
        s = sample(13, 31, 7, r=r, taught=True, dtype=torch.float32).to(dtype)
        assert s.loss().dtype == torch.float32
        assert torch.equal(s.loss(), s.to(torch.float32).loss())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("r", [None, 3])
@pytest.mark.parametrize("soft", [False, True])
def test_autocast_changes_nothing(soft, r, impl):
    s = sample(13, 31, 7, r=r, soft=soft, taught=True, dtype=torch.float32)
    results = []
    for enabled in (False, True):
        logits = s.logits.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = replace(s, logits=logits).loss(impl=impl, balanced=True)
        loss.backward()
        results.append((loss.detach(), logits.grad))
    (loss, gradient), (cast_loss, cast_gradient) = results
    assert torch.equal(cast_loss, loss)
    assert torch.equal(cast_gradient, gradient)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("r", [None, 3])
@pytest.mark.parametrize("alpha", [0.02, 1.0])
@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_peaked_logits_stay_finite_and_right(scale, alpha, r, impl):
    s = sample(13, 31, 7, r=r, taught=True, scale=scale, alpha=alpha, dtype=torch.float32)
    largest = float(s.logits.abs().max())
    loss, gradient = s.loss(impl=impl), s.gradient(impl=impl)
    assert float(loss) == pytest.approx(truth(s), rel=1e-5, abs=2e-6 * largest)
    assert gradient.isfinite().all()
    assert (gradient.double() - true_gradient(s)).abs().max() <= 1e-5 + 1e-6 * scale * float(s.weights.max())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("r", [None, 3])
@pytest.mark.parametrize("taught", [False, True])
def test_a_large_offset_of_all_logits_costs_no_digits(taught, r, impl):
    """Softmax ignores it; the difference of two large numbers would not."""
    s = sample(13, 31, 7, r=r, taught=taught)
    shifted = replace(s, logits=s.logits + 4096).to(torch.float32)
    assert float(shifted.loss(impl=impl)) == pytest.approx(truth(shifted), rel=3e-6)
    difference = shifted.gradient(impl=impl).double() - true_gradient(shifted)
    assert difference.norm() <= 1e-5 * true_gradient(shifted).norm()
