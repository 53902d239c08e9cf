"""AlignMix against loops in float64 and cases worked by hand, given what it drew."""

import pytest
import torch
from scipy import stats
from torch.nn import functional

import references
import toy
from methods.shared import problem, same_gradients, seeded
from multimix.methods._predict import PairMixing
from multimix.methods.transport import AlignMix, squared_distances
from multimix.ops import sinkhorn

ALIGNED = AlignMix(prob=1.0)


def drawn_with(method, inputs, onto_first):
    """Return a seed and its draw, of one direction."""
    for seed in range(50):
        drawn = method.draw(None, inputs, None, seeded(seed))
        if drawn.onto_first is onto_first:
            return seed, drawn
    raise AssertionError


def plan_of(first, second, settings):
    """One pair's plan: costs by loops, and Sinkhorn's iteration on the matrix exp(-cost / epsilon)."""
    cost = torch.tensor([[sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for b in second] for a in first])
    kernel = (-cost.double() / settings.epsilon).exp()
    v = torch.ones(len(second), dtype=torch.float64)
    for _ in range(settings.iterations):
        u = 1 / (len(first) * (kernel @ v))
        v = 1 / (len(second) * (kernel.T @ u))
    return u[:, None] * kernel * v


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("onto_first", [False, True])
@pytest.mark.parametrize(("b", "shape"), [(1, (6, 6)), (7, (6, 6)), (4, (4, 9))])
def test_aligned_mixing_equals_the_loop(b, shape, onto_first, soft):
    network, inputs, given, probabilities = problem(b, *shape, soft=soft)
    method = AlignMix(prob=1.0, iterations=23, tolerance=0.0)
    seed, drawn = drawn_with(method, inputs, onto_first)
    lam, partners = float(drawn.pairing.lam), drawn.pairing.partners
    maps, mixed = network.embed(inputs), []
    for i, j in enumerate(partners.tolist()):
        r = maps.shape[1]
        assignment = r * plan_of(maps[i].tolist(), maps[j].tolist(), method)
        a, other = maps[i].T, maps[j].T  # (d, r), as in the paper
        mixed.append(
            (lam * a + (1 - lam) * other @ assignment.T if onto_first else lam * a @ assignment + (1 - lam) * other).T
        )
    logits = network.classify(torch.stack(mixed).mean(1))
    truth = references.soft_cross_entropy(logits, references.pairs(probabilities, partners, lam))
    ours = method(network, inputs, given, generator=seeded(seed)).total
    same_gradients(ours, truth, network.parameters())


def test_a_case_worked_by_hand():
    """Two positions whose costs are far over epsilon: the plan exchanges them, and each row of R is a one."""
    features = torch.tensor([[[0.0], [10.0]], [[12.0], [1.0]]])
    partners = torch.tensor([1, 0])
    pairing = PairMixing(partners, torch.tensor(0.75))
    onto_first, onto_second = (_aligning(pairing, flag) for flag in (True, False))
    torch.testing.assert_close(onto_first.mix(features), torch.tensor([[[0.25], [10.5]], [[11.5], [0.75]]]))
    torch.testing.assert_close(onto_second.mix(features), torch.tensor([[[10.5], [0.25]], [[0.75], [11.5]]]))


def _aligning(pairing, onto_first):
    _, drawn = drawn_with(ALIGNED, torch.zeros(2, 3), onto_first)
    return type(drawn)(pairing, onto_first, ALIGNED)


def test_the_other_steps_are_mixup():
    network = toy.images().eval()
    inputs, targets = toy.batch(7, 3, 6, 6)
    method = AlignMix(prob=0.0)
    drawn = method.draw(network, inputs, targets, seeded())
    logits = network(references.pairs(inputs, drawn.partners, float(drawn.lam)).float())
    expected = functional.cross_entropy(logits, drawn.mix(toy.one_hot(targets)))
    torch.testing.assert_close(method(network, inputs, targets, generator=seeded()).total, expected)


def test_what_is_drawn():
    inputs, generator = torch.zeros(4, 3), seeded(2)
    for probability in (0.5, 0.2):
        drawn = [AlignMix(prob=probability).draw(None, inputs, None, generator) for _ in range(700)]
        aligned = [each for each in drawn if not isinstance(each, PairMixing)]
        assert stats.binomtest(len(aligned), 700, probability).pvalue > 1e-3
        assert stats.binomtest(sum(each.onto_first for each in aligned), len(aligned)).pvalue > 1e-3


def test_costs_are_squared_distances_far_from_the_origin_too():
    first, second = toy.batch(3, 5, 4)[0] + 300, toy.batch(3, 7, 4, seed=1)[0] + 300
    expected = torch.cdist(first.double(), second.double()).square()
    torch.testing.assert_close(squared_distances(first, second).double(), expected, rtol=1e-4, atol=1e-4)


def test_half_precision_is_aligned_in_float32():
    maps = toy.batch(3, 5, 4)[0].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        plan = ALIGNED.plan(maps, maps.flip(0))
        mixed = _aligning(PairMixing(torch.tensor([2, 1, 0]), torch.tensor(0.5)), onto_first=False).mix(maps)
    cost = squared_distances(maps.float(), maps.float().flip(0))
    torch.testing.assert_close(plan, sinkhorn(cost, 0.1, iterations=100, tolerance=0.1))
    assert mixed.dtype == torch.bfloat16
