"""Decoupled mixup against sums over pairs of classes, in float64."""

import math

import pytest
import torch

import references
import toy
from methods.shared import problem
from multimix import methods
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Chain, CutMix, DecoupledMixup, ManifoldMixup, Mixup
from multimix.methods.decoupled import decoupled_losses
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SampleWeighted
from toy import seeded


def second_loss(logits, first, second, weights):
    """Of one example, given probabilities of its two classes, or soft ones."""
    p, total = references.softmax(logits), 0.0
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            if i != j:
                total -= one * other * weights[0] * math.log(p[i] / sum(p[:j] + p[j + 1 :]))
                total -= one * other * weights[1] * math.log(p[j] / sum(p[:i] + p[i + 1 :]))
    return total


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("form", ["soft", "hard"])
@pytest.mark.parametrize(
    "inner", [Mixup(), Mixup(mode="elem"), CutMix(mode="pair"), ManifoldMixup(), methods.RegMixup()], ids=repr
)
def test_the_second_loss_is_the_sum_over_pairs_of_classes(inner, form, soft):
    network, inputs, targets, rows = problem(7, 6, 6, soft=soft)
    drawn = inner.draw(network, inputs, targets, seeded())
    logits, labels = references.rows(drawn.predict(network, inputs)), references.rows(rows)
    total = 0.0
    for i, (j, lam) in enumerate(zip(drawn.partners.tolist(), drawn.lam.expand(7).tolist(), strict=True)):
        weights = (1.0, 1.0) if form == "hard" else (lam, 1 - lam)
        total += second_loss(logits[i], labels[i], labels[j], weights) * (0 < lam < 1) / 7
    plain = inner(network, inputs, targets, generator=seeded())
    ours = DecoupledMixup(inner, eta=0.3, form=form)(network, inputs, targets, generator=seeded())
    assert ours.terms["decoupled"].item() == pytest.approx(total)
    assert ours.total.item() == pytest.approx(plain.total.item() + 0.3 * total)
    assert total > 0


def test_it_is_exact_where_the_network_is_sure():
    """In float32, of a class whose probability is 1 but for rounding, with gradients."""
    logits = torch.tensor([[40.0, 1.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    first, second = torch.eye(3)[[1, 1]], torch.eye(3)[[0, 1]]
    sure, alike = torch.stack(decoupled_losses(logits, first, second)).T
    torch.testing.assert_close(sure, torch.tensor([math.log1p(math.exp(-1)), 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(alike, torch.zeros(2))
    sure.sum().backward()
    p = torch.tensor([1.0, 0.0]).softmax(0)
    torch.testing.assert_close(logits.grad[0], torch.tensor([0.0, p[0] - 1, p[1]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("objective", [CrossEntropy((1.0, 2.0, 0.5, 3.0, 1.0)), CrossEntropy(ignore_index=1)], ids=str)
def test_examples_count_as_in_the_first_loss(objective):
    network, inputs, targets, _ = problem(6, 6, 6, soft=False)
    network.objective = objective
    drawn = Mixup().draw(network, inputs, targets, seeded())
    wanted = objective.targets(targets, 5, dtype=torch.float64)
    logits = drawn.predict(network, inputs)
    _, counted = objective.terms(logits, drawn.mix_targets(wanted))
    lam, labels = float(drawn.lam), references.rows(wanted)
    pairs = enumerate(drawn.partners.tolist())
    each = [second_loss(references.rows(logits)[i], labels[i], labels[j], (lam, 1 - lam)) for i, j in pairs]
    term = DecoupledMixup()(network, inputs, targets, generator=seeded()).terms["decoupled"]
    torch.testing.assert_close(term, (torch.tensor(each, dtype=torch.float64) * counted.detach()).sum() / counted.sum())
    assert len(set(counted.tolist())) > 1


def test_label_maps_weights_and_methods_around_it():
    network = toy.Toy(width=6, classes=5).eval()
    network.pool = lambda features: features
    inputs, maps = torch.randn(4, 9, 6, generator=seeded()), torch.randint(5, (4, 9), generator=seeded())
    assert DecoupledMixup()(network, inputs, maps, generator=seeded()).terms["decoupled"] > 0
    network, (inputs, targets) = toy.images().eval(), toy.batch(7, 3, 6, 6)
    plain = DecoupledMixup()(network, inputs, targets, generator=seeded())
    network.objective = SampleWeighted(CrossEntropy())
    weighted = network.objective.join(targets, torch.full((7,), 2.0), 5)
    torch.testing.assert_close(DecoupledMixup()(network, inputs, weighted, generator=seeded()).terms, plain.terms)
    network.objective = None
    for method in (SelfDistilled(DecoupledMixup()), Chain(CutMix(), DecoupledMixup())):
        assert method(network, inputs, targets, generator=seeded()).terms["decoupled"] > 0


@pytest.mark.bad_input
def test_what_does_not_mix_pairs_or_classes_is_refused():
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    for inner in (methods.MultiMix(), methods.AdaMixUp(), 3):
        with pytest.raises(TypeError, match=r"^method must mix pairs of examples, such as .*, got"):
            DecoupledMixup(inner)
    with pytest.raises(TypeError, match=r"^method must mix pairs of examples, .*, got ZetaMixup"):
        DecoupledMixup(methods.ZetaMixup())(network, inputs, targets)
    assert "decoupled" not in DecoupledMixup(ERM())(network, inputs, targets).terms
    network.objective = BinaryCrossEntropy()
    with pytest.raises(ValueError, match=r"^objective must be CrossEntropy for DecoupledMixup, .*, got Binary"):
        DecoupledMixup()(network, inputs, toy.one_hot(targets))
