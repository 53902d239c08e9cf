"""PuzzleMix against loops in float64 and every mask there is, given what it drew."""

import copy
import itertools
import math

import pytest
import torch
from scipy import stats
from torch.nn import functional

import toy
from multimix.methods import puzzlemix as module
from multimix.methods._images import input_gradient, saliency_of
from multimix.methods.puzzlemix import PuzzleMix, block_sizes, pool_saliency
from toy import seeded


def mean_difference(one, other, *, axis, line, block, patch, side):
    """Return the difference of two images across one border of blocks: mean over channels and patches along it."""
    along = slice(side * block, (side + 1) * block)
    means = []
    for image, start in ((one, line - patch), (other, line)):
        image = image if axis == 0 else image.mT
        means.append(image[:, start : start + patch, along].unflatten(2, (-1, patch)).mean((1, 3)))
    return float((means[0] - means[1]).abs().mean())


def tables(first, second, s1, s2, lam, block, patch, labels, *, beta, gamma, eta):
    """Return the costs of labels at cells and at pairs of neighbours, from the paper's definitions, in loops."""
    rows, columns = s1.shape
    scale, top = beta / 16 / min(rows, columns), labels - 1
    cells, pairs = {}, {}
    for y, x in itertools.product(range(rows), range(columns)):
        for a in range(labels):
            z = a / top
            prior = math.comb(top, a) * lam**a * (1 - lam) ** (top - a)
            cost = z * float(s2[y, x]) + (1 - z) * float(s1[y, x]) - eta * math.log(prior) / (rows * columns)
            cells[y, x, a] = cost
        for axis, (v, u) in enumerate(((y + 1, x), (y, x + 1))):
            if v == rows or u == columns:
                continue
            line, side = ((y + 1) * block, x) if axis == 0 else ((x + 1) * block, y)
            options = {"axis": axis, "line": line, "block": block, "patch": patch, "side": side}
            d = {
                (p, q): mean_difference((second, first)[p], (second, first)[q], **options)
                for p, q in itertools.product((0, 1), repeat=2)
            }
            for a, b in itertools.product(range(labels), repeat=2):
                # Between 0 and 1 the difference is the quadratic that is linear for equal masks.
                z, t = a / top, b / top
                edge = d[1, 0] + d[0, 1] - d[1, 1] - d[0, 0]
                own = z * (d[1, 0] + d[1, 1]) + (1 - z) * (d[0, 1] + d[0, 0])
                own += t * (d[0, 1] + d[1, 1]) + (1 - t) * (d[1, 0] + d[0, 0])
                smooth = max(1 + gamma * edge / 2, 0) * (z - t) ** 2
                pairs[y, x, v, u, a, b] = scale * (smooth + gamma * own / 2)
                if labels == 2 and 1 + gamma * edge / 2 > 0:  # then it is the difference itself, but for a constant
                    expected = (z - t) ** 2 + gamma * (d[a, b] + (d[1, 0] + d[0, 1]) / 2)
                    assert pairs[y, x, v, u, a, b] == pytest.approx(scale * expected)
    return cells, pairs


def energies(cells, pairs, masks, labels):
    """Return the energy of each of some masks (n, rows, columns)."""
    every, found = masks.long(), torch.zeros(len(masks), dtype=torch.float64)
    for y, x in {key[:2] for key in cells}:
        found += torch.tensor([cells[y, x, a] for a in range(labels)], dtype=torch.float64)[every[:, y, x]]
    for y, x, v, u in {key[:4] for key in pairs}:
        table = [[pairs[y, x, v, u, a, b] for b in range(labels)] for a in range(labels)]
        found += torch.tensor(table, dtype=torch.float64)[every[:, y, x], every[:, v, u]]
    return found


def finite_differences(network, inputs, probabilities, step=1e-5):
    """Return the gradient of each example's cross-entropy on its pixels, by central differences."""
    gradient = torch.zeros(inputs.shape, dtype=torch.float64)
    for pixel in itertools.product(*(range(n) for n in inputs.shape[1:])):
        losses = []
        for sign in (1, -1):
            moved = inputs.double().clone()
            moved[(slice(None), *pixel)] += sign * step
            losses.append(-(probabilities.double() * network(moved).detach().log_softmax(-1)).sum(-1))
        gradient[(slice(None), *pixel)] = (losses[0] - losses[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize(
    ("labels", "size", "patch", "shape"),
    [(3, 2, 4, (6, 6)), (2, 4, 2, (12, 12)), (3, 4, 1, (8, 12)), (4, 6, 4, (12, 12))],
)
@pytest.mark.parametrize(("lam", "gamma"), [(0.2, 0.5), (0.55, 0.5), (0.4, 20.0)])  # where a change of mask would pay
def test_no_mask_has_less_energy(labels, size, patch, shape, lam, gamma):
    network, (inputs, targets) = toy.images(), toy.batch(3, 3, *shape)
    method = PuzzleMix(labels=labels, patch=patch, grids=(min(shape) // size,), transport=False, beta=2.4, gamma=gamma)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, "beta", lambda n, alpha, **_: torch.full((n,), lam))
        drawn = method.draw(network, inputs, targets, seeded())
    low, high = inputs.double().amin((0, 2, 3)), inputs.double().amax((0, 2, 3))
    pixels = (inputs.double() - low.view(-1, 1, 1)) / (high - low).view(-1, 1, 1)
    saliency = pool_saliency(saliency_of(input_gradient(network, inputs, targets)), size).double()
    rows, columns = shape[0] // size, shape[1] // size
    border = next(d for d in (4, 3, 2, 1) if d <= patch and size % d == 0)
    every = torch.cartesian_prod(*[torch.arange(labels)] * (rows * columns)).view(-1, rows, columns)
    for i, j in enumerate(drawn.partners.tolist()):
        cells, pairs = tables(
            pixels[i], pixels[j], saliency[i], saliency[j], lam, size, border, labels, beta=2.4, gamma=gamma, eta=0.2
        )
        found = drawn.given["mask"][i, ::size, ::size] * (labels - 1)
        assert torch.equal(found, found.round())
        least = energies(cells, pairs, every, labels).min()
        assert energies(cells, pairs, found[None], labels).item() == pytest.approx(float(least), abs=1e-6)


def test_a_blocks_share_of_the_saliency():
    saliency = torch.rand(2, 4, 6, generator=seeded())
    blocks = saliency.unflatten(1, (2, 2)).unflatten(3, (3, 2)).sum((2, 4))
    torch.testing.assert_close(pool_saliency(saliency, 2), blocks / saliency.sum((1, 2), keepdim=True))
    assert torch.equal(pool_saliency(torch.zeros(1, 4, 6), 2), torch.full((1, 2, 3), 1 / 6))


@pytest.mark.parametrize("shape", [(16, 16), (8, 24)])
@pytest.mark.parametrize("settings", [{"transport_size": None}, {"transport_size": 2}, {"transport": False}], ids=str)
def test_pixels_come_from_where_the_draw_says(shape, settings):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, *shape)
    in_place, rows = torch.arange(shape[0] * shape[1]).view(1, *shape).expand(5, -1, -1), toy.one_hot(targets)
    for seed in range(2):
        drawn = PuzzleMix(**settings).draw(network, inputs, targets, seeded(seed))
        sources = drawn.given["source"] or (in_place, in_place)
        assert (drawn.given["source"] is None) == ("transport" in settings)
        mixed, soft = drawn.mix(inputs), drawn.mix_targets(rows)
        for i, j in enumerate(drawn.partners.tolist()):
            first, second = (inputs[k].flatten(1)[:, source[i]] for k, source in zip((i, j), sources, strict=True))
            mask = drawn.given["mask"][i]
            torch.testing.assert_close(mixed[i], mask * first + (1 - mask) * second)
            torch.testing.assert_close(soft[i], mask.mean() * rows[i] + (1 - mask.mean()) * rows[j])


def test_blocks_move_whole_and_none_is_seen_twice():
    network, (inputs, targets) = toy.images(), toy.batch(6, 3, 16, 16)
    moved, pixels = 0, torch.arange(256).view(16, 16)
    for seed in range(20):
        method = PuzzleMix(labels=2, beta=0.1, grids=(4,), transport_size=2, transport_eps=0.1)
        drawn = method.draw(network, inputs, targets, seeded(seed))
        for source, seen in zip(drawn.given["source"], (drawn.given["mask"] > 0, drawn.given["mask"] < 1), strict=True):
            for shown in (source[i][seen[i]] for i in range(6)):
                assert len(shown.unique()) == len(shown)
            corners = source[:, ::2, ::2]
            assert bool((corners // 16 % 2 == 0).all() and (corners % 2 == 0).all())
            whole = corners.repeat_interleave(2, 1).repeat_interleave(2, 2)
            assert torch.equal(source, whole + torch.tensor([[0, 1], [16, 17]]).repeat(8, 8))
            moved += int((corners != pixels[::2, ::2]).sum())
    assert moved > 20


def test_what_is_drawn():
    network, (inputs, targets) = toy.images(), toy.batch(2, 3, 16, 16)
    seen = []

    def cut(self, pixels, shares, partners, lam):
        seen.append((float(lam), 16 // shares.shape[1], tuple(partners.tolist())))
        return torch.ones_like(shares)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PuzzleMix, "_cut", cut)
        patch.setattr(module, "input_gradient", lambda network, inputs, targets: inputs)
        generator = seeded()
        for _ in range(500):
            PuzzleMix(alpha=2.0, transport=False).draw(network, inputs, targets, generator)
    lams, sizes, partners = zip(*seen, strict=True)
    assert stats.kstest(lams, stats.beta(2, 2).cdf).pvalue > 1e-3
    assert stats.chisquare([sizes.count(size) for size in (1, 2, 4, 8)]).pvalue > 1e-3
    assert stats.binomtest(partners.count((1, 0)), 500).pvalue > 1e-3


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((32, 32), [16, 8, 4, 2]),
        ((24, 36), [12, 6, 3]),
        ((15, 15), [1]),
        ((225, 225), [15]),
        ((31, 31), [31]),
        ((1, 1), [1]),
        ((30, 20), [10, 5]),
    ],
)
def test_blocks_tile_the_image(shape, sizes):
    assert block_sizes(*shape, (2, 4, 8, 16)) == sizes


def test_saliency_is_the_root_mean_square_gradient():
    network, (inputs, targets) = toy.images(), toy.batch(4, 3, 5, 4)
    twin = copy.deepcopy(network).double().eval()
    soft = toy.soft_targets(4, 5)
    for labels, probabilities in ((targets, toy.one_hot(targets)), (soft, soft)):
        gradient = finite_differences(twin, inputs, probabilities)
        expected = ((gradient[:, 0] ** 2 + gradient[:, 1] ** 2 + gradient[:, 2] ** 2) / 3) ** 0.5
        with torch.no_grad():
            found = saliency_of(input_gradient(network.train(), inputs, labels))
        assert (found.dtype, found.requires_grad, inputs.requires_grad) == (torch.float32, False, False)
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-7)
        alone = torch.cat([input_gradient(network, inputs[i : i + 1], labels[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(saliency_of(alone), found, rtol=1e-4, atol=1e-7)


def test_perturbations_follow_the_gradient_within_their_bounds():
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 8, 8)
    low, high = inputs.amin((0, 2, 3)).view(-1, 1, 1), inputs.amax((0, 2, 3)).view(-1, 1, 1)
    drawn = PuzzleMix(adversarial=1.0).draw(network, inputs, targets, seeded())
    noise, same = drawn.given["noise"]
    assert noise is same
    assert (noise.abs() <= (high - low) * 10 / 255 + 1e-6).all()
    # At most one step away from a random start: where it is at the bound of the step, it has the gradient's sign.
    gradient = input_gradient(network, inputs, targets)
    at_bound = noise.abs() >= 0.999 * noise.abs().amax((0, 2, 3), keepdim=True)
    agree = (noise.sign() == gradient.sign())[at_bound].float().mean()
    assert at_bound.sum() > 100
    assert agree > 0.95
    before = functional.cross_entropy(network.eval()(inputs), targets)
    assert functional.cross_entropy(network(inputs + noise), targets) > before
    drawn = PuzzleMix(adversarial=1.0, adversarial_eps=80.0).draw(network, inputs, targets, seeded())
    mixed = drawn.mix(inputs)
    assert ((mixed >= low - 1e-5) & (mixed <= high + 1e-5)).all()
    drawn.given["noise"] = (None, None)
    assert not torch.allclose(mixed, drawn.mix(inputs))


def test_perturbations_start_anywhere_within_their_bounds():
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 8, 8)
    low, high = (edge.view(-1, 1, 1) for edge in (inputs.amin((0, 2, 3)), inputs.amax((0, 2, 3))))
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "input_gradient", lambda network, pixels, targets: seen.append(pixels) or 0 * pixels)
        drawn = PuzzleMix(adversarial=1.0, adversarial_eps=80.0).draw(network, inputs, targets, seeded())
    start, largest = seen[0] - inputs, (high - low) * 80 / 255
    assert ((seen[0] >= low - 1e-6) & (seen[0] <= high + 1e-6)).all()
    free = (inputs - largest > low) & (inputs + largest < high)
    assert stats.kstest((start / largest)[free].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    share = drawn.given["noise"][0][free] / start[free]  # without a gradient, a part of the start is left
    assert 0 < share[0] < 1
    torch.testing.assert_close(share, share[0].expand_as(share), rtol=1e-3, atol=1e-4)


def test_how_often_images_are_perturbed():
    network, (inputs, targets) = toy.images(), toy.batch(2, 3, 2, 2)
    scale = module.Scale(inputs.amin((0, 2, 3)).view(-1, 1, 1), inputs.amax((0, 2, 3)).view(-1, 1, 1))
    generator, method, seen = seeded(), PuzzleMix(adversarial=0.3), []
    for _ in range(200):
        _, noise = method._look(network, inputs, targets, scale, generator)
        seen.append(tuple(n is not None for n in noise))
    for hits, probability in ((0, 0.3), (1, 0.3), (None, 0.09)):
        count = sum(all(one) if hits is None else one[hits] for one in seen)
        assert stats.binomtest(count, 200, probability).pvalue > 1e-3


def test_the_clean_loss_is_added_and_leaves_the_statistics_to_the_mixed_images():
    network, (inputs, targets) = toy.images().train(), toy.batch(6, 3, 8, 8)
    twin, third = copy.deepcopy(network), copy.deepcopy(network)
    mixed, _ = PuzzleMix().mix(inputs, targets, num_classes=5, network=third, generator=seeded())
    assert all(torch.equal(*pair) for pair in zip(network.buffers(), third.buffers(), strict=True))
    plain = PuzzleMix()(network, inputs, targets, generator=seeded())
    both = PuzzleMix(clean=0.7)(twin, inputs, targets, generator=seeded())
    clean = functional.cross_entropy(copy.deepcopy(third)(inputs), targets)
    torch.testing.assert_close(both.terms["clean"], clean.detach())
    torch.testing.assert_close(both.total, plain.total + 0.7 * clean)
    third(mixed)
    assert all(torch.equal(*pair) for pair in zip(third.buffers(), twin.buffers(), strict=True))
    both.total.backward()
    assert all(p.grad.isfinite().all() for p in twin.parameters())


@pytest.mark.bad_input
def test_a_missing_network_is_refused():
    with pytest.raises(ValueError, match="network must be given: PuzzleMix"):
        PuzzleMix().mix(*toy.batch(7, 3, 4, 4), num_classes=5)
