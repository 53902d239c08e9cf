"""The mixed losses and their gradients against the loops, dense or not, with or without a teacher, at any precision."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from multimix import ops
from ops.samples import DENSE_SIZES, SIZES, Sample, sample, true_gradient, truth

IMPLS = ["plain", "commuted", "fused", "auto"]
KINDS = list(itertools.product([False, True], repeat=2))
CASES = [
    *(pytest.param({"b": b, "n": n, "k": k}, id=f"b{b}-n{n}-k{k}") for b, n, k in SIZES),
    *(
        pytest.param({"b": b, "n": n, "k": k, "r": r, "shared": shared}, id=f"b{b}-n{n}-r{r}-k{k}-shared{shared:d}")
        for b, n, r, k in DENSE_SIZES
        for shared in (False, True)
    ),
]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("soft", "taught"), KINDS)
@pytest.mark.parametrize("sizes", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 3e-6)])
def test_value_and_gradient_equal_the_loop(dtype, tolerance, sizes, soft, taught, impl, device):
    s = sample(**sizes, soft=soft, taught=taught, dtype=dtype)
    here = s.on(device)
    assert here.loss(impl=impl).device.type == device.type
    for balanced in (False, True):
        ours = float(here.loss(impl=impl, balanced=balanced))
        assert ours == pytest.approx(truth(s), rel=tolerance, abs=tolerance)
    for balanced in (False, True) if dtype == torch.float64 else (False,):
        ours = here.gradient(-1.7, impl=impl, balanced=balanced).cpu().double()
        wanted = -1.7 * true_gradient(s, balanced=balanced)
        assert (ours - wanted).norm() <= tolerance * (wanted.norm() + 0.1)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("r", [None, 3])
def test_gamma_blends_labels_and_teacher(gamma, r):
    s = replace(sample(7, 13, 5, r=r, taught=True), gamma=gamma)
    options = ops.LossOptions(attention=s.attention, teacher_logits=s.teacher, gamma=gamma)
    parts = ops.mixed_losses(s.logits, s.targets, s.weights, options)
    labels, teacher = truth(replace(s, gamma=1.0)), truth(replace(s, gamma=0.0))
    assert float(parts.terms["labels"]) == pytest.approx(labels, rel=1e-10)
    assert float(parts.terms["teacher"]) == pytest.approx(teacher, rel=1e-10)
    assert float(parts.total) == pytest.approx(gamma * labels + (1 - gamma) * teacher, rel=1e-10)
    alone = ops.mixed_losses(s.logits, s.targets, s.weights, ops.LossOptions(attention=s.attention, gamma=gamma))
    assert set(alone.terms) == {"labels"}
    assert torch.equal(alone.total, alone.terms["labels"])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("r", [None, 3])
def test_hard_labels_are_one_hot_probabilities(r, impl):
    for dtype in (torch.int64, torch.int32, torch.uint8):
        hard = sample(13, 7, 5, r=r, taught=True)
        soft = replace(hard, targets=torch.eye(5, dtype=torch.float64)[hard.targets])
        for targets in (hard.targets.to(dtype), soft.targets.to(dtype)):
            same = replace(hard, targets=targets)
            torch.testing.assert_close(same.loss(impl=impl), soft.loss(impl=impl), rtol=1e-12, atol=0)
            torch.testing.assert_close(same.gradient(impl=impl), soft.gradient(impl=impl), rtol=1e-10, atol=1e-15)


def test_gradcheck_of_weights_targets_and_attention():
    """Asked for, they get their gradients; shifts of a row are kept on the simplex by a softmax."""
    s = sample(4, 5, 3, r=2, soft=True, taught=True)

    def loss(*free: torch.Tensor) -> torch.Tensor:
        targets, weights, attention = (t.softmax(-1) for t in free)
        return replace(s, targets=targets, weights=weights, attention=attention).loss()

    free = [t.clamp_min(1e-3).log().requires_grad_() for t in (s.targets, s.weights, s.attention)]
    assert torch.autograd.gradcheck(loss, free)


def test_inputs_are_left_as_they_were_and_the_teacher_gets_no_gradient():
    s = sample(7, 13, 5, r=3, taught=True, soft=True)
    before = copy.deepcopy(s)
    s.teacher.requires_grad_()
    for impl in IMPLS:
        s.gradient(impl=impl, balanced=True)
        assert s.teacher.grad is None
        for name in ("logits", "targets", "weights", "attention", "teacher"):
            assert torch.equal(getattr(s, name), getattr(before, name))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("where", ["position", "image", "everywhere"])
def test_without_attention_nothing_is_nan_and_weights_stay(where, shared, impl):
    s = sample(5, 7, 3, r=4, shared=shared, taught=True)
    attention = s.attention.clone()
    attention[{"position": (slice(None), 2), "image": 3, "everywhere": slice(None)}[where]] = 0
    s = replace(s, attention=attention)
    assert float(s.loss(impl=impl)) == pytest.approx(truth(s), rel=1e-10)
    for balanced in (False, True):
        ours = s.gradient(1.3, impl=impl, balanced=balanced)
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, 1.3 * true_gradient(s, balanced=balanced), rtol=1e-8, atol=1e-12)
    attention = attention.requires_grad_()
    replace(s, attention=attention).loss(impl="plain").backward()
    assert attention.grad.isfinite().all()


def test_balance_gradient_keeps_its_accuracy_in_half_precision():
    """A gradient that is nearly the same for the whole mini-batch, as under the published concentration."""
    values = torch.zeros(16, 4, dtype=torch.bfloat16, requires_grad=True)
    upstream = (1 + 0.05 * torch.randn(16, 4, generator=torch.Generator().manual_seed(0))).to(torch.bfloat16)
    ops.balance_gradient(values, torch.tensor(65.5)).backward(upstream)
    exact = upstream.double()
    wanted = 65.5 * (exact - exact.mean(0)) + exact.mean(0)
    assert (values.grad.double() - wanted).norm() <= 5e-3 * wanted.norm()


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
    assert (ours.dtype, here.loss(impl=impl).dtype) == (dtype, torch.float32)
    worst = (plain_gradient.double() - gradient).abs().max()
    assert (ours.double() - gradient).abs().max() <= worst + 1e-6 * scale


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
        results.append(torch.cat([loss.detach().view(1), logits.grad.flatten()]))
    assert torch.equal(*results)


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


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_large_inputs_are_finite_though_their_sum_is_not(dtype):
    inputs = torch.full((4, 3), torch.finfo(dtype).max, dtype=dtype)
    assert not inputs.sum().isfinite()
    ops.check_batch(inputs, torch.zeros(4, dtype=torch.long))
