"""How large the gradient on the clean logits is beside plain training's, as findings.md, section 1, measures it."""

import pytest
import torch
from torch.nn import functional

import toy
from multimix import ops
from multimix.methods import DenseMultiMix, MultiMix
from multimix.protocols import Teacher
from toy import seeded

M, K, TUPLES, DENSE_TUPLES = 128, 10, 20_000, 8_000


def centred(gradient: torch.Tensor) -> torch.Tensor:
    return gradient - gradient.mean(0, keepdim=True)


def gradient_of(method, logits: torch.Tensor, targets: torch.Tensor, teacher: Teacher | None = None) -> torch.Tensor:
    """Return the gradient on the clean logits, by a network that hands its inputs through."""
    logits = logits.clone().requires_grad_()
    method(toy.identity(K), logits, targets, generator=seeded(2), teacher=teacher).total.backward()
    return logits.grad


def plain_gradient(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return that of plain training; of maps (b, r, k), every position is an example of the image's label."""
    logits = logits.clone().requires_grad_()
    wanted = wanted if logits.ndim == 2 else wanted.reshape(len(logits), -1, K).expand_as(logits)
    functional.cross_entropy(logits.flatten(0, -2), wanted.flatten(0, -2)).backward()
    return logits.grad


def compare(ours: torch.Tensor, plain: torch.Tensor) -> tuple[float, float]:
    """Return the ratio of the centred norms, and the cosine."""
    ours, plain = centred(ours).flatten(), centred(plain).flatten()
    return float(ours.norm() / plain.norm()), float(functional.cosine_similarity(ours, plain, 0))


def example(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return random logits, labels and the labels as probabilities."""
    logits = torch.randn(M, *shape, K, generator=seeded(0))
    targets = torch.randint(K, (M,), generator=seeded(1))
    return logits, targets, toy.one_hot(targets, K)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 1 / 128, 4 / 128])
def test_the_centred_gradient_shrinks_by_m_alpha_plus_one(alpha):
    logits, targets, one_hot = example()
    ratio, cosine = compare(
        gradient_of(MultiMix(TUPLES, alpha=alpha), logits, targets), plain_gradient(logits, one_hot)
    )
    assert ratio == pytest.approx(1 / (M * alpha + 1), rel=0.05)
    assert cosine > 0.96


def test_the_mean_of_the_gradient_keeps_its_size():
    logits, targets, one_hot = example()
    logits = logits + torch.linspace(0, 3, K)  # so that there is a mean to speak of
    plain = plain_gradient(logits, one_hot).mean(0)
    for balanced in (False, True):
        ours = gradient_of(MultiMix(TUPLES, alpha=1 / 128, balanced=balanced), logits, targets).mean(0)
        assert float(functional.cosine_similarity(ours, plain, 0)) > 0.98
        assert float(ours.norm() / plain.norm()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("alpha", [0.5, 2.0, 4 / 128])
def test_balancing_restores_it(alpha):
    logits, targets, one_hot = example()
    method = MultiMix(TUPLES, alpha=alpha, balanced=True)
    ratio, cosine = compare(gradient_of(method, logits, targets), plain_gradient(logits, one_hot))
    assert ratio == pytest.approx(1, abs=0.05)
    assert cosine > 0.96


def test_attention_is_not_mistaken_for_what_sets_images_apart():
    """Images that attention lets into more tuples have more of what all have in common; it must not be multiplied."""
    logits, targets, one_hot = example(2)
    seen = torch.rand(M, 2, generator=seeded(5)) + 0.05
    seen = seen / seen.sum(1, keepdim=True)
    weights = ops.dirichlet(DENSE_TUPLES, M, (0.5, 2.0), generator=seeded(2))
    leaf = logits.clone().requires_grad_()
    ops.dense_mixed_cross_entropy(leaf, targets, weights, seen, balanced=True).backward()
    plain = plain_gradient(logits, one_hot)
    for j in range(2):
        ratio, cosine = compare(leaf.grad[:, j], plain[:, j])
        assert 0.8 < ratio < 1.5
        assert cosine > 0.75


def test_without_a_head_the_embeddings_are_balanced():
    """The gradient on the embeddings is the same as with one, since a linear map commutes with the balance."""
    inputs, targets = toy.batch(9, 8)
    gradients = []
    for affine in (True, False):
        network, leaf = toy.vectors(affine=affine), inputs.clone().requires_grad_()
        MultiMix(500, alpha=1.0, balanced=True)(network, leaf, targets, generator=seeded()).total.backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
    maps, targets = toy.batch(9, 3, 6, 6)
    gradients = []
    for affine in (True, False):
        network, leaf = toy.images(affine=affine).eval(), maps.clone().requires_grad_()
        DenseMultiMix(200, alpha=1.0, balanced=True)(network, leaf, targets, generator=seeded()).total.backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
