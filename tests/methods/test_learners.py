"""AutoMix and AdaMixUp, which learn modules of their own: against loops, trained, saved, missed where forgotten."""

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

import cases
import toy
from methods.shared import problem, same_gradients
from multimix.distill import SelfDistilled
from multimix.methods import ERM, AdaMixUp, Alternate, AutoMix, Mixup
from multimix.methods.automix import MixingUNet
from multimix.protocols import Method
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
    """The loss of AutoMix's code, image by image."""
    n, b = len(partners), len(inputs)
    logits = network(torch.cat([mixed, inputs[n:]])).log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for i, target in enumerate(probabilities):
        wanted = lam * target + (1 - lam) * probabilities[partners[i]] if i < n else target
        total = total + (torch.xlogy(wanted, wanted) - wanted * logits[i]).sum() / b

    def scaled(images):
        low, high = images.min(), images.max()
        return (images - low) / (high - low) if high > low else images - low

    clean, generated = scaled(inputs[:n]), scaled(mixed)
    for i, j in enumerate(partners):
        own, other = (clean[i] - generated[i]).abs().mean(), (clean[j] - generated[i]).abs().mean()
        total = total + weight * (lam * own + (1 - lam) * other) / n
    return total


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
    with pytest.raises(ValueError, match="width must be the size of the network's pooled embedding, 6, for AdaMixUp"):
        AdaMixUp(width=7)(toy.images(), inputs, targets)


class Region(nn.Module):
    """A policy that says the same of every pair; it remembers what it saw."""

    def __init__(self, a: float, b: float):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([a, b, 1 - a - b], dtype=torch.float64).log())
        self.seen: list[torch.Tensor] = []

    def forward(self, averages):
        self.seen.append(averages.detach())
        return self.logits.softmax(0).expand(len(averages), 3)


def prepared(network: nn.Module, **settings) -> AdaMixUp:
    """A method whose heads are far from the tiny weights that they start with."""
    method = AdaMixUp(**settings)
    method.prepare(network)
    with torch.no_grad():
        for head in (method.discriminator, *method.policy.head):
            head.weight.mul_(300)
    return method


def loop_losses(method, network, inputs, probabilities, drawn):
    """Cross-entropy of mixed and clean inputs, and that of the discriminator, example by example.

    Lambda may carry a gradient into the inputs, never into the targets.
    """
    n, b = len(drawn.partners), len(inputs)
    examples, wanted = [], []
    for i in range(n):
        lam, j = drawn.lam[i].to(inputs.dtype), drawn.partners[i]
        examples.append(lam * inputs[i] + (1 - lam) * inputs[j])
        wanted.append(lam.item() * probabilities[i] + (1 - lam.item()) * probabilities[j])
    examples += list(inputs)  # the clean ones that are classified, then those held out
    wanted += list(probabilities[:n])
    embeddings = network.pool(network.embed(torch.stack(examples)))
    scores = network.classify(embeddings).log_softmax(-1)
    classified = -sum((wanted[i] * scores[i]).sum() for i in range(2 * n)) / (2 * n)
    weight, bias = method.discriminator.weight, method.discriminator.bias
    answers = (embeddings @ weight.T + bias).log_softmax(-1)
    told = -sum(answers[i, 0 if i < n else 1] for i in range(n + b)) / (n + b)
    return classified, told


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("b", "held_out", "mixed"), [(1, 0.5, 1), (2, 0.5, 1), (7, 0.5, 4), (6, 0.0, 6), (5, 0.9, 1), (8, 0.25, 6)]
)
def test_step_equals_the_loop(b, held_out, mixed, soft):
    network, inputs, given, probabilities = problem(b, 6, 5, soft=soft)
    method = prepared(network, held_out=held_out)
    drawn = method.draw(network, inputs, given, seeded())
    assert len(drawn.partners) == mixed
    assert torch.equal(drawn.mix(inputs)[mixed:], inputs[:mixed])
    classified, told = loop_losses(method, network, inputs, probabilities, drawn)
    network.seen.clear()
    ours = method(network, inputs, given, generator=seeded())
    assert len(network.seen) == 1  # mixed, clean and held-out inputs go through it together
    torch.testing.assert_close(ours.terms["labels"], classified.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.terms["intrusion"], told.detach(), rtol=1e-6, atol=1e-7)
    same_gradients(ours.total, classified + told, [*network.parameters(), *method.parameters()], atol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.3), (0.5, 0.499), (0.001, 0.998)])
def test_lambda_is_uniform_in_the_region(a, b):
    inputs, targets = toy.batch(800, 3, 2, 2)
    network = toy.images()
    method = AdaMixUp(held_out=0.0)
    method.prepare(network)
    method.policy = Region(a, b)
    lam = method.draw(network, inputs, targets, seeded()).lam.detach().double()
    assert lam.min() >= a - 1e-6
    assert lam.max() <= a + b + 1e-6
    assert stats.kstest(lam.numpy(), stats.uniform(a, b).cdf).pvalue > 0.01


def test_lambda_passes_the_gradient_of_the_reparametrisation():
    """d lambda / d a = 1 and d lambda / d b = u."""
    network, (inputs, targets) = toy.images(), toy.batch(6, 3, 6, 6)
    method = prepared(network)
    regions: list[torch.Tensor] = []
    method.policy.register_forward_hook(lambda module, given, out: regions.append(out))
    lam = method.draw(network, inputs, targets, seeded()).lam
    (gradient,) = torch.autograd.grad(lam.sum(), regions[0])
    u = (lam - regions[0][:, 0]) / regions[0][:, 1]
    torch.testing.assert_close(gradient, torch.stack([torch.ones_like(u), u, torch.zeros_like(u)], 1))
    assert 0 <= u.min() <= u.max() <= 1


def test_policy_sees_a_noisy_average():
    """Weights are normal, cut off at 2: of constant images 1 and partner 1, half the sum of two such weights."""
    network, targets = toy.images(), torch.zeros(400, dtype=torch.long)
    method = AdaMixUp(held_out=0.0)
    method.prepare(network)
    method.policy = Region(0.3, 0.3)
    method.draw(network, torch.ones(400, 3, 4, 4), targets, seeded())
    (seen,) = method.policy.seen
    assert seen.shape == (400, 3, 4, 4)
    assert seen.abs().max() <= 2
    assert abs(float(seen.mean())) < 0.02
    assert float(seen.var()) == pytest.approx(stats.truncnorm(-2, 2).var() / 2, rel=0.03)
    one = torch.zeros(400, 3, 4, 4)
    one[0] = 1.0  # only pairs with the first image see anything
    drawn = method.draw(network, one, targets, seeded(1))
    lit = method.policy.seen[-1].flatten(1).abs().sum(1) > 0
    expected = (drawn.partners == 0) | (torch.arange(400) == 0)
    assert torch.equal(lit, expected)


def test_partners_come_from_the_whole_mini_batch():
    network, (inputs, targets) = toy.images(), toy.batch(8, 3, 4, 4)
    method = AdaMixUp()
    partners = [method.draw(network, inputs, targets, seeded(s)).partners for s in range(60)]
    assert all(len(set(p.tolist())) == 4 for p in partners)
    assert set(torch.cat(partners).tolist()) == set(range(8))


@pytest.mark.parametrize("make", [toy.images, toy.bent, toy.vectors])
def test_width_is_read_from_the_network(make):
    method = AdaMixUp()
    method.prepare(make())
    assert method.discriminator.in_features == 6


def test_the_heads_start_with_next_to_no_weight():
    """So the discriminator knows nothing, and the policy's three shares are even."""
    network, (inputs, targets) = toy.images(), toy.batch(16, 3, 6, 6)
    method = AdaMixUp()
    terms = method(network, inputs, targets, generator=seeded()).terms
    assert float(terms["intrusion"]) == pytest.approx(torch.tensor(2.0).log().item(), abs=0.01)
    torch.testing.assert_close(method.policy(inputs), torch.full((16, 3), 1 / 3), rtol=0, atol=0.01)


LEARNERS = {"automix": lambda: AutoMix(width=4), "adamixup": AdaMixUp}
FROZEN = {"automix": set(), "adamixup": {"policy.trunk.classifier.weight", "policy.trunk.classifier.bias"}}
WARNING = r"learns nothing: .* torch\.optim\.SGD\(\[\*network\.parameters\(\), \*method\.parameters\(\)\], lr=\.\.\.\)"
learners = pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
def test_gradients_reach_all_that_is_to_learn(name):
    network, (inputs, targets) = toy.images(), toy.batch(8, 3, 32, 32)
    method = AutoMix() if name == "automix" else AdaMixUp()
    method(network, inputs, targets, generator=seeded()).total.backward()
    learning = [*network.named_parameters(), *method.named_parameters()]
    assert {key for key, p in learning if not p.requires_grad} == FROZEN[name]
    for key, parameter in learning:
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().sum() > 0, key


@learners
def test_modules_fit_the_network_and_leave_the_global_state_alone(make):
    network = toy.images().bfloat16()
    before = torch.get_rng_state()
    first, second = make(), make()
    first.prepare(network)
    second.prepare(network)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, other)
    own = [p.data_ptr() for p in first.parameters()]
    assert not {p.data_ptr() for p in network.parameters()} & set(own)
    first.prepare(network)
    assert [p.data_ptr() for p in first.parameters()] == own
    total = first(network, *toy.batch(4, 3, 6, 6, dtype=torch.bfloat16), generator=seeded()).total
    assert total.dtype == torch.float32
    assert total.isfinite()


def engine(method: Method) -> Any:
    lab = pytest.importorskip("multimix.lab.train")
    data = pytest.importorskip("multimix.lab.bench.step")
    config = lab.TrainConfig(
        data="noise", method=method, optimizer=lab.SGD(learning_rate=0.05), device="cpu", width=2, batch_size=8
    )
    return lab.Engine(config, data.random_images(32, 16, classes=5))


def advance(run: Any, steps: int) -> None:
    for _, batch in zip(range(steps), run.epoch(), strict=False):
        run.step(*batch)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_engine_trains_the_modules_and_resumes_them(name):
    method = Alternate((LEARNERS[name](), ERM()), (0.9, 0.1))
    whole = engine(method)
    (first,) = copy.deepcopy(whole.state())["method"]
    advance(whole, 4)
    killed = engine(method)
    advance(killed, 2)
    resumed = engine(method)
    resumed.load(copy.deepcopy(killed.state()))
    advance(resumed, 2)
    ended, wanted = resumed.state(), whole.state()
    for key in ("network", "method", "generator", "at"):
        torch.testing.assert_close(ended[key], wanted[key], rtol=0, atol=0)
    same = {key.replace("head", "classifier") for key in first if torch.equal(wanted["method"][0][key], first[key])}
    assert same == FROZEN[name]


@learners
def test_what_is_no_module_or_has_no_layer_to_read_from_is_refused(make):
    bare = toy.Toy(width=3, classes=3, affine=False)
    bare.classifier = nn.Softplus()
    with pytest.raises(TypeError, match=r"network must be a torch module for A.*, got function"):
        make().prepare(lambda x: x)
    with pytest.raises(ValueError, match=r"(width|channels) must be given to A.*: the network has no (linear|convol)"):
        make().prepare(bare)


# ------------------------------------------------------------------------------------------------- loops that forget


def loop(method, network, optimiser, inputs, targets, *, steps=8, accumulate=1):
    for step in range(steps):
        cases.run(method, network, inputs, targets, step).total.backward()
        if (step + 1) % accumulate == 0:
            optimiser.step()
            optimiser.zero_grad()


@learners
@pytest.mark.parametrize(
    "wrap",
    [lambda m: m, SelfDistilled, lambda m: Alternate([m, Mixup()], [0.9, 0.1])],
    ids=["alone", "taught", "in turn"],
)
def test_a_loop_that_trains_the_network_alone_is_told_once(make, wrap):
    network, *batch = cases.images()
    method = wrap(make())
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    with pytest.warns(UserWarning, match=WARNING) as told:
        loop(method, network, optimiser, *batch, steps=14)
    assert len(told) == 1


@learners
@pytest.mark.parametrize(
    "case", ["trains both", "fused", "network stands still", "modules frozen", "led", "no gradient"]
)
def test_nor_is_one_that_trains_both_or_nothing_or_knows_what_it_does(make, case):
    network, *batch = cases.images()
    method = make()
    method.prepare(network)
    method.requires_grad_(case != "modules frozen")
    method.led = case == "led"
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0 if case == "network stands still" else 0.01)
    if case in ("trains both", "fused"):
        both = [*network.parameters(), *method.parameters()]
        optimiser = torch.optim.Adam(both, lr=1e-6, fused=case == "fused")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if case != "no gradient":
            loop(method, network, optimiser, *batch, accumulate=2, steps=14)
            return
        with torch.no_grad():
            for _ in range(8):
                network.classifier.weight.add_(1)
                cases.run(method, network, *batch)
