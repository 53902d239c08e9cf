"""AlignMix and OptTransMix, what they transport, against loops in float64 and cases worked by hand."""

import pytest
import torch
from scipy import stats

import references
import toy
from methods.shared import problem, same_gradients
from multimix.methods import OptTransMix
from multimix.methods._predict import PairMixing
from multimix.methods.transport import Aligning, AlignMix, squared_distances
from multimix.ops import barycentre, sinkhorn
from toy import seeded

ALIGNED = AlignMix(prob=1.0)


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
    draws = ((seed, method.draw(None, inputs, None, seeded(seed))) for seed in range(50))
    seed, drawn = next(each for each in draws if each[1].onto_first is onto_first)
    lam, partners = float(drawn.lam), drawn.partners
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
    pairing = PairMixing(torch.tensor([1, 0]), torch.tensor(0.75))
    onto_first, onto_second = (Aligning(pairing, ALIGNED, onto_first=onto).mix(features) for onto in (True, False))
    torch.testing.assert_close(onto_first, torch.tensor([[[0.25], [10.5]], [[11.5], [0.75]]]))
    torch.testing.assert_close(onto_second, torch.tensor([[[10.5], [0.25]], [[0.75], [11.5]]]))


def test_what_is_drawn():
    inputs, generator = torch.zeros(4, 3), seeded(2)
    for probability in (0.5, 0.2):
        drawn = [AlignMix(prob=probability).draw(None, inputs, None, generator) for _ in range(700)]
        aligned = [each for each in drawn if each.inside]
        assert stats.binomtest(len(aligned), 700, probability).pvalue > 1e-3
        assert stats.binomtest(sum(each.onto_first for each in aligned), len(aligned)).pvalue > 1e-3


def test_costs_are_squared_distances_far_from_the_origin_too():
    first, second = toy.batch(3, 5, 4)[0] + 300, toy.batch(3, 7, 4, seed=1)[0] + 300
    expected = torch.cdist(first.double(), second.double()).square()
    torch.testing.assert_close(squared_distances(first, second).double(), expected, rtol=1e-4, atol=1e-4)


def test_half_precision_is_aligned_in_float32():
    maps, pairing = toy.batch(3, 5, 4)[0].bfloat16(), PairMixing(torch.tensor([2, 1, 0]), torch.tensor(0.5))
    with torch.autocast("cpu", torch.bfloat16):
        plan = ALIGNED.plan(maps, maps.flip(0))
        mixed = Aligning(pairing, ALIGNED, onto_first=False).mix(maps)
    cost = squared_distances(maps.float(), maps.float().flip(0))
    torch.testing.assert_close(plan, sinkhorn(cost, 0.1, iterations=100, tolerance=0.1))
    assert mixed.dtype == torch.bfloat16


def plain_barycentre(images, weights, epsilon, iterations):
    """Bregman projections in logarithms on the dense cost between all pixels of images (m, h, w)."""
    m, height, width = images.shape
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double() / max(height - 1, width - 1, 1)
    kernel = -(places[:, None] - places).square().sum(2) / epsilon
    logs = (images / images.sum((1, 2), keepdim=True)).reshape(m, -1).log().clamp(min=-1e30)
    potentials = torch.zeros_like(logs)
    for _ in range(iterations):
        own = logs - (kernel + potentials.unsqueeze(1)).logsumexp(2)
        heard = (kernel + own.unsqueeze(1)).logsumexp(2)
        log_q = weights @ heard
        potentials = log_q - heard
    return log_q.softmax(0).view(height, width)


def positive(*shape, seed=0, dtype=torch.float64):
    """Random masses, a third of them zero."""
    drawn = torch.rand(*shape, generator=seeded(seed), dtype=torch.float64)
    return (drawn * (drawn > 1 / 3)).to(dtype)


def deltas(places, shape, dtype=torch.float64):
    masses = torch.zeros(len(places), *shape, dtype=dtype)
    for mass, (y, x) in zip(masses, places, strict=True):
        mass[y, x] = 2.0
    return masses


EPSILONS = [0.5, 0.05, 0.004, 0.002, 0.001, 1e-5]
"""For float32, float64 and logarithms, by products of lines, of the shorter lines, and by sums."""


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("shape", [(3, 4), (5, 2), (1, 6), (1, 1)])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_barycentre_equals_the_loop(m, shape, epsilon, device):
    masses = positive(2, m, *shape) + deltas([(0, 0)] * m, shape)
    weights = torch.rand(2, m, generator=seeded(1), dtype=torch.float64).softmax(1)
    wanted = [plain_barycentre(*each, epsilon, 7) for each in zip(masses, weights, strict=True)]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        given = masses.to(device, dtype), weights.to(device, dtype)
        ours = barycentre(*given, epsilon=epsilon, iterations=7)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.cpu().double(), torch.stack(wanted), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("epsilon", [*EPSILONS, 1e-7])
def test_two_points_meet_at_the_weighted_mean(epsilon, dtype):
    """In the plan between a point and anything all mass goes to the point, so that q is a Gaussian, exactly:
    log q = -|z - mean|^2 / epsilon."""
    shape, lam = (9, 13), 0.25
    masses = deltas([(0, 12), (8, 0)], shape, dtype)
    ours = barycentre(masses, torch.tensor([lam, 1 - lam]), epsilon=epsilon, iterations=3)
    mean = lam * 0 + (1 - lam) * 8, lam * 12 + (1 - lam) * 0
    assert divmod(int(ours.argmax()), 13) == mean
    y, x = torch.arange(9.0).double().view(-1, 1) / 12, torch.arange(13.0).double() / 12
    wanted = (-((y - mean[0] / 12) ** 2 + (x - mean[1] / 12) ** 2) / epsilon).flatten().softmax(0).view(shape)
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.5, 0.02, 0.002, 1e-3])
def test_gradients_are_those_of_differences(epsilon):
    masses = positive(2, 3, 2) + 0.1
    masses.requires_grad_()
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m: barycentre(m, weights, epsilon=epsilon, iterations=3), masses)


@pytest.mark.parametrize("epsilon", [0.04, 0.004, 1e-4])
def test_autocast_changes_nothing(epsilon, device):
    masses, weights = positive(2, 6, 5, dtype=torch.float32).to(device), torch.tensor([0.3, 0.7], device=device)
    plain = barycentre(masses, weights, epsilon=epsilon, iterations=5)
    with torch.autocast(device.type, torch.bfloat16):
        assert torch.equal(barycentre(masses, weights, epsilon=epsilon, iterations=5), plain)


@pytest.mark.parametrize(("b", "shape"), [(1, (4, 4)), (2, (4, 3)), (3, (2, 5))])
def test_opttransmix_equals_the_loop(b, shape):
    inputs = toy.batch(b, 3, *shape, dtype=torch.float64)[0]
    drawn = OptTransMix(alpha=2.0, epsilon=0.05, iterations=6).draw(None, inputs, None, seeded(3))
    lam, mixed = float(drawn.lam), torch.zeros_like(inputs)
    for i, partner in enumerate(drawn.partners.tolist()):
        for c in range(3):
            first, second = inputs[i, c], inputs[partner, c]
            offset = min(float(first.min()), float(second.min()))
            pair, weights = torch.stack([first, second]) - offset, torch.tensor([lam, 1 - lam], dtype=torch.float64)
            mixed[i, c] = offset + (weights @ pair.sum((1, 2))) * plain_barycentre(pair, weights, 0.05, 6)
    torch.testing.assert_close(drawn.mix(inputs), mixed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.7, -0.2), (3.0, 3.0)])
@pytest.mark.parametrize("shape", [(6, 5), (1, 1)])
def test_constant_images_are_mixed_linearly(shape, values):
    inputs = torch.tensor(values).view(2, 1, 1, 1).expand(2, 3, *shape).contiguous()
    for seed in range(4):
        drawn = OptTransMix().draw(None, inputs, None, seeded(seed))
        wanted = references.pairs(inputs, drawn.partners, float(drawn.lam))
        # the kernel is cut at the edges, so that even what is spread evenly bends there
        tolerance = 1e-6 if shape == (1, 1) else 0.12 * (max(values) - min(values)) + 1e-6
        mixed = drawn.mix(inputs)
        assert mixed.isfinite().all()
        torch.testing.assert_close(mixed, wanted.float(), rtol=0, atol=tolerance)
        torch.testing.assert_close(mixed.mean((2, 3)), wanted.float().mean((2, 3)), rtol=0, atol=1e-6)
