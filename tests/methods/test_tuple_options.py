"""What MultiMix and its dense form offer beyond the paper: powers of the gain, clean loss, confidence, log ranges."""

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

import toy
from multimix.methods import DenseMultiMix, MultiMix
from multimix.ops import balance_gain
from multimix.protocols import Teacher
from toy import seeded

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


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "any head"])
@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_a_power_of_the_gain_multiplies_the_centred_gradient_alone(power, affine):
    logits, targets = example()
    plain = MultiMix(41, alpha=1.0)
    gain = balance_gain(plain.draw_weights(7, like=logits, generator=seeded(2)))
    centred, mean = parted(gradient_of(plain, logits, targets, affine=affine))
    method = MultiMix(41, alpha=1.0, balanced=True, balance_power=power)
    ours, kept = parted(gradient_of(method, logits, targets, affine=affine))
    torch.testing.assert_close(ours, gain**power * centred, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(kept, mean, rtol=1e-4, atol=1e-6)


def test_without_balance_its_power_means_nothing():
    logits, targets = example()
    found = [gradient_of(MultiMix(41, balance_power=power), logits, targets) for power in (0.2, 1.0)]
    assert torch.equal(*found)


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
def test_the_clean_loss_takes_no_second_pass(method):
    network = toy.images()
    network.seen.clear()
    method(31, clean=0.5)(network, torch.randn(5, 3, 6, 6), torch.tensor([0, 1, 2, 1, 0]))
    assert len(network.seen) == 1


@BOTH
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "any head"])
def test_confidence_scales_the_logits_of_tuples(method, affine):
    k, confidence = 4, 0.8
    logits, targets = example(6, k)
    logits = logits.unsqueeze(1).repeat(1, 3, 1) + torch.randn(6, 3, k, generator=seeded(5)) * (method is DenseMultiMix)
    logits = logits[:, 0] if method is MultiMix else logits
    scale = k / math.log((k - 1) * confidence / (1 - confidence))
    settings = {"query": "uniform"} if method is DenseMultiMix else {}  # attention would be of the scaled features
    ours = gradient_of(method(31, confidence=confidence, **settings), logits, targets, affine=affine)
    theirs = gradient_of(method(31, **settings), scale * logits, targets, affine=affine)
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
