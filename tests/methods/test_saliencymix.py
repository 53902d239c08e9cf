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


def loop_saliency(image):
    """Fine-grained saliency of one image (c, h, w), pixel by pixel on Python floats."""
    channels = references.rows(image)
    height, width = len(channels[0]), len(channels[0][0])
    shares = (0.299, 0.587, 0.114) if len(channels) == 3 else [1 / len(channels)] * len(channels)
    grey = [
        [sum(s * c[y][x] for s, c in zip(shares, channels, strict=True)) for x in range(width)] for y in range(height)
    ]
    grey = blurred(blurred(grey))
    on = [[0.0] * width for _ in range(height)]
    off = [[0.0] * width for _ in range(height)]
    for reach in SURROUNDS:
        for y in range(height):
            for x in range(width):
                around = [
                    grey[j][i]
                    for j in range(max(y - reach, 0), min(y + reach, height - 1) + 1)
                    for i in range(max(x - reach, 0), min(x + reach, width - 1) + 1)
                    if (j, i) != (y, x)
                ]
                difference = grey[y][x] - sum(around) / len(around)
                on[y][x] += max(difference, 0.0)
                off[y][x] += max(-difference, 0.0)
    most_on, most_off = max(map(max, on)), max(map(max, off))
    return torch.tensor(
        [[on[y][x] / most_on + off[y][x] / most_off for x in range(width)] for y in range(height)], dtype=torch.float64
    )


def blurred(grey):
    height, width = len(grey), len(grey[0])

    def at(y, x):
        y, x = abs(y), abs(x)
        y, x = y if y < height else 2 * height - 2 - y, x if x < width else 2 * width - 2 - x
        return grey[y][x]

    return [
        [
            sum(
                (2 - abs(j)) * (2 - abs(i)) * at(y + j, x + i) if height > 1 and width > 1 else 0
                for j in (-1, 0, 1)
                for i in (-1, 0, 1)
            )
            / 16
            for x in range(width)
        ]
        for y in range(height)
    ]


def spots(places, shape=(16, 20), channels=3):
    """One grey image for each place, with a bright spot there."""
    images = torch.zeros(len(places), channels, *shape)
    for image, (y, x) in zip(images, places, strict=True):
        image[:, y, x] = 1.0
    return images


# -------------------------------------------------------------------------------------------------------- saliency


@pytest.mark.parametrize(("channels", "shape"), [(3, (6, 6)), (1, (5, 17)), (4, (16, 3)), (3, (2, 2)), (3, (15, 14))])
def test_saliency_equals_the_loop(channels, shape, device):
    images = toy.batch(3, channels, *shape, dtype=torch.float64)[0]
    ours = static_saliency(images.to(device)).cpu()
    wanted = torch.stack([loop_saliency(image) for image in images])
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-10)
    assert torch.equal(saliency_peaks(ours)[:, 0] * shape[1] + saliency_peaks(ours)[:, 1], wanted.flatten(1).argmax(1))
    torch.testing.assert_close(static_saliency(images.float().to(device)).cpu().double(), wanted, rtol=0, atol=1e-5)


def test_saliency_of_a_large_image_equals_windows_cut_out_of_it():
    """224 pixels, where the smaller surrounds end inside the image; a few places only, the loop being slow."""
    image = toy.batch(1, 1, 230, 150, dtype=torch.float64)[0]
    padded = functional.pad(image, (1, 1, 1, 1), mode="reflect")
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    kernel = (kernel[:, None] * kernel / 16)[None, None]
    grey = functional.conv2d(functional.pad(functional.conv2d(padded, kernel), (1, 1, 1, 1), mode="reflect"), kernel)
    grey = grey[0, 0]
    on, off = torch.zeros_like(grey), torch.zeros_like(grey)
    for reach in SURROUNDS:
        for y in range(230):
            rows = grey[max(y - reach, 0) : y + reach + 1]
            for x in range(0, 150, 7):
                window = rows[:, max(x - reach, 0) : x + reach + 1]
                difference = float(grey[y, x] - (window.sum() - grey[y, x]) / (window.numel() - 1))
                on[y, x] += max(difference, 0)
                off[y, x] += max(-difference, 0)
    ours = static_saliency(image)[0, :, ::7]
    # maxima are unknown here, having been taken over other places too; their shares are fitted
    basis = torch.stack([on[:, ::7].flatten(), off[:, ::7].flatten()], 1)
    fit = torch.linalg.lstsq(basis, ours.reshape(-1, 1)).solution
    torch.testing.assert_close(basis @ fit, ours.reshape(-1, 1), rtol=1e-7, atol=1e-9)


def test_a_spot_is_its_own_peak():
    places = [(3, 4), (0, 0), (15, 19), (8, 0)]
    for images in (spots(places), 1 - spots(places), spots(places, channels=1)):
        assert saliency_peaks(static_saliency(images)).tolist() == [list(place) for place in places]


def test_saliency_ignores_brightness_and_contrast():
    images = toy.batch(4, 3, 9, 13)[0]
    torch.testing.assert_close(static_saliency(3 * images + 5), static_saliency(images), rtol=0, atol=1e-4)


def test_saliency_turns_with_the_image():
    images = toy.batch(4, 3, 9, 31)[0]
    saliency = static_saliency(images)
    torch.testing.assert_close(static_saliency(images.flip(-1)), saliency.flip(-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(static_saliency(images.mT), saliency.mT, rtol=0, atol=1e-5)


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
    places = [(3, 4), (12, 15), (8, 0), (5, 10), (15, 2)]
    images = spots(places)
    for seed in range(10):
        drawn = SaliencyMix().draw(None, images, None, seeded(seed))
        for partner, (top, bottom, left, right) in zip(drawn.partners.tolist(), drawn.boxes.tolist(), strict=True):
            y, x = places[partner]
            assert top <= y < bottom
            assert left <= x < right


def test_an_example_of_its_own_partner_stays():
    inputs, targets = toy.batch(1, 3, 6, 6)
    drawn = SaliencyMix().draw(None, inputs, targets, seeded())
    assert torch.equal(drawn.mix(inputs), inputs)
    torch.testing.assert_close(drawn.mix_targets(toy.one_hot(targets)), toy.one_hot(targets))


def test_size_follows_lambda():
    """Salient in the middle, so that no box is clipped: the areas are those of lambda ~ Beta(alpha, alpha)."""
    images, generator = spots([(32, 32)] * 2, (64, 64)), seeded(1)
    for alpha in (0.4, 1.0):
        drawn = [SaliencyMix(alpha).draw(None, images, None, generator) for _ in range(400)]
        assert all(len(set(each.lam.tolist())) == 1 for each in drawn)
        sides = torch.tensor([float((each.boxes[0, 1] - each.boxes[0, 0]) / 64) for each in drawn])
        # the side is rounded down to an even number of pixels, on average by one
        cdf = lambda side, alpha=alpha: stats.beta(alpha, alpha).cdf((side + 1 / 64) ** 2)  # noqa: E731
        assert stats.kstest(sides.numpy(), cdf).statistic < 0.1


def test_constant_images_are_pasted_anywhere():
    images, generator = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8).contiguous(), seeded(2)
    centres = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimix.methods.saliencymix.beta", lambda n, alpha, **_: torch.tensor([0.92]))
        for _ in range(300):
            drawn = SaliencyMix().draw(None, images, None, generator)
            top, bottom, left, right = drawn.boxes.unbind(1)  # of 2 x 2 pixels, clipped at the top and the left only
            assert int((bottom - top).max()) <= 2
            centres += [(int(y) - 1, int(x) - 1) for y, x in zip(bottom, right, strict=True)]
            mixed = drawn.mix(images).mean((1, 2, 3))
            torch.testing.assert_close(mixed, drawn.mix_targets(torch.arange(4.0).unsqueeze(1))[:, 0])
    rows, columns = (torch.bincount(torch.tensor(axis), minlength=8)[:7] for axis in zip(*centres, strict=True))
    assert stats.chisquare(rows.numpy(), _clipped(len(centres))).pvalue > 1e-3
    assert stats.chisquare(columns.numpy(), _clipped(len(centres))).pvalue > 1e-3


def _clipped(n):
    """Centres 0 to 7 are uniform; a box around 7 ends at 8, like one around 8 would."""
    return [n / 8] * 6 + [n / 4]


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_other_steps_are_plain(probability):
    images, generator = spots([(8, 8), (4, 4)]), seeded(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimix.methods.saliencymix.beta", lambda n, alpha, **_: torch.tensor([0.5]))
        method = SaliencyMix(probability=probability)
        plain = [bool((method.draw(None, images, None, generator).lam == 1).all()) for _ in range(400)]
    assert sum(plain) / 400 == pytest.approx(1 - probability, abs=4 * math.sqrt(probability * (1 - probability) / 400))


def test_half_precision_finds_the_same_boxes():
    places = [(3, 4), (12, 15), (8, 0)]
    images = spots(places)
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
    mixed, probabilities = SaliencyMix().mix(inputs, targets, classes=5, generator=seeded())
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
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\]"):
        replace(SaliencyMix(), probability=probability)


@pytest.mark.bad_input
def test_features_are_refused():
    with pytest.raises(
        ValueError, match=r"inputs must be images of shape \(b, c, h, w\) for SaliencyMix, got \(7, 8\)"
    ):
        SaliencyMix()(toy.vectors(), *toy.batch(7, 8))
