"""SaliencyMix and the saliency it looks at, against loops over pixels."""

import itertools
import math

import pytest
import torch
from scipy import stats

import toy
from multimix.methods import SaliencyMix
from multimix.ops import saliency_peaks, static_saliency
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
