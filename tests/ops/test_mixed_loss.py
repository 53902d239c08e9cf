"""The mixed losses and their gradients against the loops, dense or not, with or without a teacher."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch

import references
from multimix import ops
from ops.samples import DENSE_SIZES, SIZES, sample, true_gradient, truth

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
def test_value_and_gradient_equal_the_loop_in_float64(sizes, soft, taught, impl):
    s = sample(**sizes, soft=soft, taught=taught)
    assert float(s.loss(impl=impl)) == pytest.approx(truth(s), rel=1e-10, abs=1e-12)
    torch.testing.assert_close(s.gradient(-1.7, impl=impl), -1.7 * true_gradient(s), rtol=1e-9, atol=1e-13)
    assert torch.equal(s.loss(impl=impl, balanced=True), s.loss(impl=impl))
    balanced = s.gradient(0.6, impl=impl, balanced=True)
    torch.testing.assert_close(balanced, 0.6 * true_gradient(s, balanced=True), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("soft", "taught"), KINDS)
@pytest.mark.parametrize("sizes", CASES)
def test_float32_is_right_to_its_last_digits(sizes, soft, taught, impl, device):
    s = sample(**sizes, soft=soft, taught=taught, dtype=torch.float32)
    here = s.on(device)
    assert here.loss(impl=impl).device.type == device.type
    assert float(here.loss(impl=impl)) == pytest.approx(truth(s), rel=3e-6, abs=3e-6)
    ours, wanted = here.gradient(2.3, impl=impl).cpu().double(), 2.3 * true_gradient(s)
    assert (ours - wanted).norm() <= 3e-6 * wanted.norm() + 3e-7


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
        hard = replace(hard, targets=hard.targets.to(dtype))
        soft = replace(hard, targets=torch.eye(5, dtype=torch.float64)[hard.targets.long()])
        torch.testing.assert_close(hard.loss(impl=impl), soft.loss(impl=impl), rtol=1e-12, atol=0)
        torch.testing.assert_close(hard.gradient(impl=impl), soft.gradient(impl=impl), rtol=1e-10, atol=1e-15)


def test_worked_by_hand():
    """The docstring's example: pure tuples cost log(1 + e^-2), the even one log 2."""
    logits, weights = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    expected = (torch.tensor(-2.0).exp().log1p() + torch.tensor(2.0).log()) / 2
    for impl in IMPLS:
        loss = ops.mixed_cross_entropy(logits, torch.tensor([0, 1]), weights, impl=impl)
        torch.testing.assert_close(loss, expected)
        assert round(float(loss), 4) == 0.4100


@pytest.mark.parametrize("leaf", ["embeddings", "weight", "bias"])
@pytest.mark.parametrize("taught", [False, True])
def test_each_input_alone_gets_its_gradient(leaf, taught, generator):
    """A head that mixes first and classifies second is the truth; only one leaf at a time asks for a gradient."""
    s, made = sample(7, 13, 5, taught=taught), {"embeddings": (7, 6), "weight": (5, 6), "bias": (5,)}
    values = {name: torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in made.items()}
    values[leaf].requires_grad_()

    def head(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(z, values["weight"], values["bias"])

    theirs = (lambda z: z, s.teacher, s.gamma) if taught else None
    one_hot = torch.eye(5, dtype=torch.float64)[s.targets]
    loss = references.network_loss(head, values["embeddings"], one_hot, s.weights, theirs)
    wanted = torch.autograd.grad(-2.5 * loss, values[leaf])[0]
    for impl in IMPLS:
        ours = torch.autograd.grad(-2.5 * s.loss(head(values["embeddings"]), impl=impl), values[leaf])[0]
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-13)


def test_gradcheck_of_weights_targets_and_attention():
    """Asked for, they get their gradients; shifts of a row are kept on the simplex by a softmax."""
    s = sample(4, 5, 3, r=2, soft=True, taught=True)

    def loss(*free: torch.Tensor) -> torch.Tensor:
        targets, weights, attention = (t.softmax(-1) for t in free)
        return replace(s, targets=targets, weights=weights, attention=attention).loss()

    free = [t.clamp_min(1e-3).log().requires_grad_() for t in (s.targets, s.weights, s.attention)]
    assert torch.autograd.gradcheck(loss, free)


def test_the_teacher_gets_no_gradient():
    s = sample(7, 13, 5, taught=True)
    for impl in IMPLS:
        teacher, logits = s.teacher.clone().requires_grad_(), s.logits.clone().requires_grad_()
        replace(s, logits=logits, teacher=teacher).loss(impl=impl).backward()
        assert teacher.grad is None


def test_inputs_are_left_as_they_were():
    s = sample(7, 13, 5, r=3, taught=True, soft=True)
    before = copy.deepcopy(s)
    for impl in IMPLS:
        s.gradient(impl=impl, balanced=True)
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


@pytest.mark.parametrize("balanced", [False, True])
def test_equal_weights_and_single_examples_are_balanced_without_infinity(balanced):
    for b in (1, 2, 3, 7, 31):
        s = replace(sample(b, 5, 3, dtype=torch.float32), weights=torch.full((5, b), 1 / b))
        gradient = s.gradient(balanced=balanced)
        torch.testing.assert_close(gradient.double(), true_gradient(s), rtol=1e-4, atol=1e-6)


def test_gain_is_about_m_alpha_plus_one(generator):
    """To be exact, m / (m - 1) times that: the variance of a weight is (m - 1) / m^2 / (m alpha + 1)."""
    for m, alpha in ((128, 0.5), (128, 1 / 128), (16, 2.0), (3, 1.0)):
        gain = float(ops.balance_gain(ops.dirichlet(8000, m, alpha, generator=generator)))
        assert gain == pytest.approx((m * alpha + 1) * m / (m - 1), rel=0.03)
    per_position = ops.dirichlet(3 * 50, 4, 1.0, generator=generator).view(3, 50, 4)
    gains = torch.stack([ops.balance_gain(weights) for weights in per_position])
    torch.testing.assert_close(ops.balance_gain(per_position), gains)


def test_balance_gradient_keeps_its_accuracy_in_half_precision():
    """A gradient that is nearly the same for the whole mini-batch, as under the published concentration."""
    values = torch.zeros(16, 4, dtype=torch.bfloat16, requires_grad=True)
    upstream = (1 + 0.05 * torch.randn(16, 4, generator=torch.Generator().manual_seed(0))).to(torch.bfloat16)
    ops.balance_gradient(values, torch.tensor(65.5)).backward(upstream)
    exact = upstream.double()
    wanted = 65.5 * (exact - exact.mean(0)) + exact.mean(0)
    assert (values.grad.double() - wanted).norm() <= 5e-3 * wanted.norm()
