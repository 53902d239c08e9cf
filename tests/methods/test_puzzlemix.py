"""PuzzleMix against loops in float64 and every mask there is, given what it drew."""

import itertools

import pytest
import torch
from scipy import stats

import toy
from methods.puzzlemix_reference import best, fix, seeded, tables, total
from multimix.methods import puzzlemix as module
from multimix.methods._puzzle import block_sizes, pool_saliency
from multimix.methods._saliency import input_saliency
from multimix.methods.puzzlemix import PuzzleMix


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


# ------------------------------------------------------------------------------------------------------------ any input


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
            images, torch.arange(4), num_classes=5, network=network, generator=seeded()
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
        PuzzleMix().mix(*toy.batch(7, 3, 4, 4), num_classes=5)
