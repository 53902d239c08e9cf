"""SaliencyMix and Co-Mixup, and the saliency they look at, against loops, brute force and cases by hand."""

import itertools
import math

import pytest
import torch
from scipy import stats

import toy
from methods.shared import problem as drawn_problem
from methods.shared import same_gradients
from multimix.methods import SaliencyMix
from multimix.methods.comixup import CoMixup, _affinity, _salient_spots, _share_of_cells
from multimix.ops import saliency_peaks, static_saliency
from multimix.ops._grids import _Search, _segments, comix_masks
from toy import seeded


def loop_saliency(image, levels=None):
    """Fine-grained saliency of one image (c, h, w), pixel by pixel on integers."""
    black, white = levels or (image.min(), image.max())
    shares = (0.299, 0.587, 0.114) if len(image) == 3 else [1 / len(image)] * len(image)
    values = sum(share * channel for share, channel in zip(shares, image, strict=True))
    grey = blurred(blurred(((values - black) / (white - black) * 255 + 0.5).floor().clamp(0, 255).long()))
    on, off = torch.zeros_like(grey), torch.zeros_like(grey)
    for reach in (12, 24, 28, 48, 56, 112):
        for y, x in itertools.product(*map(range, grey.shape)):
            window = grey[max(y - reach + 1, 0) : y + reach + 1, max(x - reach + 1, 0) : x + reach + 1]
            n = window.numel() - 1
            difference = int(grey[y, x] * (n + 1) - window.sum())
            on[y, x] += max(difference, 0) // n
            off[y, x] += max(-difference, 0) // n
    return on.double() / max(int(on.max()), 1) + off.double() / max(int(off.max()), 1)


def blurred(grey):
    """Sixteenths of (1, 2, 1) times (1, 2, 1), mirrored at the edges, halves rounded up."""
    at = [torch.arange(-1, n + 1).abs() for n in grey.shape]
    rows, columns = (torch.where(p < n, p, 2 * n - 2 - p) for p, n in zip(at, grey.shape, strict=True))
    around, weights = grey[rows][:, columns].unfold(0, 3, 1).unfold(1, 3, 1), torch.tensor([1, 2, 1])
    return ((around * weights[:, None] * weights).sum((2, 3)) + 8) // 16


def spot(height, width, at):
    """Two grey images with something bright to the left of a place and something dark to its right."""
    images, (y, x) = torch.full((2, 3, height, width), 0.5), at
    images[..., y - 1 : y + 2, x - 3 : x] = 1.0
    images[..., y - 1 : y + 2, x : x + 3] = 0.0
    return images


@pytest.mark.parametrize("levels", [None, (-1.5, 2.0)])
@pytest.mark.parametrize(
    ("channels", "shape"), [(3, (6, 6)), (1, (5, 17)), (4, (16, 3)), (3, (2, 2)), (3, (15, 28)), (1, (1, 240))]
)
def test_saliency_equals_the_loop(channels, shape, levels, device):
    images = toy.batch(3, channels, *shape, dtype=torch.float64)[0]
    wanted = torch.stack([loop_saliency(image, levels) for image in images])
    for given in (images, images.float()):
        ours = static_saliency(given.to(device), levels=levels).cpu()
        torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=1e-6)
    peaks = saliency_peaks(ours)
    assert torch.equal(peaks[:, 0] * shape[1] + peaks[:, 1], ours.flatten(1).argmax(1))


@pytest.mark.parametrize("b", [1, 2, 7])
@pytest.mark.parametrize("shape", [(6, 6), (5, 9)])
def test_boxes_lie_around_the_partners_peaks(shape, b):
    """Clipped by the image; what is pasted of them is in test_mixing."""
    images = toy.batch(b, 3, *shape)[0]
    peaks = [divmod(int(loop_saliency(image.double()).argmax()), shape[1]) for image in images]
    for seed in range(6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("multimix.methods.cutmix.beta", lambda n, alpha, **_: torch.tensor([0.3]))
            drawn = SaliencyMix().draw(None, images, None, seeded(seed))
        for i, partner in enumerate(drawn.partners.tolist()):
            reach = [int(size * math.sqrt(0.7)) // 2 for size in shape]
            ends = [(max(at - r, 0), min(at + r, n)) for at, r, n in zip(peaks[partner], reach, shape, strict=True)]
            assert tuple(drawn.given["boxes"].of(i)) == (*ends[0], *ends[1])


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_size_follows_lambda(alpha):
    """Salient near the middle, so that the image does not clip boxes with a reach up to 11 of 32 pixels."""
    images, generator = spot(32, 40, at=(16, 20)), seeded(1)
    drawn = [SaliencyMix(alpha).draw(None, images, None, generator) for _ in range(300)]
    assert all(len(set(each.lam.tolist())) == 1 for each in drawn)
    reach = torch.tensor([int(each.given["boxes"].end[0, 0] - each.given["boxes"].start[0, 0]) // 2 for each in drawn])
    for k in range(12):
        wanted = stats.beta(alpha, alpha).cdf(((k + 1) / 16) ** 2)
        assert float((reach <= k).double().mean()) == pytest.approx(wanted, abs=4 * math.sqrt(0.25 / 300))


def test_constant_images_are_pasted_anywhere():
    images, generator = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8).contiguous(), seeded(2)
    centres = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimix.methods.cutmix.beta", lambda n, alpha, **_: torch.tensor([0.92]))
        for _ in range(300):
            drawn = SaliencyMix().draw(None, images, None, generator)
            bottom, right = drawn.given["boxes"].end  # one pixel to either side, clipped at the top and left only
            centres += [(int(y) - 1, int(x) - 1) for y, x in zip(bottom, right, strict=True)]
            mixed = drawn.mix(images).mean((1, 2, 3))
            torch.testing.assert_close(mixed, drawn.mix_targets(torch.arange(4.0).unsqueeze(1))[:, 0])
    for axis in zip(*centres, strict=True):
        counts = torch.bincount(torch.tensor(axis), minlength=8)
        assert len(counts) == 8
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_other_steps_are_plain(probability):
    images, generator = spot(12, 12, at=(6, 6)), seeded(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimix.methods.cutmix.beta", lambda n, alpha, **_: torch.tensor([0.5]))
        method = SaliencyMix(prob=probability)
        plain = [bool((method.draw(None, images, None, generator).lam == 1).all()) for _ in range(400)]
    assert sum(plain) / 400 == pytest.approx(1 - probability, abs=4 * math.sqrt(probability * (1 - probability) / 400))


SETTINGS = {"beta": 0.32, "gamma": 1.0, "tau": 0.83}


def objective(masks, costs, affinity, *, beta, gamma, tau):
    """What Co-Mixup minimises, of masks (n, h, w, b), as the paper writes it."""
    r = masks.shape[1] * masks.shape[2]
    smooth = masks.diff(dim=1).square().sum() + masks.diff(dim=2).square().sum()
    used = masks.sum((1, 2))
    pressure = (used.sum(0) - used) @ affinity.T
    crowding = (used * pressure * (pressure > tau * r)).sum()
    return float((masks * costs.permute(1, 2, 0)).sum() + beta / (2 * r) * smooth + gamma / r * crowding)


def problem(b: int, side: int, seed: int = 0):
    """Return costs, affinity and a start of a part of b images."""
    cells = torch.rand(b, side, side, generator=seeded(seed), dtype=torch.float64)
    affinity = _affinity(torch.randint(9, (b, 2), generator=seeded(seed + 1)), 0.001)
    start = torch.randint(b, (b, side, side), generator=seeded(seed + 2))
    return -cells / cells.sum((1, 2), keepdim=True), affinity, start


def values(b: int) -> list[list[float]]:
    """What a cell can be: an input, or the even blend of two."""
    pure = [[float(j == k) for j in range(b)] for k in range(b)]
    return pure + [[(p + q) / 2 for p, q in zip(u, v, strict=True)] for u, v in itertools.combinations(pure, 2)]


def test_two_images_on_two_by_two_cells_reach_the_least_objective():
    """Brute force over all 3^8 masks, on 12 problems: never below it, at it in most, the mean gap small."""
    every = torch.tensor(list(itertools.product(values(2), repeat=4)), dtype=torch.float64).reshape(-1, 2, 2, 2)
    pairs = torch.cartesian_prod(torch.arange(len(every)), torch.arange(len(every)))
    totals = every.sum((1, 2))
    gaps = []
    for seed in range(12):
        costs, affinity, start = problem(2, 2, seed)
        single = [objective(z[None], costs, affinity, beta=0.32, gamma=0, tau=0) for z in every]
        single = torch.tensor(single, dtype=torch.float64)
        first, second = totals[pairs[:, 0]], totals[pairs[:, 1]]
        press_first, press_second = second @ affinity.T, first @ affinity.T
        sides = ((first, press_first), (second, press_second))
        crowd = sum((used * press * (press > 3.32)).sum(1) for used, press in sides)
        least = float((single[pairs[:, 0]] + single[pairs[:, 1]] + crowd / 4).min())
        masks = comix_masks(costs, affinity, start, **SETTINGS)
        gaps.append(objective(masks, costs, affinity, **SETTINGS) - least)
    assert min(gaps) > -1e-9
    assert sum(gap < 2e-3 for gap in gaps) >= 9
    assert sum(gaps) / len(gaps) < 0.1


@pytest.mark.parametrize("pairs", [[], [(0, 1), (0, 2), (1, 2)]])
def test_the_energies_of_moves_are_differences_of_the_objective(pairs):
    """Each rectangle is moved, and the energy of one output taken cell by cell before and after."""
    costs, affinity, start = problem(3, 3)
    search = _Search(costs, affinity, start, 0.32, 1.0, 0.83)
    z = search.masks[0]
    z[0] = [0.5, 0.5, 0.0]
    z[4] = [0.5, 0.0, 0.5]
    pure, blends = search._energies(z, search.costs, search.moves.inside @ search.costs, pairs)

    def energy(mask) -> float:
        bonus = 5e-4 * sum(max(row) < 0.75 for row in mask.tolist())
        return objective(mask.reshape(1, 3, 3, 3), costs, affinity, beta=0.32, gamma=0, tau=0) - bonus

    now = torch.from_numpy(z)
    options = [(pure, values(3)[:3])] + ([(blends, values(3)[3:])] if pairs else [])
    for table, labels in options:
        for rectangle, (label, value) in itertools.product(range(len(table)), enumerate(labels)):
            moved = now.clone()
            moved[torch.from_numpy(search.moves.inside[rectangle] > 0)] = torch.tensor(value, dtype=torch.float64)
            assert table[rectangle, label] == pytest.approx(energy(moved) - energy(now), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_one_output_alone_is_nearly_exact(seed):
    """A Potts problem of 2 x 3 cells and 3 inputs against all 3^6 labellings."""
    costs = -torch.rand(3, 2, 3, generator=seeded(seed), dtype=torch.float64)
    search = _Search(costs, torch.eye(3).double(), torch.zeros(1, 2, 3).long(), 0.8, 0.0, 0.83)
    search.turn(0, blend=False)
    weights, eye = {"beta": 0.8, "gamma": 0, "tau": 0}, torch.eye(3).double()
    reached = objective(torch.from_numpy(search.masks).reshape(1, 2, 3, 3), costs, eye, **weights)
    everything = torch.eye(3).double()[torch.cartesian_prod(*[torch.arange(3)] * 6)].reshape(-1, 1, 2, 3, 3)
    least = min(objective(z, costs, eye, **weights) for z in everything)
    assert least - 1e-9 <= reached <= least + 0.02


def test_after_settling_nothing_is_crowded():
    costs, affinity, start = problem(20, 4, seed=3)
    left = []
    for settle in (False, True):
        masks = comix_masks(costs, affinity, start, **SETTINGS, settle=settle)
        free = objective(masks, costs, affinity, beta=0.32, gamma=0.0, tau=0.83)
        left.append(objective(masks, costs, affinity, **SETTINGS) - free)
    assert left[0] > 1
    assert left[1] == pytest.approx(0, abs=1e-12)


def test_twins_are_pushed_apart():
    costs, affinity, _ = problem(4, 2)
    start = torch.tensor([[[0, 1], [1, 1]], [[1, 0], [0, 0]], [[2, 2], [2, 2]], [[2, 2], [2, 2]]])
    search = _Search(costs, affinity, start, 0.32, 1.0, 0.83)
    search.push_apart()
    wanted = torch.zeros(4, 4, dtype=torch.float64)
    wanted[0, 0] = wanted[1, 1] = 1  # the last two use a single input: left as they are
    assert torch.equal(torch.from_numpy(search.pushed), wanted)


@pytest.mark.parametrize(("h", "w", "grid"), [(8, 8, 4), (6, 9, 4), (3, 10, 4), (1, 1, 4), (7, 5, 2)])
def test_cells_are_means_of_their_own_pixels(h, w, grid):
    saliency = torch.rand(2, h, w, generator=seeded())
    rows, columns = min(grid, h), min(grid, w)
    wanted = torch.zeros(2, rows, columns)
    for a, c in itertools.product(range(rows), range(columns)):
        ys, xs = ([p for p in range(s) if p * n // s == at] for s, n, at in ((h, rows, a), (w, columns, c)))
        wanted[:, a, c] = torch.stack([saliency[:, y, x] for y in ys for x in xs]).mean(0)
    torch.testing.assert_close(_share_of_cells(saliency, grid), wanted / wanted.sum((1, 2), keepdim=True))
    assert torch.equal(_share_of_cells(0 * saliency, grid), torch.full_like(wanted, 1 / wanted[0].numel()))


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
    network, inputs, given, labels = drawn_problem(7, 8, 8, soft=soft)
    method = CoMixup(clean=clean)
    drawn = method.draw(network, inputs, given, seeded())
    losses = method(network, inputs, given, generator=seeded())
    mixed = -(drawn.mix_targets(labels) * network(drawn.mix(inputs)).log_softmax(-1)).sum(-1).mean()
    plain = -(labels * network(inputs).log_softmax(-1)).sum(-1).mean()
    same_gradients(losses.total, mixed + clean * plain, network.parameters())


def test_the_prior_favours_what_it_draws():
    """With a heavy prior and no saliency, smoothness or crowding, every cell is the input drawn largest."""
    method = CoMixup(eta=100.0, beta=0.0, gamma=0.0)
    for largest in range(6):
        with pytest.MonkeyPatch.context() as patch:
            prior = torch.eye(6)[largest] * 0.3 + 0.1
            patch.setattr("multimix.methods.comixup.dirichlet", lambda *_, prior=prior, **__: prior[None] / prior.sum())
            assembly = method.mixing(torch.ones(6, 8, 8), seeded(largest))
        assert (assembly.chosen == largest).all()
    firsts = {int(method.mixing(torch.ones(6, 8, 8), seeded(s)).chosen[0, 0, 0, 0]) for s in range(12)}
    assert len(firsts) > 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_saliency_that_is_not_finite_counts_as_none(value):
    saliency = torch.rand(5, 8, 8, generator=seeded())
    saliency[2, 3, 3], saliency[3, 0, 0] = value, value
    expected = CoMixup().mixing(saliency.where(saliency.isfinite(), 0), seeded())
    assert torch.equal(CoMixup().mixing(saliency, seeded()).chosen, expected.chosen)


def test_outputs_take_their_turns_and_blend_what_they_use():
    """No blend in the first of four rounds; twins are pushed apart before the last; each round visits every output."""
    costs, affinity, _ = problem(4, 2)
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Search, "push_apart", lambda self: said.append("apart"))
        patch.setattr(_Search, "_descend", lambda self, z, costs, pairs: said.append(pairs) or True)
        start = torch.tensor([[[0, 0], [0, 0]], [[2, 2], [1, 2]], [[3, 1], [1, 0]], [[3, 1], [2, 0]]])
        _Search(costs, affinity, start, **SETTINGS).run(4)
    blends = [[], [(2, 1)], [(1, 0), (1, 3), (0, 3)], [(0, 1), (0, 2), (1, 2)]]
    assert said == [[]] * 4 + blends * 2 + ["apart"] + blends


def test_a_search_moves_as_often_as_it_may():
    costs = torch.tensor([[[0.0, 0.0]], [[-1.0, 0.0]], [[0.0, -2.0]]], dtype=torch.float64)
    for most, reached in ((0, [[1, 0, 0], [1, 0, 0]]), (1, [[0, 1, 0], [0, 0, 1]])):
        search = _Search(costs, torch.eye(3).double(), torch.zeros(1, 1, 2).long(), 0.0, 0.0, 0.83)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("multimix.ops._grids._MOVES_PER_CELL", most)
            search.turn(0, blend=False)
        assert search.masks[0].tolist() == reached


@pytest.mark.parametrize("side", [1, 3, 4, 5, 6, 9])
def test_rectangles_are_short_or_as_long_as_the_side(side):
    runs = [(a, b) for a in range(side) for b in range(a, side) if b - a + 1 <= 4 or b - a + 1 == side]
    wanted = torch.tensor([[float(a <= cell <= b) for cell in range(side)] for a, b in runs], dtype=torch.float64)
    assert torch.equal(_segments(side), wanted)
