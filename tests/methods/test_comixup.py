"""Co-Mixup against loops, brute force and cases worked by hand."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods._saliency import input_saliency
from multimix.methods.comixup import CoMixup, _affinity, _salient_spots, _share_of_cells
from multimix.ops._comix import _Search, comix_masks, comix_objective
from multimix.protocols import Teacher

SETTINGS = {"beta": 0.32, "gamma": 1.0, "tau": 0.83}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(b: int, side: int, seed: int = 0):
    """Return costs, affinity and a start of a part of b images."""
    cells = torch.rand(b, side, side, generator=seeded(seed), dtype=torch.float64)
    affinity = _affinity(torch.randint(9, (b, 2), generator=seeded(seed + 1)), 0.001)
    start = torch.randint(b, (b, side, side), generator=seeded(seed + 2))
    return -cells / cells.sum((1, 2), keepdim=True), affinity, start


def plain_objective(masks, costs, affinity, beta, gamma, tau) -> float:
    """The objective cell by cell, on Python floats."""
    z, c, a = masks.tolist(), costs.tolist(), affinity.tolist()
    n, h, w, b = masks.shape
    total = 0.0
    for i, y, x in itertools.product(range(n), range(h), range(w)):
        total += sum(c[k][y][x] * z[i][y][x][k] for k in range(b))
        for there in ((y + 1, x), (y, x + 1)):
            if there[0] < h and there[1] < w:
                other = z[i][there[0]][there[1]]
                total += beta / (h * w) / 2 * sum((p - q) ** 2 for p, q in zip(z[i][y][x], other, strict=True))
    used = [[sum(z[i][y][x][k] for y in range(h) for x in range(w)) for k in range(b)] for i in range(n)]
    for i, k in itertools.product(range(n), range(b)):
        pressure = sum(a[k][m] * used[j][m] for j in range(n) if j != i for m in range(b))
        if pressure > tau * h * w:
            total += gamma / (h * w) * used[i][k] * pressure
    return total


# ------------------------------------------------------------------------------------------- objective and search


@pytest.mark.parametrize("tau", [0.0, 0.4, 0.83])
@pytest.mark.parametrize(("n", "h", "w", "b"), [(3, 4, 4, 3), (4, 2, 3, 5), (1, 1, 1, 1)])
def test_the_objective_is_the_loop(n, h, w, b, tau):
    masks = torch.rand(n, h, w, b, generator=seeded(), dtype=torch.float64)
    masks /= masks.sum(-1, keepdim=True)
    costs = torch.randn(b, h, w, generator=seeded(1), dtype=torch.float64)
    affinity = torch.rand(b, b, generator=seeded(2), dtype=torch.float64)
    ours = comix_objective(masks, costs, affinity, beta=0.3, gamma=0.7, tau=tau)
    assert float(ours) == pytest.approx(plain_objective(masks, costs, affinity, 0.3, 0.7, tau), rel=1e-12)


def test_the_objective_of_a_case_worked_by_hand():
    """Two outputs of 1 x 2 cells: input 0 twice, and inputs 0 and 1."""
    masks = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]], [[[1.0, 0.0], [0.0, 1.0]]]])
    costs = torch.tensor([[[-0.7, -0.3]], [[-0.4, -0.6]]])
    saliency = -(0.7 + 0.3 + 0.7 + 0.6)
    smoothness = 0.32 / 2  # one edge between two inputs, r = 2
    crowding = 1 / 2 * (1 * 2)  # the second's one cell of input 0, of which the first uses 2 > 0.83 * 2; not reverse
    ours = comix_objective(masks, costs, torch.eye(2), **SETTINGS)
    assert float(ours) == pytest.approx(saliency + smoothness + crowding, rel=1e-6)


def values(b: int) -> list[list[float]]:
    """What a cell can be: an input, or the even blend of two."""
    pure = [[float(j == k) for j in range(b)] for k in range(b)]
    return pure + [[(p + q) / 2 for p, q in zip(u, v, strict=True)] for u, v in itertools.combinations(pure, 2)]


def test_two_images_on_two_by_two_cells_reach_the_least_objective():
    """Brute force over all 3^8 masks, on 12 problems: never below it, at it in most, the mean gap small."""
    every = torch.tensor(list(itertools.product(values(2), repeat=4)), dtype=torch.float64).reshape(-1, 2, 2, 2)
    pairs = torch.cartesian_prod(torch.arange(len(every)), torch.arange(len(every)))
    used = every.sum((1, 2))
    gaps = []
    for seed in range(12):
        costs, affinity, start = problem(2, 2, seed)
        single = torch.stack([comix_objective(z[None], costs, affinity, beta=0.32, gamma=0.0, tau=0.0) for z in every])
        least = math.inf
        first, second = used[pairs[:, 0]], used[pairs[:, 1]]
        press_first, press_second = second @ affinity.T, first @ affinity.T
        crowd = (first * press_first * (press_first > 3.32)).sum(1) + (
            second * press_second * (press_second > 3.32)
        ).sum(1)
        least = float((single[pairs[:, 0]] + single[pairs[:, 1]] + crowd / 4).min())
        masks = comix_masks(costs, affinity, start, **SETTINGS)
        gaps.append(float(comix_objective(masks, costs, affinity, **SETTINGS)) - least)
    assert min(gaps) > -1e-9
    assert sum(gap < 2e-3 for gap in gaps) >= 9
    assert sum(gaps) / len(gaps) < 0.1


@pytest.mark.parametrize("first", [[], [0, 0, 1]])
def test_the_energies_of_moves_are_differences_of_the_objective(first):
    """Each rectangle is moved, and the energy of one output taken cell by cell before and after."""
    costs, affinity, start = problem(3, 3)
    search = _Search(costs, affinity, start, 0.32, 1.0, 0.83)
    z = search.masks[0]
    z[0] = [0.5, 0.5, 0.0]
    z[4] = [0.5, 0.0, 0.5]
    second = [1, 2, 2] if first else []
    pure, blends = search._energies(z, search.costs, search.moves.inside @ search.costs, first, second)

    def energy(mask) -> float:
        bonus = 5e-4 * sum(max(row) < 0.75 for row in mask.tolist())
        return plain_objective(mask.reshape(1, 3, 3, 3), costs, affinity, 0.32, 0.0, 0.0) - bonus

    now = torch.from_numpy(z)
    options = [(pure, values(3)[:3])] + ([(blends, values(3)[3:])] if first else [])
    for table, labels in options:
        for rectangle, (label, value) in itertools.product(range(len(table)), enumerate(labels)):
            moved = now.clone()
            moved[torch.from_numpy(search.moves.inside[rectangle] > 0)] = torch.tensor(value, dtype=torch.float64)
            assert table[rectangle, label] == pytest.approx(energy(moved) - energy(now), abs=1e-12)


def test_rectangles_are_all_there_once():
    inside = _Search(*problem(2, 4), 0.32, 1.0, 0.83).moves.inside
    assert inside.shape == (100, 16)  # (4 * 5 / 2) ** 2
    assert len({tuple(row) for row in inside.tolist()}) == 100


@pytest.mark.parametrize("seed", range(3))
def test_one_output_alone_is_nearly_exact(seed):
    """A Potts problem of 2 x 3 cells and 3 inputs against all 3^6 labellings."""
    costs = -torch.rand(3, 2, 3, generator=seeded(seed), dtype=torch.float64)
    search = _Search(costs, torch.eye(3).double(), torch.zeros(1, 2, 3).long(), 0.8, 0.0, 0.83)
    search.turn(0, blend=False)
    reached = plain_objective(torch.from_numpy(search.masks).reshape(1, 2, 3, 3), costs, torch.eye(3), 0.8, 0.0, 0.0)
    everything = torch.eye(3).double()[torch.cartesian_prod(*[torch.arange(3)] * 6)].reshape(-1, 1, 2, 3, 3)
    least = min(float(comix_objective(z, costs, torch.eye(3).double(), beta=0.8, gamma=0, tau=0)) for z in everything)
    assert least - 1e-9 <= reached <= least + 0.02


def test_masks_are_inputs_or_even_blends():
    costs, affinity, start = problem(20, 4)
    masks = comix_masks(costs, affinity, start, **SETTINGS)
    assert masks.shape == (20, 4, 4, 20)
    torch.testing.assert_close(masks.sum(-1), torch.ones(20, 4, 4, dtype=torch.float64))
    assert set(masks.flatten().tolist()) <= {0.0, 0.5, 1.0}
    assert len({tuple(row) for row in (masks.sum((1, 2)) > 0).tolist()}) > 10


def test_after_settling_nothing_is_crowded():
    costs, affinity, start = problem(20, 4, seed=3)
    left = []
    for settle in (False, True):
        masks = comix_masks(costs, affinity, start, **SETTINGS, settle=settle)
        free = comix_objective(masks, costs, affinity, beta=0.32, gamma=0.0, tau=0.83)
        left.append(float(comix_objective(masks, costs, affinity, **SETTINGS) - free))
    assert left[0] > 1
    assert left[1] == 0


def test_twins_are_pushed_apart():
    costs, affinity, _ = problem(4, 2)
    start = torch.tensor([[[0, 1], [1, 1]], [[1, 0], [0, 0]], [[2, 2], [2, 2]], [[2, 2], [2, 2]]])
    search = _Search(costs, affinity, start, 0.32, 1.0, 0.83)
    search.push_apart()
    wanted = torch.zeros(4, 4, dtype=torch.float64)
    wanted[0, 0] = wanted[1, 1] = 1  # the last two use a single input: left as they are
    assert torch.equal(torch.from_numpy(search.pushed), wanted)


# --------------------------------------------------------------------------------------------- saliency, cells, A


def test_saliency_is_the_gradient_and_leaves_no_trace():
    network, (inputs, targets) = toy.images().train(), toy.batch(5, 3, 6, 4)
    network(inputs).sum().backward()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [p.grad.clone() for p in network.parameters()]
    saliency = input_saliency(network, inputs, targets)
    assert saliency.shape == (5, 6, 4)
    assert saliency.dtype == torch.float32
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(p.grad, before) for p, before in zip(network.parameters(), gradients, strict=True))
    assert network.training
    assert not inputs.requires_grad
    torch.testing.assert_close(input_saliency(network, inputs, toy.one_hot(targets)), saliency)


def test_saliency_equals_finite_differences():
    network = toy.images().double().eval()
    inputs, targets = toy.batch(2, 3, 3, 4, dtype=torch.float64)
    saliency = input_saliency(network, inputs, targets)
    for i, y, x in itertools.product(range(2), range(3), range(4)):
        squares = 0.0
        for c in range(3):
            step = torch.zeros_like(inputs)
            step[i, c, y, x] = 1e-5
            up, down = (functional.cross_entropy(network(inputs + s)[i], targets[i]) for s in (step, -step))
            squares += float((up - down).detach() / 2e-5) ** 2
        assert float(saliency[i, y, x]) == pytest.approx(math.sqrt(squares / 3), rel=1e-3)


@pytest.mark.parametrize(("h", "w", "grid"), [(8, 8, 4), (6, 9, 4), (3, 10, 4), (1, 1, 4), (7, 5, 2)])
def test_cells_are_means_of_their_own_pixels(h, w, grid):
    saliency = torch.rand(2, h, w, generator=seeded())
    rows, columns = min(grid, h), min(grid, w)
    wanted = torch.zeros(2, rows, columns)
    for a, c in itertools.product(range(rows), range(columns)):
        ys, xs = ([p for p in range(s) if p * n // s == at] for s, n, at in ((h, rows, a), (w, columns, c)))
        wanted[:, a, c] = torch.stack([saliency[:, y, x] for y in ys for x in xs]).mean(0)
    torch.testing.assert_close(_share_of_cells(saliency, grid), wanted / wanted.sum((1, 2), keepdim=True))


def test_no_saliency_is_spread_evenly():
    assert torch.equal(_share_of_cells(torch.zeros(2, 8, 8), 4), torch.full((2, 4, 4), 1 / 16))


def test_inputs_compete_by_the_distance_of_their_spots():
    saliency = torch.zeros(3, 12, 10)
    saliency[0, :8, :8] = 1
    saliency[1, 4:, :8] = 1
    saliency[2, :8, 2:] = 1
    spots = _salient_spots(saliency)
    assert spots.tolist() == [[0, 0], [4, 0], [0, 2]]
    distance = torch.tensor([[0.0, 4, 2], [4, 0, 6], [2, 6, 0]]).double()
    wanted = 0.9 * torch.eye(3).double() + 0.1 * distance / 24 * 3
    torch.testing.assert_close(_affinity(spots, 0.1), wanted)
    torch.testing.assert_close(_affinity(spots[[0, 0]], 0.1), 0.9 * torch.eye(2).double())


# ------------------------------------------------------------------------------------------------------ the method


@pytest.mark.parametrize(("h", "w"), [(8, 8), (6, 9), (2, 3)])
@pytest.mark.parametrize("b", [1, 2, 7, 23])
def test_images_and_targets_are_assembled_pixel_by_pixel(b, h, w):
    """Targets weigh the share of cells; parts do not mix with one another."""
    inputs, targets = toy.batch(b, 3, h, w)
    assembly = CoMixup().mixing(torch.rand(b, h, w, generator=seeded(1)), seeded())
    rows, columns = assembly.chosen.shape[2:]
    mixed, soft = torch.zeros_like(inputs), torch.zeros(b, 5)
    for i in range(b):
        for y, x in itertools.product(range(h), range(w)):
            for k in assembly.chosen[:, i, y * rows // h, x * columns // w].tolist():
                assert k // 20 == i // 20
                mixed[i, :, y, x] += inputs[k, :, y, x] / 2
        for k in assembly.chosen[:, i].flatten().tolist():
            soft[i, targets[k]] += 1 / (2 * rows * columns)
    torch.testing.assert_close(assembly.mix(inputs), mixed)
    torch.testing.assert_close(assembly.mix_targets(toy.one_hot(targets)), soft)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("clean", [0.0, 0.7])
def test_the_loss_is_that_of_the_mixed_and_of_the_plain_images(clean, soft):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(7, 3, 8, 8, dtype=torch.float64)
    labels = toy.soft_targets(7, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)
    method = CoMixup(clean=clean)
    given = labels if soft else targets
    drawn = method.draw(network, inputs, given, seeded())
    losses = method(network, inputs, given, generator=seeded())
    mixed = -(drawn.mix_targets(labels) * network(drawn.mix(inputs)).log_softmax(-1)).sum(-1).mean()
    plain = -(labels * network(inputs).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(losses.total, mixed + clean * plain)
    parameters = list(network.parameters())
    ours = torch.autograd.grad(losses.total, parameters)
    for mine, wanted in zip(ours, torch.autograd.grad(mixed + clean * plain, parameters), strict=True):
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("clean", [0.0, 1.0])
def test_running_statistics_follow_the_mixed_images_once(clean):
    network, (inputs, targets) = toy.images().train(), toy.batch(7, 3, 8, 8)
    CoMixup(clean=clean)(network, inputs, targets, generator=seeded()).total.backward()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 1]
    hidden = network.blocks[1][0](network.seen[-1])
    torch.testing.assert_close(norms[0].running_mean, 0.1 * hidden.mean((0, 2, 3)))
    assert len(network.seen) == 2


def test_a_teacher_joins_on_the_mixed_images():
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    inputs, targets = toy.batch(7, 3, 8, 8)
    other = toy.batch(7, 3, 8, 8, seed=5)[0]
    drawn = CoMixup().draw(student, inputs, targets, seeded())
    logits = student(drawn.mix(inputs))
    labels = functional.cross_entropy(logits, drawn.mix_targets(toy.one_hot(targets)))
    taught = functional.cross_entropy(logits, teacher(drawn.mix(other)).detach().softmax(-1))
    plain = functional.cross_entropy(student(inputs), targets)
    ours = CoMixup()(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3))
    torch.testing.assert_close(ours.total, 0.3 * labels + 0.7 * taught + plain)
    assert set(ours.terms) == {"labels", "teacher", "clean"}


def test_every_input_is_as_likely_as_any_other():
    """Without saliency nothing but the prior and the start decides."""
    generator, counts = seeded(), torch.zeros(4)
    for _ in range(60):
        counts += CoMixup(grid=2).mixing(torch.zeros(4, 8, 8), generator).mix_targets(torch.eye(4)).sum(0)
    assert (counts / 60).sub(1).abs().max() < 0.35
    assert (counts / 60).sum() == pytest.approx(4)


def test_the_prior_favours_what_it_draws():
    """With a heavy prior and no saliency, smoothness or crowding, every cell is the input drawn largest."""
    method = CoMixup(eta=100.0, beta=0.0, gamma=0.0)
    for seed in range(5):
        assembly = method.mixing(torch.ones(6, 8, 8), seeded(seed))
        assert len(set(assembly.chosen.flatten().tolist())) == 1
    firsts = {int(method.mixing(torch.ones(6, 8, 8), seeded(s)).chosen[0, 0, 0, 0]) for s in range(12)}
    assert len(firsts) > 2


def test_images_without_saliency_and_one_class():
    network = toy.images().train()
    losses = CoMixup()(network, torch.zeros(7, 3, 8, 8), torch.zeros(7, dtype=torch.long), generator=seeded())
    losses.total.backward()
    assert losses.total.isfinite()


def test_saliency_that_is_not_finite_ends_all_the_same():
    saliency = torch.rand(5, 8, 8, generator=seeded())
    saliency[2, 3, 3], saliency[3, 0, 0] = float("nan"), float("inf")
    assert CoMixup().mixing(saliency, seeded()).mix_targets(torch.eye(5)).isfinite().all()


@pytest.mark.parametrize("clean", [0.0, 1.0])
def test_bfloat16(clean):
    network, (inputs, targets) = toy.images().train(), toy.batch(7, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        losses = CoMixup(clean=clean)(network, inputs, targets, generator=seeded())
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in network.parameters())
    network = toy.images().to(torch.bfloat16)
    assert CoMixup(clean=clean)(network, inputs.bfloat16(), targets, generator=seeded()).total.isfinite()


@pytest.mark.parametrize("wrap", [SelfDistilled, lambda method: Alternate((method, ERM()))])
def test_it_composes(wrap):
    network, (inputs, targets) = toy.images().train(), toy.batch(7, 3, 8, 8)
    method = wrap(CoMixup())
    for seed in range(3):
        method(network, inputs, targets, generator=seeded(seed)).total.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_data_can_be_had_alone():
    network, (inputs, targets) = toy.images().train(), toy.batch(7, 3, 8, 8)
    mixed, soft = CoMixup().mix(inputs, targets, num_classes=5, network=network, generator=seeded())
    drawn = CoMixup().draw(network, inputs, targets, seeded())
    assert torch.equal(mixed, drawn.mix(inputs))
    assert torch.equal(soft, drawn.mix_targets(toy.one_hot(targets)))
    torch.testing.assert_close(soft.sum(1), torch.ones(7))


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.bad_input
def test_without_a_network_there_is_no_saliency():
    with pytest.raises(ValueError, match="network must be given: CoMixup"):
        CoMixup().mix(*toy.batch(3, 3, 8, 8), num_classes=5)


@pytest.mark.bad_input
@pytest.mark.parametrize("clean", [0.0, 1.0])
def test_what_is_no_image_is_refused(clean):
    with pytest.raises(ValueError, match=r"inputs must be images of shape \(b, c, h, w\) for Co-Mixup, got \(7, 8\)"):
        CoMixup(clean=clean)(toy.vectors(), *toy.batch(7, 8))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("alpha", 0.0, "alpha must be finite and greater than 0"),
        *[(name, -1.0, f"{name} must be finite and at least 0, got -1") for name in ("beta", "gamma", "tau", "eta")],
        ("clean", float("nan"), "clean must be finite and at least 0, got nan"),
        ("omega", 1.5, r"omega must lie in \[0, 1\], got 1.5"),
        *[(name, 0, f"{name} must be a whole number of at least 1") for name in ("grid", "part", "iterations")],
        ("grid", 2.5, "grid must be a whole number of at least 1, got 2.5"),
        ("part", True, "part must be a whole number of at least 1, got True"),
    ],
)
def test_impossible_settings_are_refused(setting, value, message):
    with pytest.raises(ValueError, match=message):
        CoMixup(**{setting: value})
