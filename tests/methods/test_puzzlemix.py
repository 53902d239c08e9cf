"""PuzzleMix against loops in float64 and every mask there is, given what it drew."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch.nn import functional

import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods import puzzlemix as module
from multimix.methods._puzzle import block_sizes, pool_saliency
from multimix.methods._saliency import input_saliency, kept_statistics
from multimix.methods.puzzlemix import PuzzleMix
from multimix.protocols import Teacher


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fix(patch, lam):
    patch.setattr(module, "beta", lambda n, alpha, **_: torch.full((n,), lam))


# -------------------------------------------------------------------------------------------------------- the energy


def mean_difference(one, other, *, axis, line, block, patch, side):
    """Return the difference of two images across one border of blocks: mean over channels and patches along it."""
    size = patch
    total = 0.0
    for p in range(block // size):
        for c in range(one.shape[0]):
            means = []
            for image, start in ((one, line - size), (other, line)):
                value = 0.0
                for u, v in itertools.product(range(size), repeat=2):
                    across, along = start + u, side * block + p * size + v
                    value += float(image[c, across, along] if axis == 0 else image[c, along, across])
                means.append(value / size**2)
            total += abs(means[0] - means[1])
    return total / one.shape[0] / (block // size)


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


def total(cells, pairs, labels):
    own = sum(cells[y, x, int(labels[y, x])] for y, x in {key[:2] for key in cells})
    return own + sum(
        pairs[y, x, v, u, int(labels[y, x]), int(labels[v, u])] for y, x, v, u in {key[:4] for key in pairs}
    )


def best(cells, pairs, labels, rows, columns):
    every = torch.tensor(list(itertools.product(range(labels), repeat=rows * columns))).view(-1, rows, columns)
    energies = torch.zeros(len(every), dtype=torch.float64)
    for y, x in {key[:2] for key in cells}:
        energies += torch.tensor([cells[y, x, a] for a in range(labels)], dtype=torch.float64)[every[:, y, x]]
    for y, x, v, u in {key[:4] for key in pairs}:
        table = [[pairs[y, x, v, u, a, b] for b in range(labels)] for a in range(labels)]
        energies += torch.tensor(table, dtype=torch.float64)[every[:, y, x], every[:, v, u]]
    return float(energies.min())


@pytest.mark.parametrize(
    ("labels", "size", "patch", "shape"),
    [(3, 2, 4, (6, 6)), (2, 4, 2, (12, 12)), (3, 4, 1, (8, 12)), (4, 6, 4, (12, 12))],
)
@pytest.mark.parametrize("lam", [0.2, 0.55])
def test_no_mask_has_less_energy(labels, size, patch, shape, lam):
    network, (inputs, targets) = toy.images(), toy.batch(3, 3, *shape)
    method = PuzzleMix(labels=labels, patch=patch, grids=(min(shape) // size,), transport=False, beta=2.4)
    with pytest.MonkeyPatch.context() as monkeypatch:
        fix(monkeypatch, lam)
        drawn = method.draw(network, inputs, targets, seeded())
    low, high = inputs.double().amin((0, 2, 3)), inputs.double().amax((0, 2, 3))
    pixels = (inputs.double() - low.view(-1, 1, 1)) / (high - low).view(-1, 1, 1)
    saliency = pool_saliency(input_saliency(network, inputs, targets), size).double()
    rows, columns = shape[0] // size, shape[1] // size
    border = next(d for d in (4, 3, 2, 1) if d <= patch and size % d == 0)
    for i, j in enumerate(drawn.partners.tolist()):
        cells, pairs = tables(
            pixels[i], pixels[j], saliency[i], saliency[j], lam, size, border, labels, beta=2.4, gamma=0.5, eta=0.2
        )
        found = drawn.mask[i, ::size, ::size] * (labels - 1)
        assert torch.equal(found, found.round())
        assert total(cells, pairs, found) == pytest.approx(best(cells, pairs, labels, rows, columns), abs=1e-6)


def test_saliency_is_shared_among_blocks():
    saliency = torch.rand(2, 4, 6, generator=seeded())
    shares = pool_saliency(saliency, 2)
    for i, y, x in itertools.product(range(2), range(2), range(3)):
        block = sum(float(saliency[i, 2 * y + u, 2 * x + v]) for u, v in itertools.product(range(2), repeat=2))
        assert float(shares[i, y, x]) == pytest.approx(block / float(saliency[i].sum()))
    assert torch.equal(pool_saliency(torch.zeros(1, 4, 6), 2), torch.full((1, 2, 3), 1 / 6))


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


# ------------------------------------------------------------------------------------------------------- mixed images


@pytest.mark.parametrize("shape", [(16, 16), (8, 24)])
@pytest.mark.parametrize("size", [None, 2])
def test_pixels_come_from_where_the_draw_says(shape, size):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, *shape)
    for seed in range(2):
        drawn = PuzzleMix(transport_size=size).draw(network, inputs, targets, seeded(seed))
        mixed, soft = drawn.mix(inputs), drawn.mix_targets(toy.one_hot(targets))
        expected = torch.zeros_like(mixed)
        for i, j in enumerate(drawn.partners.tolist()):
            share = 0.0
            for y, x in itertools.product(range(shape[0]), range(shape[1])):
                z = float(drawn.mask[i, y, x])
                first, second = (int(source[i, y, x]) for source in drawn.source)
                one = inputs[i, :, first // shape[1], first % shape[1]]
                other = inputs[j, :, second // shape[1], second % shape[1]]
                expected[i, :, y, x] = z * one + (1 - z) * other
                share += z / shape[0] / shape[1]
            label = share * toy.one_hot(targets)[i] + (1 - share) * toy.one_hot(targets)[j]
            torch.testing.assert_close(soft[i], label)
        torch.testing.assert_close(mixed, expected)


def test_blocks_move_whole_and_none_is_seen_twice():
    network, (inputs, targets) = toy.images(), toy.batch(6, 3, 16, 16)
    moved = 0
    for seed in range(20):
        method = PuzzleMix(labels=2, beta=0.1, grids=(4,), transport_size=2, transport_eps=0.1)
        drawn = method.draw(network, inputs, targets, seeded(seed))
        for source, seen in zip(drawn.source, (drawn.mask > 0, drawn.mask < 1), strict=True):
            for i in range(6):
                shown = source[i][seen[i]].tolist()
                assert len(set(shown)) == len(shown)
                for y, x in itertools.product(range(0, 16, 2), repeat=2):
                    corner = int(source[i, y, x])
                    assert corner // 16 % 2 == corner % 2 == 0
                    block = [[corner, corner + 1], [corner + 16, corner + 17]]
                    assert source[i, y : y + 2, x : x + 2].tolist() == block
                    moved += corner != 16 * y + x
    assert moved > 20


def test_without_transport_pixels_stay():
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 8, 8)
    drawn = PuzzleMix(transport=False).draw(network, inputs, targets, seeded(1))
    assert drawn.source is None
    z = drawn.mask.unsqueeze(1)
    torch.testing.assert_close(drawn.mix(inputs), z * inputs + (1 - z) * inputs[drawn.partners])


def test_what_is_drawn():
    network, (inputs, targets) = toy.images(), toy.batch(2, 3, 16, 16)
    seen = []

    def cut(self, pixels, saliency, partners, lam, size):
        seen.append((float(lam), size, tuple(partners.tolist())))
        return torch.ones(2, 16 // size, 16 // size)

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


def test_lambda_says_how_much_of_the_first_image_is_seen():
    network, (inputs, targets) = toy.images(), toy.batch(12, 3, 8, 8)
    means = []
    for lam in (0.0, 0.2, 0.5, 0.8, 1.0):
        with pytest.MonkeyPatch.context() as patch:
            fix(patch, lam)
            drawn = PuzzleMix(eta=0.5).draw(network, inputs, targets, seeded())
        means.append(float(drawn.mask.mean()))
    assert means == sorted(means)
    assert means[0] == 0
    assert means[-1] == 1


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((32, 32), [16, 8, 4, 2]),
        ((224, 224), [112, 56, 28, 14]),
        ((64, 32), [16, 8, 4, 2]),
        ((28, 28), [14, 7]),
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
    mixed, _ = PuzzleMix().mix(inputs, targets, classes=5, network=twin, generator=seeded())
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


# ---------------------------------------------------------------------------------------------- any input, any company


@pytest.mark.parametrize("method", [PuzzleMix(), PuzzleMix(labels=2, adversarial=1.0, clean=1.0)])
def test_any_mini_batch_will_do(method):
    for b, c, h, w in ((1, 3, 8, 8), (7, 3, 12, 8), (3, 3, 5, 7), (2, 3, 1, 1)):
        network, (inputs, targets) = toy.images().eval(), toy.batch(b, c, h, w)
        for labels in (targets, torch.zeros_like(targets), toy.soft_targets(b, 5)):
            losses = method(network, inputs, labels, generator=seeded(2))
            assert losses.total.isfinite()


def test_constant_images_mix():
    network, inputs = toy.images(), torch.ones(4, 3, 8, 8)
    for images in (inputs, inputs * torch.arange(4.0).view(-1, 1, 1, 1)):
        mixed, soft = PuzzleMix(adversarial=1.0).mix(
            images, torch.arange(4), classes=5, network=network, generator=seeded()
        )
        assert mixed.isfinite().all()
        torch.testing.assert_close(soft.sum(-1), torch.ones(4))


def test_images_without_saliency_mix():
    network, (inputs, targets) = toy.images(), toy.batch(4, 3, 8, 8)
    with torch.no_grad():
        network.classifier.weight.zero_()
    drawn = PuzzleMix().draw(network, inputs, targets, seeded())
    assert drawn.mix(inputs).isfinite().all()
    assert ((drawn.mask >= 0) & (drawn.mask <= 1)).all()


def test_bfloat16_and_channels_last():
    network, (inputs, targets) = toy.images(), toy.batch(4, 3, 8, 8)
    ours = PuzzleMix().draw(network, inputs, targets, seeded(1))
    last = inputs.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours.mix(last), ours.mix(inputs))
    assert torch.equal(PuzzleMix().draw(network, last, targets, seeded(1)).partners, ours.partners)
    mixed = PuzzleMix().draw(network.bfloat16(), inputs.bfloat16(), targets, seeded(1)).mix(inputs.bfloat16())
    assert mixed.dtype == torch.bfloat16
    assert mixed.isfinite().all()


def test_the_same_state_gives_the_same_mixing():
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 16, 16)
    method, state = PuzzleMix(adversarial=0.5), torch.get_rng_state()
    for seed in range(3):
        one, other = (method.draw(network, inputs, targets, seeded(seed)).mix(inputs) for _ in range(2))
        assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


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


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha must be finite and greater than 0"),
        ({"beta": -1.0}, "beta must be a finite number, not negative"),
        ({"gamma": float("nan")}, "gamma must be a finite number"),
        ({"eta": float("inf")}, "eta must be a finite number"),
        ({"clean": "1"}, "clean must be a finite number"),
        ({"transport_eps": -0.1}, "transport_eps must be a finite number"),
        ({"adversarial": 1.1}, r"adversarial must lie in \[0, 1\], got 1.1"),
        ({"labels": 1}, "labels must be an integer of at least 2, got 1"),
        ({"labels": 2.5}, "labels must be an integer of at least 2"),
        ({"patch": 0}, "patch must be an integer of at least 1"),
        ({"transport_size": 0}, "transport_size must be an integer of at least 1"),
        ({"grids": ()}, "grids must hold integers of at least 1"),
        ({"grids": (0, 2)}, "grids must hold integers of at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PuzzleMix(**settings)


@pytest.mark.bad_input
def test_features_and_missing_networks_are_refused():
    with pytest.raises(ValueError, match=r"inputs must be images of shape \(b, c, h, w\) for PuzzleMix, got \(7, 8\)"):
        PuzzleMix()(toy.vectors(), *toy.batch(7, 8))
    with pytest.raises(ValueError, match="network must be given: PuzzleMix"):
        PuzzleMix().draw(None, *toy.batch(7, 3, 4, 4), seeded())
    with pytest.raises(ValueError, match="network must be given"):
        PuzzleMix().mix(*toy.batch(7, 3, 4, 4), classes=5)
