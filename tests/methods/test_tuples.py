"""How interpolation vectors are drawn, and what MultiMix and its dense form offer beyond the paper."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

import toy
from multimix import ops
from multimix.methods import DenseMultiMix, MultiMix
from multimix.protocols import Teacher
from toy import seeded

LIKE = torch.zeros(1)


def draw(b: int, *, seed: int = 0, sets: int | None = None, **settings) -> torch.Tensor:
    return MultiMix(**settings).weights(b, like=LIKE, generator=seeded(seed), sets=sets).all()


def effective(weights: torch.Tensor) -> float:
    """One over the mean sum of squares."""
    return 1 / float(weights.double().square().sum(1).mean())


@pytest.mark.parametrize("b", [3, 16, 128])
@pytest.mark.parametrize("wanted", [1.5, None, 2.9])
def test_effective_means_the_same_at_every_size(wanted, b):
    """Two by default; of a tuple, not of the mini-batch."""
    assert effective(draw(b, tuples=6000, effective=wanted)) == pytest.approx(wanted or 2.0, rel=0.03)
    if b > 8:
        assert effective(draw(b, tuples=6000, tuple_length=8, effective=3.0)) == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize(("b", "alpha"), [(128, 0.5), (16, 2.0), (2, 0.5)])
def test_alpha_is_the_concentration_itself(b, alpha):
    weights = draw(b, tuples=4000, alpha=alpha)
    assert effective(weights) == pytest.approx((1 + b * alpha) / (1 + alpha), rel=0.03)
    distribution = stats.beta(alpha, (b - 1) * alpha)
    assert stats.kstest(weights[:, b // 2].double().numpy(), distribution.cdf).pvalue > 1e-3


def test_a_range_is_drawn_anew_for_every_tuple():
    """From tuples of one image to tuples of almost all of them."""
    squares = draw(64, tuples=4000, effective=(1.1, 60.0)).square().sum(1)
    assert float((squares > 0.5).float().mean()) > 0.005
    assert float((squares < 0.025).float().mean()) > 0.05
    uniform = torch.linspace(1.1, 60.0, 10_001, dtype=torch.float64).reciprocal().mean()
    standard_error = float(squares.std()) / math.sqrt(4000)
    assert abs(float(squares.mean()) - float(uniform)) < 4 * standard_error


@pytest.mark.parametrize(("b", "wanted"), [(1, 2.0), (2, 2.0), (2, 5.0), (4, 4.0)])
def test_mini_batches_too_small_for_it_are_mixed_flatly(b, wanted):
    weights = draw(b, tuples=4000, effective=wanted)
    assert effective(weights) == pytest.approx((1 + b) / 2, rel=0.03)
    if b == 2:
        assert stats.kstest(weights[:, 0].numpy(), stats.uniform.cdf).pvalue > 1e-3


def test_only_the_tuples_that_ask_too_much_are_mixed_flatly():
    """Of a range from 2 to 6 over 4 images, half the tuples lie above; all of them are finite."""
    weights = draw(4, tuples=6000, effective=(2.0, 6.0))
    below = torch.linspace(2.0, 4.0, 10_001, dtype=torch.float64).reciprocal().mean()
    flat = 2 / 5
    assert float(weights.square().sum(1).mean()) == pytest.approx((float(below) + flat) / 2, rel=0.03)


@pytest.mark.parametrize(("length", "b", "m"), [(3, 11, 3), (1, 11, 1), (11, 11, 11), (50, 11, 11), (3, 2, 2)])
def test_tuple_length_limits_who_enters(length, b, m):
    weights = draw(b, tuples=3000, tuple_length=length, alpha=2.0)
    assert ((weights > 0).sum(1) == m).all()
    assert effective(weights) == pytest.approx((1 + 2 * m) / 3, rel=0.05)
    counts = (weights > 0).sum(0)
    if m < b:
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_dense_draws_a_set_for_every_position_unless_shared():
    drawn = []

    class Counting(DenseMultiMix):
        def draw_weights(self, *args, **kwargs):
            drawn.append(super().draw_weights(*args, **kwargs))
            return drawn[-1]

    maps, targets = torch.randn(5, 4, 3), torch.tensor([0, 1, 2, 0, 1])
    network = toy.Toy(width=3, classes=3)
    for shared in (False, True):
        Counting(7, shared=shared)(network, maps, targets, generator=seeded())
    assert [len(weights) for weights in drawn] == [28, 7]
    sets = drawn[0].view(4, 7, 5)
    assert not any(torch.equal(sets[0], other) for other in sets[1:])


BOTH = pytest.mark.parametrize("method", [MultiMix, DenseMultiMix])


def gradient_of(method, logits: torch.Tensor, targets: torch.Tensor, *, affine: bool = True) -> torch.Tensor:
    network = toy.identity(logits.shape[-1])
    network.affine = affine
    leaf = logits.clone().requires_grad_()
    method(network, leaf, targets, generator=seeded(2)).total.backward()
    return leaf.grad


def parted(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = gradient.mean(0, keepdim=True)
    return gradient - mean, mean


def example(b: int = 7, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(b, k, generator=seeded(0)), torch.randint(k, (b,), generator=seeded(1))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("alpha", [0.5, 2.0, 1 / 128, 4 / 128])
def test_the_centred_gradient_shrinks_by_m_alpha_plus_one_unless_balanced(alpha, balanced):
    """As findings.md, section 1, measures it."""
    logits, targets = example(128, 10)
    ours = gradient_of(MultiMix(20_000, alpha=alpha, balanced=balanced), logits, targets)
    plain = (logits.softmax(-1) - toy.one_hot(targets, 10)) / 128
    ours, plain = parted(ours)[0].flatten(), parted(plain)[0].flatten()
    assert float(ours.norm() / plain.norm()) == pytest.approx(1 if balanced else 1 / (128 * alpha + 1), rel=0.05)
    assert functional.cosine_similarity(ours, plain, 0) > 0.96


def test_without_a_head_the_embeddings_are_balanced():
    """The gradient on the embeddings is the same as with one, since a linear map commutes with the balance."""
    maps, targets = toy.batch(9, 3, 6, 6)
    gradients = []
    for affine in (True, False):
        network, leaf = toy.images(affine=affine).eval(), maps.clone().requires_grad_()
        DenseMultiMix(200, alpha=1.0, balanced=True)(network, leaf, targets, generator=seeded()).total.backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "any head"])
@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_a_power_of_the_gain_multiplies_the_centred_gradient_alone(power, affine):
    logits, targets = example()
    plain = MultiMix(41, alpha=1.0, balanced=False)
    gain = ops.balance_gain(plain.draw_weights(7, like=logits, generator=seeded(2)))
    centred, mean = parted(gradient_of(plain, logits, targets, affine=affine))
    method = MultiMix(41, alpha=1.0, balanced=True, balance_power=power)
    ours, kept = parted(gradient_of(method, logits, targets, affine=affine))
    torch.testing.assert_close(ours, gain**power * centred, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(kept, mean, rtol=1e-4, atol=1e-6)
    idle = gradient_of(replace(method, balanced=False), logits, targets, affine=affine)
    torch.testing.assert_close(idle, centred + mean, rtol=1e-6, atol=1e-8)


def test_log_uniform_ranges_favour_no_factor():
    generator, method = seeded(), MultiMix(4000, effective=(2.0, 32.0), spread="log-uniform")
    alpha = method._concentrations(4000, 128, generator, torch.device("cpu"))
    effective = (1 + 128 * alpha) / (1 + alpha)
    position = (effective.log() - math.log(2)) / math.log(16)
    assert stats.kstest(position.numpy(), "uniform").pvalue > 1e-3


def test_a_number_is_no_range_for_either_spread():
    found = [
        MultiMix(5, effective=3.0, spread=spread).draw_weights(9, like=torch.zeros(1), generator=seeded())
        for spread in ("uniform", "log-uniform")
    ]
    assert torch.equal(*found)


@BOTH
@pytest.mark.parametrize("gamma", [None, 0.3])
def test_the_clean_loss_stands_beside_the_tuples(method, gamma):
    network, teacher_network = toy.images(), toy.images(seed=1)
    inputs, targets = torch.randn(5, 3, 6, 6, generator=seeded(3)), torch.tensor([0, 1, 2, 1, 0])
    view = torch.randn(5, 3, 6, 6, generator=seeded(4))
    teacher = None if gamma is None else Teacher(teacher_network, view, gamma)

    def losses(clean: float):
        return method(31, clean=clean)(network, inputs, targets, generator=seeded(), teacher=teacher)

    network.seen.clear()
    losses(0.5)
    assert len(network.seen) == 1  # no second pass
    logits = network(inputs)
    expected = functional.cross_entropy(logits, targets)
    if gamma is not None:
        taught = functional.cross_entropy(logits, teacher_network(view).softmax(-1))
        expected = gamma * expected + (1 - gamma) * taught
    torch.testing.assert_close(losses(1.0).total, expected)
    torch.testing.assert_close(losses(0.3).total, 0.7 * losses(0.0).total + 0.3 * expected)
    assert "clean_labels" in losses(0.3).terms
    assert not any(name.startswith("clean") for name in losses(0.0).terms)


@BOTH
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "any head"])
def test_confidence_scales_the_logits_of_tuples(method, affine):
    k, confidence = 4, 0.8
    logits, targets = example(6, k)
    logits = logits.unsqueeze(1).repeat(1, 3, 1) + torch.randn(6, 3, k, generator=seeded(5)) * (method is DenseMultiMix)
    logits = logits[:, 0] if method is MultiMix else logits
    scale = k / math.log((k - 1) * confidence / (1 - confidence))
    settings = {"query": "uniform"} if method is DenseMultiMix else {}  # attention would be of the scaled features
    plain = method(31, balanced=False, **settings)
    ours = gradient_of(replace(plain, confidence=confidence), logits, targets, affine=affine)
    theirs = gradient_of(plain, scale * logits, targets, affine=affine)
    torch.testing.assert_close(ours, scale * theirs, rtol=1e-4, atol=1e-6)
    balanced = gradient_of(method(31, confidence=confidence, balanced=True, **settings), logits, targets, affine=affine)
    theirs = gradient_of(method(31, balanced=True, **settings), scale * logits, targets, affine=affine)
    torch.testing.assert_close(balanced, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("k", "confidence"), [(3, 0.9), (10, 0.9), (10, None)])
def test_logits_of_many_images_a_tuple_end_where_the_limit_says(k, confidence):
    """Free logits, trained alone: squared-error regression has its optimum where confidence was asked for."""
    targets = torch.arange(5 * k) % k
    logits = nn.Parameter(torch.zeros(5 * k, k))
    method = MultiMix(2000, alpha=20.0, balanced=True, confidence=confidence)
    optimiser, generator = torch.optim.SGD([logits], lr=5.0 * k), seeded()
    for _ in range(150):
        optimiser.zero_grad()
        method(toy.identity(k), logits, targets, generator=generator).total.backward()
        optimiser.step()
    reached = logits.detach().softmax(-1).gather(1, targets[:, None]).mean()
    wanted = confidence or math.exp(k) / (math.exp(k) + k - 1)
    assert float(reached) == pytest.approx(wanted, abs=0.02)


@pytest.mark.bad_input
def test_confidence_below_chance_is_refused():
    with pytest.raises(ValueError, match=r"confidence must be above chance, 1 / 3, got 0.2"):
        MultiMix(5, confidence=0.2)(toy.identity(3), *example())
