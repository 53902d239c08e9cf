"""AutoMix against loops, given what it drew, with a generator that is known by heart and with its own."""

import copy
import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods._unet import MixingUNet
from multimix.methods.automix import AutoMix
from multimix.protocols import Method, Teacher, submethods


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Scale(nn.Module):
    """A generator that returns a multiple of its first image."""

    channels, levels = 3, (4, 8)

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, images, partners, masks):
        return self.factor * images


def with_unet(unet: nn.Module, **settings) -> AutoMix:
    method = AutoMix(**settings)
    method.unet = unet
    return method


def loop_loss(network, inputs, probabilities, mixed, partners, lam, weight=1.5):
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


def check(method, network, inputs, targets, probabilities, weight=1.5):
    drawn = method.draw(network, inputs, targets, seeded())
    mixed = method.unet(inputs[: len(drawn.partners)], drawn.partners, drawn.masks)
    truth = loop_loss(network, inputs, probabilities, mixed, drawn.partners, float(drawn.lam), weight)
    ours = method(network, inputs, targets, generator=seeded()).total
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)  # lambda has single precision
    parameters = [*network.parameters(), *method.parameters()]
    pairs = zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(truth, parameters), strict=True)
    for mine, wanted in pairs:
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("b", [1, 2, 7])
@pytest.mark.parametrize("settings", [{}, {"share": 1.0, "distance_weight": 0.3, "alpha": 0.4}])
def test_loss_with_a_known_generator_equals_the_loop(settings, b, soft):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(b, 3, 6, 5, dtype=torch.float64)
    probabilities = toy.soft_targets(b, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)
    method = with_unet(Scale(0.7), **settings)
    check(method, network, inputs, probabilities if soft else targets, probabilities, method.distance_weight)


def test_loss_with_its_own_generator_equals_the_loop():
    network = toy.images().double().eval()
    inputs, targets = toy.batch(7, 3, 6, 6, dtype=torch.float64)
    method = AutoMix()
    method.prepare(network)
    check(method, network, inputs, targets, toy.one_hot(targets, dtype=torch.float64))


def test_distance_of_hand_worked_images():
    """Scaled to [0, 1]: images (0, 1) and (1, 0), generated (0, 1): only the second one is at a distance, of 1."""
    inputs = torch.tensor([[-1.0, 3.0], [3.0, -1.0]]).reshape(2, 1, 1, 2)
    method = with_unet(Scale(), share=1.0)
    method.unet.channels = 1
    drawn = method.draw(None, inputs, torch.tensor([0, 1]), seeded())
    for partners, wanted in (([0, 1], 0.0), ([1, 0], 1 - float(drawn.lam))):
        object.__setattr__(drawn, "partners", torch.tensor(partners))
        assert float(drawn.distance(inputs, 5 * inputs + 2)) == pytest.approx(wanted, abs=1e-6)


def test_constant_images_are_at_distance_zero():
    inputs, targets = torch.full((4, 3, 6, 6), 2.0), torch.tensor([0, 1, 2, 3])
    losses = with_unet(Scale().float())(toy.images(), inputs, targets, generator=seeded())
    assert float(losses.terms["distance"]) == 0
    assert losses.total.isfinite()
    method = AutoMix()
    losses = method(toy.images(), inputs, targets, generator=seeded())
    losses.total.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters())


# ------------------------------------------------------------------------------------------------------ what it draws


def test_draws_follow_their_distributions():
    network, (inputs, targets) = toy.images(), toy.batch(9, 3, 6, 6)
    method = AutoMix()
    generator = seeded()
    drawn = [method.draw(network, inputs, targets, generator) for _ in range(400)]
    assert stats.kstest([float(d.lam) for d in drawn], "uniform").pvalue > 0.01
    for one in drawn:
        assert sorted(one.partners.tolist()) == [0, 1, 2, 3]
        assert [int(mask.sum()) for mask in one.masks] == [
            round(channels * float(one.lam)) for channels in (16, 32, 64, 128, 128)
        ]
    seats = torch.stack([d.partners for d in drawn])
    for column in seats.T:
        assert stats.chisquare(torch.bincount(column, minlength=4).numpy()).pvalue > 1e-3
    chosen = torch.stack([d.masks[0] for d in drawn]).float().sum(0)  # each channel as often as any other
    assert (chosen - chosen.mean()).abs().max() < 5 * (400 / 6) ** 0.5


@pytest.mark.parametrize(("b", "share", "mixed"), [(1, 0.5, 1), (2, 0.5, 1), (7, 0.5, 3), (8, 0.25, 2), (5, 1.0, 5)])
def test_a_share_of_the_mini_batch_is_mixed(b, share, mixed):
    inputs, targets = toy.batch(b, 3, 6, 6)
    method = AutoMix(share=share)
    method.prepare(toy.images())
    found, probabilities = method.mix(inputs, targets, num_classes=5, generator=seeded())
    assert torch.equal(found[mixed:], inputs[mixed:])
    assert not any(torch.equal(*pair) for pair in zip(found[:mixed], inputs[:mixed], strict=True))
    assert torch.equal(probabilities[mixed:], toy.one_hot(targets)[mixed:])
    torch.testing.assert_close(probabilities.sum(1), torch.ones(b))


def test_mix_is_what_the_step_trains_on():
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    method = AutoMix()
    method.prepare(network)
    mixed, _ = method.mix(inputs, targets, num_classes=5, generator=seeded())
    network.seen.clear()
    losses = method(network, inputs, targets, generator=seeded())
    assert len(network.seen) == 1  # one training forward, so that batch statistics are updated once
    assert torch.equal(network.seen[0], mixed)
    assert losses.terms.keys() == {"labels", "entropy", "distance"}


# ---------------------------------------------------------------------------------------------------------- generator


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


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 9), (28, 28), (33, 16)])
@pytest.mark.parametrize("b", [1, 2, 5])
def test_images_of_any_size_and_number_keep_their_shape(size, b):
    method = AutoMix(width=4)
    network = toy.images(norm=False)
    inputs, targets = toy.batch(b, 3, *size)
    losses = method(network, inputs, targets, generator=seeded())
    losses.total.backward()
    assert losses.total.isfinite()
    mixed, _ = method.mix(inputs, targets, num_classes=5, generator=seeded())
    assert mixed.shape == inputs.shape
    assert mixed.isfinite().all()


def test_gradients_reach_every_parameter_of_the_generator_and_of_the_network():
    network, (inputs, targets) = toy.images(), toy.batch(8, 3, 32, 32)
    method = AutoMix()
    method(network, inputs, targets, generator=seeded()).total.backward()
    for name, parameter in [*network.named_parameters(), *method.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_generator_fits_network_and_leaves_the_global_state_alone():
    network = toy.Toy(nn.Conv2d(2, 4, 3), width=4, classes=5).bfloat16()
    before = torch.get_rng_state()
    first, second = AutoMix(), AutoMix()
    first.prepare(network)
    second.prepare(network)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.unet.channels == 2
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, other)
    unet = first.unet
    first.prepare(network)
    assert first.unet is unet
    inputs, targets = toy.batch(4, 2, 6, 6, dtype=torch.bfloat16)
    total = first(network, inputs, targets, generator=seeded()).total
    assert total.dtype == torch.float32
    assert total.isfinite()


def test_checkpoint_brings_the_generator_back():
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    method = AutoMix(width=4)
    method.prepare(network)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.mul_(1.3)
    twin = AutoMix(width=4)
    twin.prepare(network)
    expected = method(network, inputs, targets, generator=seeded()).total
    assert not torch.equal(twin(network, inputs, targets, generator=seeded()).total, expected)
    twin.load_state_dict(method.state_dict())
    assert torch.equal(twin(network, inputs, targets, generator=seeded()).total, expected)


def test_a_generator_that_trains_brings_images_nearer():
    """In a loop of one's own, prepared before the optimiser is made; the images of each pair are equal."""
    network, (inputs, targets) = toy.images(), toy.batch(4, 3, 8, 8)
    inputs = inputs[:1].expand(4, -1, -1, -1)
    method = AutoMix(width=4, distance_weight=10.0)
    method.prepare(network)
    optimizer = torch.optim.Adam([*network.parameters(), *method.parameters()], lr=1e-2)
    distances = []
    for _ in range(16):
        losses = method(network, inputs, targets, generator=seeded())
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        distances.append(float(losses.terms["distance"]))
    assert distances[-1] < 0.75 * distances[0]


# ------------------------------------------------------------------------------------------------------- composition


def test_a_teacher_sees_its_own_view_generated_alike():
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    inputs, targets = toy.batch(7, 3, 6, 6)
    other = toy.batch(7, 3, 6, 6, seed=5)[0]
    method = AutoMix()
    drawn = method.draw(student, inputs, targets, seeded())
    logits, wanted = student(drawn.mix(inputs)), drawn.mix_targets(toy.one_hot(targets))
    labels = functional.cross_entropy(logits, wanted)
    taught = functional.cross_entropy(logits, teacher(drawn.mix(other)).detach().softmax(-1))
    entropy = -(wanted * wanted.clamp(min=1e-30).log()).sum(1).mean()
    distance = drawn.distance(inputs, drawn.mix(inputs))
    ours = method(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3))
    torch.testing.assert_close(ours.total, 0.3 * (labels - entropy) + 0.7 * taught + 1.5 * distance)
    torch.testing.assert_close(ours.terms["teacher"], taught.detach())
    ours.total.backward()
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("reading", ["predict", "mix"])
def test_composes(reading):
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    distilled = SelfDistilled(AutoMix(width=4), gamma=0.5, teacher=reading)
    assert isinstance(distilled, Method)
    assert [part.name for part in submethods(distilled)] == ["self-distilled", "automix"]
    distilled(network, (inputs, inputs.flip(-1)), targets, generator=seeded()).total.backward()
    both = Alternate((AutoMix(width=4), ERM()))
    kinds = {frozenset(both(network, inputs, targets, generator=seeded(s)).terms) for s in range(8)}
    assert kinds == {frozenset({"labels"}), frozenset({"labels", "entropy", "distance"})}


def engine(method: Method) -> Any:
    lab = pytest.importorskip("multimix.lab.train")
    data = pytest.importorskip("multimix.lab.bench.step")
    config = lab.TrainConfig(
        data="noise", method=method, optimizer=lab.SGD(learning_rate=0.05), device="cpu", width=2, batch_size=8
    )
    return lab.Engine(config, data.random_images(32, 16, classes=5))


def advance(run: Any, steps: int) -> list[float]:
    return [float(run.step(*batch)[0]) for _, batch in zip(range(steps), run.epoch(), strict=False)]


def test_engine_trains_the_generator_and_resumes_it():
    method = Alternate((AutoMix(width=4), ERM()), (0.9, 0.1))
    whole = engine(method)
    start = copy.deepcopy(whole.state())
    advance(whole, 4)
    killed = engine(method)
    advance(killed, 2)
    saved = copy.deepcopy(killed.state())
    resumed = engine(method)
    resumed.load(saved)
    advance(resumed, 2)
    ended, wanted, (first,) = resumed.state(), whole.state(), start["method"]
    for key in ("network", "method", "generator", "at"):
        torch.testing.assert_close(ended[key], wanted[key], rtol=0, atol=0)
    assert not any(torch.equal(wanted["method"][0][name], first[name]) for name in first)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha must be finite and greater than 0"),
        ({"distance_weight": -1.0}, "distance_weight must be finite and not negative, got -1.0"),
        ({"distance_weight": float("nan")}, "distance_weight must be finite and not negative, got nan"),
        ({"share": 0.0}, r"share must lie in \(0, 1\], got 0.0"),
        ({"share": 1.5}, r"share must lie in \(0, 1\], got 1.5"),
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"channels": 2.0}, "channels must be a whole number of at least 1, got 2.0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AutoMix(**settings)


@pytest.mark.bad_input
def test_what_it_needs_is_named():
    inputs, targets = toy.batch(4, 3, 6, 6)
    with pytest.raises(ValueError, match=r"inputs must be images of shape \(b, c, h, w\) for AutoMix, got \(4, 8\)"):
        AutoMix()(toy.vectors(), *toy.batch(4, 8))
    with pytest.raises(ValueError, match="channels must be given to AutoMix: the network has no convolution"):
        AutoMix().prepare(toy.vectors())
    with pytest.raises(ValueError, match=r"inputs must have 2 channels for AutoMix, got \(4, 3, 6, 6\)"):
        AutoMix(channels=2)(toy.images(), inputs, targets)
    with pytest.raises(ValueError, match="network must be given to AutoMix, here or to prepare"):
        AutoMix().mix(inputs, targets, num_classes=5)
    with pytest.raises(ValueError, match="num_classes must be given"):
        AutoMix().mix(inputs, targets)
    with pytest.raises(TypeError, match="network must be a torch module for AutoMix, got function"):
        AutoMix().prepare(lambda x: x)
