"""What PuzzleMix asks of networks: saliency, perturbed and clean images, statistics and teachers."""

import copy
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch.nn import functional

import toy
from methods.puzzlemix_reference import finite_differences, seeded
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods import puzzlemix as module
from multimix.methods._saliency import input_saliency, kept_statistics
from multimix.methods.puzzlemix import PuzzleMix
from multimix.protocols import Teacher


def test_saliency_is_the_root_mean_square_gradient():
    network, (inputs, targets) = toy.images(), toy.batch(4, 3, 5, 4)
    twin = copy.deepcopy(network).double().eval()
    soft = toy.soft_targets(4, 5)
    for labels, probabilities in ((targets, toy.one_hot(targets)), (soft, soft)):
        gradient = finite_differences(twin, inputs, probabilities)
        expected = ((gradient[:, 0] ** 2 + gradient[:, 1] ** 2 + gradient[:, 2] ** 2) / 3) ** 0.5
        found = input_saliency(network.train(), inputs, labels)
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-7)
        alone = [input_saliency(network, inputs[i : i + 1], labels[i : i + 1]) for i in range(4)]
        torch.testing.assert_close(torch.cat(alone), found, rtol=1e-4, atol=1e-7)


def test_saliency_leaves_the_network_as_it_was():
    network, (inputs, targets) = toy.images().train(), toy.batch(4, 3, 6, 6)
    network.blocks[1].eval()
    network.classifier.weight.grad = torch.ones_like(network.classifier.weight)
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        saliency = input_saliency(network, inputs, targets)
    assert saliency.dtype == torch.float32
    assert not saliency.requires_grad
    assert not inputs.requires_grad
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())
    assert [block.training for block in network.blocks] == [True, False, True]
    assert not network.blocks[1][1].training
    assert network.blocks[2][1].training
    assert torch.equal(network.classifier.weight.grad, torch.ones_like(network.classifier.weight))
    assert network.blocks[1][0].weight.grad is None


# --------------------------------------------------------------------------------------- perturbed and clean images


def test_perturbations_follow_the_gradient_within_their_bounds():
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 8, 8)
    width = inputs.amax((0, 2, 3)) - inputs.amin((0, 2, 3))
    eps = (width * 10 / 255).view(-1, 1, 1) + 1e-6
    drawn = PuzzleMix(adversarial=1.0).draw(network, inputs, targets, seeded())
    noise, same = drawn.noise
    assert noise is same
    assert (noise.abs() <= eps).all()
    assert noise.abs().sum() > 0
    # At most one step away from a random start: where it is at the bound of the step, it has the gradient's sign.
    gradient = module.input_gradient(network, inputs, targets)
    at_bound = noise.abs() >= 0.999 * noise.abs().amax((0, 2, 3), keepdim=True)
    agree = (noise.sign() == gradient.sign())[at_bound].float().mean()
    assert at_bound.sum() > 100
    assert agree > 0.95
    before = functional.cross_entropy(network.eval()(inputs), targets)
    assert functional.cross_entropy(network(inputs + noise), targets) > before


def test_perturbed_images_stay_within_the_range_of_the_mini_batch():
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 8, 8)
    low, high = inputs.amin((0, 2, 3)).view(-1, 1, 1), inputs.amax((0, 2, 3)).view(-1, 1, 1)
    drawn = PuzzleMix(adversarial=1.0, adversarial_eps=80.0).draw(network, inputs, targets, seeded())
    mixed = drawn.mix(inputs)
    assert (mixed >= low - 1e-5).all()
    assert (mixed <= high + 1e-5).all()
    plain = replace(drawn, noise=(None, None)).mix(inputs)
    assert not torch.allclose(mixed, plain)


def test_how_often_images_are_perturbed():
    network, (inputs, targets) = toy.images(), toy.batch(2, 3, 2, 2)
    scale, generator, method = module.Scale.of(inputs), seeded(), PuzzleMix(adversarial=0.3)
    seen = []
    for _ in range(200):
        _, (first, second) = method._look(network, inputs, targets, scale, generator)
        seen.append((first is not None, second is not None))
    assert stats.binomtest(sum(first for first, _ in seen), 200, 0.3).pvalue > 1e-3
    assert stats.binomtest(sum(second for _, second in seen), 200, 0.3).pvalue > 1e-3
    assert stats.binomtest(sum(first and second for first, second in seen), 200, 0.09).pvalue > 1e-3


def test_the_clean_loss_is_added_and_leaves_the_statistics_alone():
    network, (inputs, targets) = toy.images().train(), toy.batch(6, 3, 8, 8)
    twin, third = copy.deepcopy(network), copy.deepcopy(network)
    plain = PuzzleMix()(network, inputs, targets, generator=seeded())
    both = PuzzleMix(clean=0.7)(twin, inputs, targets, generator=seeded())
    clean = functional.cross_entropy(third(inputs), targets)
    torch.testing.assert_close(both.terms["clean"], clean.detach())
    torch.testing.assert_close(both.total, plain.total + 0.7 * clean)
    torch.testing.assert_close(both.terms["labels"], plain.terms["labels"])
    assert all(torch.equal(*pair) for pair in zip(network.buffers(), twin.buffers(), strict=True))
    both.total.backward()
    assert all(p.grad.isfinite().all() for p in twin.parameters())


def test_running_statistics_move_once_with_the_mixed_images():
    network, (inputs, targets) = toy.images().train(), toy.batch(6, 3, 8, 8)
    twin = copy.deepcopy(network)
    mixed, _ = PuzzleMix().mix(inputs, targets, num_classes=5, network=twin, generator=seeded())
    assert all(torch.equal(*pair) for pair in zip(network.buffers(), twin.buffers(), strict=True))
    twin(mixed)
    PuzzleMix(clean=1.0)(network, inputs, targets, generator=seeded())
    assert all(torch.equal(*pair) for pair in zip(network.buffers(), twin.buffers(), strict=True))


def test_statistics_are_kept_even_after_a_failure():
    network = toy.images().train()
    before = list(network.buffers())
    with pytest.raises(RuntimeError, match="on purpose"), kept_statistics(network):
        raise RuntimeError("on purpose")
    assert all(mine is its for mine, its in zip(before, network.buffers(), strict=True))


# ---------------------------------------------------------------------------------------------------------- any company


def test_student_and_teacher_see_the_same_puzzle():
    student, teacher = toy.images(seed=0).eval(), toy.images(seed=1).eval()
    (inputs, targets), (other, _) = toy.batch(5, 3, 8, 8), toy.batch(5, 3, 8, 8, seed=5)
    method = PuzzleMix(adversarial=1.0, clean=0.5)
    drawn = method.draw(student, inputs, targets, seeded())
    logits = student(drawn.mix(inputs))
    labels = functional.cross_entropy(logits, drawn.mix_targets(toy.one_hot(targets)))
    taught = functional.cross_entropy(logits, teacher(drawn.mix(other)).softmax(-1))
    clean = functional.cross_entropy(student(inputs), targets)
    losses = method(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3))
    torch.testing.assert_close(losses.total, 0.3 * labels + 0.7 * taught + 0.5 * clean)


def test_it_composes():
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 8, 8)
    for method in (SelfDistilled(PuzzleMix()), Alternate((PuzzleMix(), ERM())), SelfDistilled(PuzzleMix(clean=1.0))):
        for seed in range(3):
            losses = method(network, inputs, targets, generator=seeded(seed))
            losses.total.backward()
            assert losses.total.isfinite()
