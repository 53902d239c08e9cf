"""SaliencyMix and the saliency it looks at, against loops over pixels."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch.nn import functional

import references
import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods.saliencymix import SaliencyMix
from multimix.ops._static_saliency import SURROUNDS, saliency_peaks, static_saliency
from multimix.protocols import Teacher


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def loop_saliency(image, levels=None):
    """Fine-grained saliency of one image (c, h, w), pixel by pixel on integers and Python floats."""
    channels = references.rows(image)
    height, width = len(channels[0]), len(channels[0][0])
    values = [value for channel in channels for row in channel for value in row]
    black, white = levels or (min(values), max(values))
    shares = (0.299, 0.587, 0.114) if len(channels) == 3 else [1 / len(channels)] * len(channels)
    grey = [[0] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            value = sum(share * channel[y][x] for share, channel in zip(shares, channels, strict=True))
            grey[y][x] = min(max(math.floor((value - black) / (white - black) * 255 + 0.5), 0), 255)
    grey = blurred(blurred(grey))
    on = [[0] * width for _ in range(height)]
    off = [[0] * width for _ in range(height)]
    for reach in SURROUNDS:
        for y in range(height):
            for x in range(width):
                others = [
                    grey[j][i]
                    for j in range(max(y - reach + 1, 0), min(y + reach, height - 1) + 1)
                    for i in range(max(x - reach + 1, 0), min(x + reach, width - 1) + 1)
                    if (j, i) != (y, x)
                ]
                n = len(others)
                difference = grey[y][x] * n - sum(others)
                on[y][x] += max(difference, 0) // n
                off[y][x] += max(-difference, 0) // n
    most_on, most_off = max(map(max, on)) or 1, max(map(max, off)) or 1
    return torch.tensor(
        [[on[y][x] / most_on + off[y][x] / most_off for x in range(width)] for y in range(height)], dtype=torch.float64
    )


def blurred(grey):
    """Sixteenths of (1, 2, 1) times (1, 2, 1), mirrored at the edges, halves rounded up."""
    height, width = len(grey), len(grey[0])
    kernel = {-1: 1, 0: 2, 1: 1}

    def at(y, x):
        y, x = abs(y), abs(x)
        return grey[y if y < height else 2 * height - 2 - y][x if x < width else 2 * width - 2 - x]

    return [
        [
            (sum(u * v * at(y + j, x + i) for j, u in kernel.items() for i, v in kernel.items()) + 8) // 16
            for x in range(width)
        ]
        for y in range(height)
    ]


def spots(places, shape=(32, 40), channels=3):
    """One grey image for each place, with something bright to its left and something dark to its right."""
    images = torch.full((len(places), channels, *shape), 0.5)
    for image, (y, x) in zip(images, places, strict=True):
        image[:, y - 1 : y + 2, x - 3 : x] = 1.0
        image[:, y - 1 : y + 2, x : x + 3] = 0.0
    return images


# -------------------------------------------------------------------------------------------------------- saliency


@pytest.mark.parametrize("levels", [None, (-1.5, 2.0)])
@pytest.mark.parametrize(("channels", "shape"), [(3, (6, 6)), (1, (5, 17)), (4, (16, 3)), (3, (2, 2)), (3, (15, 28))])
def test_saliency_equals_the_loop(channels, shape, levels, device):
    images = toy.batch(3, channels, *shape, dtype=torch.float64)[0]
    wanted = torch.stack([loop_saliency(image, levels) for image in images])
    for given in (images, images.float()):
        ours = static_saliency(given.to(device), levels=levels).cpu()
        torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=1e-6)
    peaks = saliency_peaks(ours)
    assert torch.equal(peaks[:, 0] * shape[1] + peaks[:, 1], ours.flatten(1).argmax(1))


def test_saliency_of_a_large_image_equals_windows_cut_out_of_it():
    """Where most surrounds end inside the image: two columns of a smooth picture on integer levels."""
    height, width = 256, 130
    y, x = torch.arange(height).view(-1, 1), torch.arange(width)
    levels = (127 + 64 * torch.sin(y / 9) + 63 * torch.cos(x / 5 + y / 40)).round()
    levels[0, 0], levels[0, 1] = 0, 255
    ours = static_saliency(levels.view(1, 1, height, width))[0].double()
    grey = torch.tensor(blurred(blurred(levels.int().tolist())))
    kinds = {}
    for j in range(0, height, 3):
        for i in (0, 77):
            on = off = 0
            for reach in SURROUNDS:
                window = grey[max(j - reach + 1, 0) : j + reach + 1, max(i - reach + 1, 0) : i + reach + 1]
                n = window.numel() - 1
                difference = int(grey[j, i]) * n - int(window.sum() - grey[j, i])
                on, off = on + max(difference, 0) // n, off + max(-difference, 0) // n
            kinds[j, i] = on, off
    # the maxima are over places not looked at here: they are taken from two places, and must serve all others
    most_on = next(on / float(ours[at]) for at, (on, off) in kinds.items() if on > 50 and off == 0)
    most_off = next(off / float(ours[at]) for at, (on, off) in kinds.items() if off > 50 and on == 0)
    for at, (on, off) in kinds.items():
        assert float(ours[at]) == pytest.approx(on / most_on + off / most_off, abs=1e-5)


def test_what_stands_out_is_the_peak():
    places = [(3, 4), (10, 36), (29, 20), (8, 5)]
    for images in (spots(places), 1 - spots(places), spots(places, channels=1), spots(places).bfloat16()):
        peaks = saliency_peaks(static_saliency(images)).tolist()
        for peak, place in zip(peaks, places, strict=True):
            assert math.dist(peak, place) <= 3


def test_saliency_ignores_brightness_and_contrast():
    """By powers of two and small integers, so that rounding does nothing."""
    images = torch.randint(0, 256, (4, 3, 9, 13), generator=seeded()).float()
    assert torch.equal(static_saliency(images / 64 - 3), static_saliency(images))


def test_saliency_turns_with_the_image():
    images = toy.batch(4, 1, 9, 31)[0]
    torch.testing.assert_close(static_saliency(images.mT), static_saliency(images).mT)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (32, 32), (7, 61)])
@pytest.mark.parametrize("value", [0.0, 0.3, -17.3])
def test_constant_images_have_no_saliency(value, shape):
    assert not static_saliency(torch.full((2, 3, *shape), value)).any()


# ---------------------------------------------------------------------------------------------------------- method


def wanted_boxes(peaks, partners, lam, shape):
    """The clipped box around each partner's peak."""
    boxes = []
    for partner in partners.tolist():
        sides = []
        for at, size in zip(peaks[partner], shape, strict=True):
            half = int(size * math.sqrt(1 - lam)) // 2
            sides.append((max(at - half, 0), min(at + half, size)))
        boxes.append((*sides[0], *sides[1]))
    return boxes


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("b", [1, 2, 7])
@pytest.mark.parametrize("shape", [(6, 6), (5, 9)])
def test_saliencymix_equals_the_loop(shape, b, soft):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(b, 3, *shape, dtype=torch.float64)
    probabilities = toy.soft_targets(b, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)
    peaks = [divmod(int(loop_saliency(image).argmax()), shape[1]) for image in inputs]
    pasted = 0
    for seed in range(6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("multimix.methods.saliencymix.beta", lambda n, alpha, **_: torch.tensor([0.3]))
            drawn = SaliencyMix().draw(network, inputs, targets, seeded(seed))
            ours = SaliencyMix()(network, inputs, probabilities if soft else targets, generator=seeded(seed)).total
        boxes = wanted_boxes(peaks, drawn.partners, 0.3, shape)
        assert drawn.boxes.tolist() == [list(box) for box in boxes]
        mixed, mixed_targets = inputs.clone(), probabilities.clone()
        for i, (partner, box) in enumerate(zip(drawn.partners.tolist(), boxes, strict=True)):
            kept = 0
            for y in range(shape[0]):
                for x in range(shape[1]):
                    inside = box[0] <= y < box[1] and box[2] <= x < box[3]
                    mixed[i, :, y, x] = inputs[partner if inside else i, :, y, x]
                    kept += not inside
            share = kept / math.prod(shape)
            mixed_targets[i] = share * probabilities[i] + (1 - share) * probabilities[partner]
            pasted += share < 1
        assert torch.equal(drawn.mix(inputs), mixed)
        truth = references.soft_cross_entropy(network(mixed), mixed_targets)
        torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)
    assert pasted == 6 * b


def test_the_box_lies_around_the_peak_of_the_pasted_image():
    """A peak is at most three pixels off, and a box with a reach of four or more contains the place itself."""
    places = [(3, 4), (12, 15), (8, 30), (5, 10), (15, 20)]
    images = spots(places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimix.methods.saliencymix.beta", lambda n, alpha, **_: torch.tensor([0.93]))
        for seed in range(10):
            drawn = SaliencyMix().draw(None, images, None, seeded(seed))
            for partner, (top, bottom, left, right) in zip(drawn.partners.tolist(), drawn.boxes.tolist(), strict=True):
                y, x = places[partner]
                assert top <= y < bottom
                assert left <= x < right
                assert (bottom - top) * (right - left) <= 8 * 10


def test_an_example_of_its_own_partner_stays():
    inputs, targets = toy.batch(1, 3, 6, 6)
    drawn = SaliencyMix().draw(None, inputs, targets, seeded())
    assert torch.equal(drawn.mix(inputs), inputs)
    torch.testing.assert_close(drawn.mix_targets(toy.one_hot(targets)), toy.one_hot(targets))


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_size_follows_lambda(alpha):
    """Salient near the middle, so that the image does not clip boxes with a reach up to 11 of 32 pixels."""
    images, generator = spots([(16, 20)] * 2), seeded(1)
    drawn = [SaliencyMix(alpha).draw(None, images, None, generator) for _ in range(300)]
    assert all(len(set(each.lam.tolist())) == 1 for each in drawn)
    reach = torch.tensor([int(each.boxes[0, 1] - each.boxes[0, 0]) // 2 for each in drawn])
    for k in range(12):
        wanted = stats.beta(alpha, alpha).cdf(((k + 1) / 16) ** 2)
        assert float((reach <= k).double().mean()) == pytest.approx(wanted, abs=4 * math.sqrt(0.25 / 300))


def test_constant_images_are_pasted_anywhere():
    images, generator = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8).contiguous(), seeded(2)
    centres = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimix.methods.saliencymix.beta", lambda n, alpha, **_: torch.tensor([0.92]))
        for _ in range(300):
            drawn = SaliencyMix().draw(None, images, None, generator)
            _, bottom, _, right = drawn.boxes.unbind(1)  # one pixel to either side, clipped at the top and left only
            centres += [(int(y) - 1, int(x) - 1) for y, x in zip(bottom, right, strict=True)]
            mixed = drawn.mix(images).mean((1, 2, 3))
            torch.testing.assert_close(mixed, drawn.mix_targets(torch.arange(4.0).unsqueeze(1))[:, 0])
    for axis in zip(*centres, strict=True):
        counts = torch.bincount(torch.tensor(axis), minlength=8)
        assert len(counts) == 8
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_other_steps_are_plain(probability):
    images, generator = spots([(8, 8), (4, 4)], (12, 12)), seeded(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimix.methods.saliencymix.beta", lambda n, alpha, **_: torch.tensor([0.5]))
        method = SaliencyMix(prob=probability)
        plain = [bool((method.draw(None, images, None, generator).lam == 1).all()) for _ in range(400)]
    assert sum(plain) / 400 == pytest.approx(1 - probability, abs=4 * math.sqrt(probability * (1 - probability) / 400))


def test_half_precision_finds_the_same_boxes():
    images = spots([(3, 4), (12, 15), (8, 30)])
    single, half = (SaliencyMix().draw(None, x, None, seeded()) for x in (images, images.bfloat16()))
    assert torch.equal(single.boxes, half.boxes)
    assert half.mix(images.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(half.mix(images.bfloat16()).float(), single.mix(images))


def test_gradients_flow_through_the_pixels_alone():
    inputs, targets = toy.batch(3, 3, 6, 6)
    inputs.requires_grad_()
    drawn = SaliencyMix().draw(None, inputs, targets, seeded())
    drawn.mix(inputs).sum().backward()
    uses = torch.zeros(3, 6, 6)
    for i, partner in enumerate(drawn.partners.tolist()):
        top, bottom, left, right = drawn.boxes[i].tolist()
        uses[i] += 1
        uses[i, top:bottom, left:right] -= 1
        uses[partner, top:bottom, left:right] += 1
    torch.testing.assert_close(inputs.grad, uses.unsqueeze(1).expand(3, 3, 6, 6))


def test_a_teacher_predicts_on_its_own_view_mixed_alike():
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    inputs, targets = toy.batch(7, 3, 6, 6)
    other = toy.batch(7, 3, 6, 6, seed=5)[0]
    drawn = SaliencyMix().draw(student, inputs, targets, seeded())
    logits = drawn.predict(student, inputs)
    taught = functional.cross_entropy(logits, drawn.predict(teacher, other).detach().softmax(-1))
    labels = functional.cross_entropy(logits, drawn.mix_targets(toy.one_hot(targets)))
    ours = SaliencyMix()(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3))
    torch.testing.assert_close(ours.total, 0.3 * labels + 0.7 * taught)


@pytest.mark.parametrize("wrap", [lambda m: SelfDistilled(m, 0.3), lambda m: Alternate((m, ERM()))])
def test_it_can_be_part_of_another_method(wrap):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 6, 6)
    totals = [wrap(SaliencyMix())(network.eval(), inputs, targets, generator=seeded(1)).total for _ in range(2)]
    assert totals[0].isfinite()
    assert torch.equal(*totals)


def test_data_alone():
    inputs, targets = toy.batch(5, 3, 6, 6)
    mixed, probabilities = SaliencyMix().mix(inputs, targets, num_classes=5, generator=seeded())
    drawn = SaliencyMix().draw(None, inputs, targets, seeded())
    assert torch.equal(mixed, drawn.mix(inputs))
    assert torch.equal(probabilities, drawn.mix_targets(toy.one_hot(targets)))


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.bad_input
@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_concentrations_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be finite and greater than 0"):
        SaliencyMix(alpha=alpha)


@pytest.mark.bad_input
@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_impossible_probabilities_are_refused(probability):
    with pytest.raises(ValueError, match=r"prob must lie in \[0, 1\]"):
        replace(SaliencyMix(), prob=probability)


@pytest.mark.bad_input
@pytest.mark.parametrize("levels", [(1.0, 0.0), (0.0, 0.0), (0.0,), (0.0, float("inf")), (float("nan"), 1.0)])
def test_impossible_levels_are_refused(levels):
    with pytest.raises(ValueError, match=r"levels must be None or \(black, white\) with black < white"):
        SaliencyMix(levels=levels)


@pytest.mark.bad_input
def test_features_are_refused():
    with pytest.raises(
        ValueError, match=r"inputs must be images of shape \(b, c, h, w\) for SaliencyMix, got \(7, 8\)"
    ):
        SaliencyMix()(toy.vectors(), *toy.batch(7, 8))
