"""GuidedMixup and the saliency that it looks at, against loops in float64."""

import cmath
import itertools
import math

import pytest
import torch
from torch.nn import functional

import toy
from methods.shared import problem
from multimix.methods import GuidedMixup
from multimix.methods.guidedmixup import farthest_cycle, smooth, spectral_residual
from toy import seeded


def reflected(at, size):
    """A place beyond an edge, mirrored until it lies inside."""
    while not 0 <= at < size:
        at = -at if at < 0 else 2 * (size - 1) - at
        at = 0 if size == 1 else at
    return at


def loop_smooth(image, sigma):
    """A sum over 7 x 7 neighbours of every pixel."""
    h, w = image.shape
    bell = [math.exp(-(t**2) / 2 / sigma**2) for t in range(-3, 4)]
    found = torch.zeros_like(image)
    for y, x, (i, a), (j, b) in itertools.product(range(h), range(w), enumerate(bell), enumerate(bell)):
        found[y, x] += a * b / sum(bell) ** 2 * image[reflected(y + i - 3, h), reflected(x + j - 3, w)]
    return found


def transformed(values, sign):
    """The discrete Fourier transform, as a sum, of a nested list of numbers."""
    h, w = len(values), len(values[0])
    every = list(itertools.product(range(h), range(w)))
    return [
        [
            sum(values[y][x] * cmath.exp(sign * 2j * math.pi * (u * y / h + v * x / w)) for y, x in every)
            for v in range(w)
        ]
        for u in range(h)
    ]


def loop_residual(image, sigma):
    """Hou and Zhang's saliency of one image (c, h, w), frequency by frequency."""
    shares = (0.2989, 0.587, 0.114) if len(image) == 3 else [1 / len(image)] * len(image)
    grey = sum(share * channel for share, channel in zip(shares, image, strict=True))
    h, w = grey.shape
    spectrum = transformed(grey.tolist(), -1)
    size = [[math.sqrt(abs(value) ** 2 + 1e-10) for value in row] for row in spectrum]
    for u, v in itertools.product(range(h), range(w)):
        around = [
            math.log(size[min(max(u + i, 0), h - 1)][min(max(v + j, 0), w - 1)])
            for i, j in itertools.product((-1, 0, 1), repeat=2)
        ]
        spectrum[u][v] *= math.exp(math.log(size[u][v]) - sum(around) / 9) / size[u][v]
    back = torch.tensor(transformed(spectrum, 1), dtype=torch.complex128).abs() / (h * w)
    return loop_smooth(back, sigma)


@pytest.mark.parametrize(("channels", "shape"), [(3, (6, 6)), (1, (5, 9)), (4, (2, 3)), (3, (1, 1)), (3, (12, 4))])
def test_saliency_equals_the_loop(channels, shape, device):
    images = toy.batch(2, channels, *shape, dtype=torch.float64)[0]
    wanted = torch.stack([loop_residual(image, 2.0) for image in images])
    torch.testing.assert_close(spectral_residual(images.to(device), 2.0).cpu(), wanted, rtol=1e-9, atol=1e-9)
    single = spectral_residual(images.float().to(device), 2.0).cpu()
    torch.testing.assert_close(single.double(), wanted, rtol=1e-3, atol=1e-4)


def test_large_images_are_looked_at_small():
    images = toy.batch(2, 3, 150, 20, dtype=torch.float64)[0]
    small = functional.interpolate(images, (128, 20), mode="bilinear", antialias=True)
    wanted = functional.interpolate(spectral_residual(small, 3.0)[:, None], (150, 20), mode="bilinear")[:, 0]
    torch.testing.assert_close(spectral_residual(images, 3.0), wanted)
    torch.testing.assert_close(spectral_residual(images, 3.0, again=True), smooth(wanted, 3.0))


def test_no_smoothing_changes_nothing():
    maps = torch.rand(2, 4, 5, generator=seeded())
    assert torch.equal(smooth(maps, 0.0), maps)


def loop_cycle(maps):
    """Greedily, from the two that differ most, to the one farthest from the last among those left."""
    b = len(maps)
    apart = [[float((one - other).norm()) for other in maps] for one in maps]
    start = last = max(range(b), key=lambda i: max(apart[i]))
    partners, left = [0] * b, set(range(b)) - {start}
    while left:
        partners[last] = max(left, key=lambda i: apart[last][i])
        last = partners[last]
        left.remove(last)
    partners[last] = start
    return partners


@pytest.mark.parametrize("b", [1, 2, 3, 8, 31])
def test_partners_form_the_greedy_cycle(b, device):
    maps = torch.rand(b, 3, 5, generator=seeded(b), dtype=torch.float64)
    maps = maps / maps.sum((1, 2), keepdim=True)
    assert farthest_cycle(maps.to(device)).tolist() == loop_cycle(maps)


def test_images_that_are_all_alike_form_a_cycle_too():
    partners = farthest_cycle(torch.full((5, 2, 2), 0.25)).tolist()
    visited = itertools.accumulate(range(4), lambda at, _: partners[at], initial=0)
    assert sorted(visited) == list(range(5))


@pytest.mark.parametrize("kind", ["spectral", "gradient"])
@pytest.mark.parametrize("shape", [(6, 6), (5, 9)])
def test_pixels_are_mixed_by_the_saliency_of_both_images(kind, shape):
    network, inputs, targets, labels = problem(5, *shape, soft=False)
    if kind == "spectral":
        saliency = [loop_residual(image, 3.0) for image in inputs]
    else:
        pixels = inputs.clone().requires_grad_()
        functional.cross_entropy(network(pixels), targets, reduction="sum").backward()
        saliency = pixels.grad.square().mean(1).sqrt()
    own = torch.stack([loop_smooth(image, 3.0) for image in saliency])
    own = own / own.sum((1, 2), keepdim=True)
    given = {"network": network, "num_classes": 5}
    mixed, rows = GuidedMixup(kind).mix(inputs, targets, **given)
    for i, partner in enumerate(loop_cycle(own)):
        mask = own[i] / (own[i] + own[partner])
        expected = mask * inputs[i] + (1 - mask) * inputs[partner]
        torch.testing.assert_close(mixed[i], expected, rtol=1e-5, atol=1e-5)  # the gradient is kept in float32
        lam = float(mask.mean())
        torch.testing.assert_close(rows[i].double(), lam * labels[i] + (1 - lam) * labels[partner], rtol=0, atol=1e-5)


def test_images_without_saliency_are_mixed_evenly():
    network, (inputs, targets) = toy.images(), toy.batch(4, 3, 6, 6)
    network.classifier.weight.data.zero_()
    drawn = GuidedMixup("gradient").draw(network, inputs, targets, None)
    assert torch.equal(drawn.lam, torch.full((4,), 0.5))
    torch.testing.assert_close(drawn.mix(inputs), (inputs + inputs[drawn.partners]) / 2)


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_the_other_steps_are_plain(probability):
    (inputs, _), generator = toy.batch(4, 3, 6, 6), seeded(3)
    method = GuidedMixup(prob=probability)
    plain = [method.draw(None, inputs, None, generator).mix(inputs) is inputs for _ in range(300)]
    assert sum(plain) / 300 == pytest.approx(1 - probability, abs=4 * math.sqrt(probability * (1 - probability) / 300))


@pytest.mark.bad_input
def test_the_gradient_needs_a_network():
    with pytest.raises(ValueError, match="network must be given: GuidedMixup"):
        GuidedMixup("gradient").mix(*toy.batch(4, 3, 6, 6), num_classes=5)
