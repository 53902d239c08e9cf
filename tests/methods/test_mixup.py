"""Mixup, CutMix and manifold mixup against the loops, given what they drew."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

import references
import toy
from multimix.methods import ERM, CutMix, ManifoldMixup, Mixup
from multimix.protocols import Teacher
from toy import seeded


def check(method, network, inputs, targets, truth):
    """Assert value and gradients of a step against a differentiable truth."""
    ours = method(network, inputs, targets, generator=seeded()).total
    parameters = list(network.parameters())
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)
    for mine, wanted in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(truth, parameters), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("soft", [False, True])
def test_erm_is_cross_entropy(soft):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(7, 3, 6, 6, dtype=torch.float64)
    targets = toy.soft_targets(7, 5, dtype=torch.float64) if soft else targets
    check(ERM(), network, inputs, targets, functional.cross_entropy(network(inputs), targets))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("b", [1, 2, 7])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_equals_the_loop(alpha, b, soft):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(b, 3, 6, 6, dtype=torch.float64)
    probabilities = toy.soft_targets(b, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)
    method = Mixup(alpha)
    drawn = method.draw(network, inputs, targets, seeded())
    lam = float(drawn.lam)
    mixed = references.pairs(inputs, drawn.partners, lam)
    wanted = references.pairs(probabilities, drawn.partners, lam)
    truth = references.soft_cross_entropy(network(mixed), wanted)
    check(method, network, inputs, probabilities if soft else targets, truth)


@pytest.mark.parametrize(("method", "alpha"), [(Mixup(0.4), 0.4), (Mixup(), 1.0), (ManifoldMixup(), 2.0)])
def test_lambda_is_beta_and_one_a_step(method, alpha):
    network, (inputs, _) = toy.vectors(), toy.batch(4, 8)
    generator = seeded(1)
    drawn = [method.draw(network, inputs, None, generator) for _ in range(600)]
    pairings = [getattr(each, "pairing", each) for each in drawn]
    assert all(pairing.lam.shape == () for pairing in pairings)
    assert stats.kstest([float(pairing.lam) for pairing in pairings], stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    first = torch.bincount(torch.stack([pairing.partners[0] for pairing in pairings]), minlength=4)
    assert stats.chisquare(first.numpy()).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------------------- CutMix


@pytest.mark.parametrize("shape", [(6, 6), (5, 9)])
@pytest.mark.parametrize("soft", [False, True])
def test_cutmix_equals_the_loop(soft, shape):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(7, 3, *shape, dtype=torch.float64)
    probabilities = toy.soft_targets(7, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)
    drawn = CutMix().draw(network, inputs, targets, seeded())
    mixed = references.cutmix(inputs, drawn.partners, drawn.given["box"])
    kept = sum(torch.equal(mixed[0, :, y, x], inputs[0, :, y, x]) for y in range(shape[0]) for x in range(shape[1]))
    if int(drawn.partners[0]) != 0:
        assert drawn.lam == pytest.approx(kept / math.prod(shape))
    wanted = references.pairs(probabilities, drawn.partners, drawn.lam)
    truth = references.soft_cross_entropy(network(mixed), wanted)
    check(CutMix(), network, inputs, probabilities if soft else targets, truth)


def test_cutmix_corrects_lambda_to_the_area_that_is_left():
    """Images of a single colour each, so that their mean is the mixed lambda."""
    colours = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 9, 7).contiguous()
    network = toy.Toy(width=3, classes=5)
    for seed in range(40):
        drawn = CutMix().draw(network, colours, None, seeded(seed))
        network.seen.clear()
        drawn.predict(network, colours)
        expected = references.pairs(torch.arange(5.0), drawn.partners, drawn.lam)
        torch.testing.assert_close(network.seen[0].mean((1, 2, 3)), expected.float(), rtol=1e-4, atol=1e-5)


def test_cutmix_area_is_that_of_uniform_lambda_and_centre():
    """The mean over lambda ~ U(0, 1), by quadrature, of the mean area over every centre."""
    generator, images = seeded(2), torch.zeros(1, 3, 8, 8)
    drawn = [1 - CutMix().draw(None, images, None, generator).lam for _ in range(3000)]
    areas = [
        sum(_area(references.cut(8, 8, (i + 0.5) / 200, y, x)) for y in range(8) for x in range(8)) / 64**2
        for i in range(200)
    ]
    mean = torch.tensor(drawn).mean()
    standard_error = float(torch.tensor(drawn).std()) / math.sqrt(3000)
    assert abs(float(mean) - sum(areas) / 200) < 4 * standard_error


def _area(box: tuple[int, int, int, int]) -> int:
    top, bottom, left, right = box
    return (bottom - top) * (right - left)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_cutmix_leaves_the_other_steps_plain(probability):
    generator, images = seeded(3), torch.zeros(2, 3, 32, 32)
    method = CutMix(prob=probability)
    plain = [method.draw(None, images, None, generator).lam == 1.0 for _ in range(800)]
    never = [CutMix().draw(None, images, None, generator).lam == 1.0 for _ in range(800)]
    expected = 1 - probability * (1 - sum(never) / 800)
    assert sum(plain) / 800 == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 800))
    network, (inputs, targets) = toy.images().eval(), toy.batch(7, 3, 6, 6)
    if probability == 0.0:
        total = method(network, inputs, targets, generator=seeded()).total
        torch.testing.assert_close(total, functional.cross_entropy(network(inputs), targets))


# -------------------------------------------------------------------------------------------------- manifold mixup


class Scales(nn.Module):
    """Remembers what it is given, and doubles it."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        self.given = x.detach()
        return self.gain * x


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_manifold_mixup_mixes_exactly_at_its_stage(stage):
    """Stages before it see clean data, those after it mixed data."""
    network = toy.Toy(Scales(), Scales(), width=8, classes=5)
    inputs, targets = toy.batch(7, 8)
    method = ManifoldMixup(stages=(stage,))
    drawn = method.draw(network, inputs, targets, seeded())
    assert drawn.stage == stage
    method(network, inputs, targets, generator=seeded())
    mixed = references.pairs(inputs, drawn.pairing.partners, float(drawn.pairing.lam))
    assert not torch.allclose(mixed, inputs)
    torch.testing.assert_close(network.blocks[1].given, mixed if stage < 1 else inputs)
    torch.testing.assert_close(network.blocks[2].given, 2 * (mixed if stage < 2 else inputs))
    assert torch.equal(network.seen[0], inputs)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_manifold_mixup_equals_the_loop(stage):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(7, 3, 6, 6, dtype=torch.float64)
    method = ManifoldMixup(stages=(stage,))
    pairing = method.draw(network, inputs, targets, seeded()).pairing
    hidden, lam = inputs, float(pairing.lam)
    for i, block in enumerate(network.blocks):
        hidden = block(hidden)
        if i == stage:
            hidden = references.pairs(hidden, pairing.partners, lam)
    logits = network.classifier(hidden.flatten(2).mean(2))
    wanted = references.pairs(toy.one_hot(targets, dtype=torch.float64), pairing.partners, lam)
    check(method, network, inputs, targets, references.soft_cross_entropy(logits, wanted))


@pytest.mark.parametrize(("stages", "available"), [((0, 1, 2), {0, 1, 2}), ((0, 2), {0, 2}), ((1, 2, 7), {1, 2})])
def test_manifold_mixup_chooses_each_stage_alike(stages, available):
    network, (inputs, _) = toy.images(), toy.batch(2, 3, 6, 6)
    generator = seeded(4)
    drawn = [ManifoldMixup(stages=stages).draw(network, inputs, None, generator).stage for _ in range(900)]
    counts = [drawn.count(stage) for stage in sorted(available)]
    assert sum(counts) == 900
    assert stats.chisquare(counts).pvalue > 1e-3


# --------------------------------------------------------------------------------------------------------- teacher


@pytest.mark.parametrize("method", [ERM(), Mixup(), CutMix(), ManifoldMixup(), ManifoldMixup(stages=(2,))], ids=repr)
def test_a_teacher_predicts_on_its_own_view_mixed_alike(method):
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    inputs, targets = toy.batch(7, 3, 6, 6)
    other = toy.batch(7, 3, 6, 6, seed=5)[0]
    drawn = method.draw(student, inputs, targets, seeded())
    logits = drawn.predict(student, inputs)
    labels = functional.cross_entropy(logits, drawn.mix_targets(toy.one_hot(targets)))
    taught = functional.cross_entropy(logits, drawn.predict(teacher, other).detach().softmax(-1))
    ours = method(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3))
    torch.testing.assert_close(ours.total, 0.3 * labels + 0.7 * taught)
    torch.testing.assert_close(ours.terms["labels"], labels.detach())
    torch.testing.assert_close(ours.terms["teacher"], taught.detach())
    ours.total.backward()
    assert all(p.grad is None for p in teacher.parameters())


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "said"),
    [
        *((partial(cls, alpha=0.0), "alpha must be above 0 and finite") for cls in (Mixup, CutMix, ManifoldMixup)),
        *((partial(cls, mode="example"), "mode must be one of batch, pair, elem") for cls in (Mixup, CutMix)),
        (partial(CutMix, prob=1.1), "prob must lie in"),
        (partial(ManifoldMixup, stages=()), "stages must hold at least 1, got"),
        (partial(ManifoldMixup, stages=(-1, 0)), "stages must hold values that each must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.bad_input
def test_a_network_without_any_of_the_stages_is_named():
    with pytest.raises(ValueError, match=r"stages must name a stage of the network, \[0, 1, 2\], got \(7, 8\)"):
        ManifoldMixup(stages=(7, 8))(toy.vectors(), *toy.batch(7, 8))


@pytest.mark.bad_input
def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        Mixup().alpha = 3.0
    assert replace(Mixup(), alpha=3.0) == Mixup(3.0)
