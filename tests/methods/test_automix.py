"""AutoMix against loops, given what it drew, with a generator that is known by heart and with its own."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

import toy
from methods.shared import problem, same_gradients
from multimix.methods.automix import AutoMix, MixingUNet
from toy import seeded


class Scale(nn.Module):
    """A generator that returns a multiple of its first image."""

    channels, levels = 3, (4, 8)

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, images, partners, masks):
        return self.factor * images


def loop_loss(network, inputs, probabilities, mixed, partners, lam, weight):
    """The loss of the paper's code, image by image and value by value."""
    n, b, k = len(partners), *probabilities.shape
    logits = network(torch.cat([mixed, inputs[n:]])).log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(b):
        for c in range(k):
            target = float(probabilities[i, c])
            if i < n:
                target = lam * target + (1 - lam) * float(probabilities[partners[i], c])
            if target > 0:
                total = total - target * (logits[i, c] - math.log(target)) / b

    def scaled(images):
        low, high = images.min(), images.max()
        return (images - low) / (high - low) if high > low else images - low

    clean, generated = scaled(inputs[:n]), scaled(mixed)
    distances = [
        lam * (clean[i] - generated[i]).abs().mean() + (1 - lam) * (clean[partners[i]] - generated[i]).abs().mean()
        for i in range(n)
    ]
    return total + weight * sum(distances) / n


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("b", [1, 2, 7])
@pytest.mark.parametrize(
    "settings", [{}, {"share": 0.3}, {"share": 1.0, "distance_weight": 0.3, "alpha": 0.4}, None], ids=str
)
def test_the_loss_equals_the_loop(settings, b, soft):
    """With a generator that is known by heart and, at last, with the method's own."""
    network, inputs, given, probabilities = problem(b, 6, 5, soft=soft)
    method = AutoMix(**settings or {})
    method.prepare(network)
    if settings is not None:
        method.unet = Scale(0.7)
    drawn = method.draw(network, inputs, given, seeded())
    n = len(drawn.partners)
    assert n == max(math.floor(b * method.share), 1)
    mixed = method.unet(inputs[:n], drawn.partners, drawn.given["masks"])
    weight, lam = method.distance_weight, float(drawn.lam)
    truth = loop_loss(network, inputs, probabilities, mixed, drawn.partners, lam, weight)
    losses = method(network, inputs, given, generator=seeded())
    assert losses.terms.keys() == {"labels", "entropy", "distance"}
    same_gradients(losses.total, truth, [*network.parameters(), *method.parameters()])


def test_constant_images_are_at_distance_zero():
    inputs, targets = torch.full((4, 3, 6, 6), 2.0), torch.tensor([0, 1, 2, 3])
    method = AutoMix()
    method.unet = Scale().float()
    losses = method(toy.images(), inputs, targets, generator=seeded())
    assert float(losses.terms["distance"]) == 0


def test_draws_follow_their_distributions():
    network, (inputs, targets) = toy.images(), toy.batch(9, 3, 6, 6)
    method = AutoMix()
    generator = seeded()
    drawn = [method.draw(network, inputs, targets, generator) for _ in range(400)]
    assert stats.kstest([float(d.lam) for d in drawn], "uniform").pvalue > 0.01
    for one in drawn:
        assert sorted(one.partners.tolist()) == [0, 1, 2, 3]
        assert [int(mask.sum()) for mask in one.given["masks"]] == [
            round(channels * float(one.lam)) for channels in (16, 32, 64, 128, 128)
        ]
    seats = torch.stack([d.partners for d in drawn])
    for column in seats.T:
        assert stats.chisquare(torch.bincount(column, minlength=4).numpy()).pvalue > 1e-3
    chosen = torch.stack([d.given["masks"][0] for d in drawn]).float().sum(0)  # each channel as often as any other
    assert (chosen - chosen.mean()).abs().max() < 5 * (400 / 6) ** 0.5


def test_level_masks_choose_whose_channels_enter():
    """A generator that sees nothing of the partner does not depend on it, and the reverse."""
    unet = MixingUNet(3).double()
    first, second, other = (toy.batch(1, 3, 8, 8, seed=s, dtype=torch.float64)[0] for s in range(3))
    all_own = [torch.ones(d) for d in unet.levels]
    partners = torch.tensor([1, 0])
    # batch statistics join the images: only without them is each output a matter of its own masks
    for module in unet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda module, inputs, output: inputs[0])
    alone = unet(torch.cat([first, second]), partners, all_own)[0]
    torch.testing.assert_close(unet(torch.cat([first, other]), partners, all_own)[0], alone)
    none = [torch.zeros(d) for d in unet.levels]
    taken = unet(torch.cat([first, second]), partners, none)[0]
    assert not torch.allclose(taken, alone)
    torch.testing.assert_close(unet(torch.cat([other, second]), partners, none)[0], taken)


@pytest.mark.bad_input
def test_what_it_needs_is_named():
    inputs, targets = toy.batch(4, 3, 6, 6)
    with pytest.raises(ValueError, match=r"inputs must have 2 channels for AutoMix, got \(4, 3, 6, 6\)"):
        AutoMix(channels=2)(toy.images(), inputs, targets)
    with pytest.raises(ValueError, match="network must be given to AutoMix, here or to prepare"):
        AutoMix().mix(inputs, targets, num_classes=5)
