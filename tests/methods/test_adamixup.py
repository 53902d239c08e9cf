"""AdaMixUp against loops, given what it drew, and its policy against known logits."""

import copy
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods.adamixup import AdaMixUp
from multimix.protocols import Method, Teacher, submethods


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
@pytest.mark.parametrize(("b", "held_out"), [(1, 0.5), (2, 0.5), (7, 0.5), (6, 0.0), (5, 0.9)])
def test_step_equals_the_loop(b, held_out, soft):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(b, 3, 6, 5, dtype=torch.float64)
    probabilities = toy.soft_targets(b, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)
    method = prepared(network, held_out=held_out)
    drawn = method.draw(network, inputs, targets, seeded())
    classified, told = loop_losses(method, network, inputs, probabilities, drawn)
    ours = method(network, inputs, probabilities if soft else targets, generator=seeded())
    torch.testing.assert_close(ours.total, classified + told, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.terms["labels"], classified.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.terms["intrusion"], told.detach(), rtol=1e-6, atol=1e-7)
    learning = [p for p in [*network.parameters(), *method.parameters()] if p.requires_grad]
    found = torch.autograd.grad(ours.total, learning)
    for mine, truth in zip(found, torch.autograd.grad(classified + told, learning), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-5, atol=1e-9)


# ------------------------------------------------------------------------------------------------------------ lambda


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


def test_the_policys_lambda_stays_between_0_and_1_whatever_it_says():
    network, (inputs, targets) = toy.images(), toy.batch(64, 3, 6, 6)
    method = AdaMixUp(held_out=0.0)
    for seed, bias in enumerate([(30.0, 0.0, -30.0), (0.0, 30.0, -30.0), (0.0, 0.0, -200.0), (-90.0, -90.0, 90.0)]):
        method.prepare(network)
        with torch.no_grad():
            method.policy.head[1].bias.copy_(torch.tensor(bias))
        lam = method.draw(network, inputs, targets, seeded(seed)).lam
        assert lam.min() >= 0
        assert lam.max() <= 1


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


@pytest.mark.parametrize(
    ("b", "held_out", "mixed"), [(1, 0.5, 1), (2, 0.5, 1), (7, 0.5, 4), (8, 0.25, 6), (3, 0.99, 1)]
)
def test_the_held_out_share_is_not_mixed_first(b, held_out, mixed):
    inputs, targets = toy.batch(b, 3, 6, 6)
    drawn = AdaMixUp(held_out=held_out).draw(toy.images(), inputs, targets, seeded())
    assert len(drawn.partners) == mixed
    both = drawn.mix(inputs)
    assert len(both) == 2 * mixed
    assert torch.equal(both[mixed:], inputs[:mixed])


# ----------------------------------------------------------------------------------------------------------- learning


def test_one_forward_through_the_network_sees_mixed_clean_and_held_out():
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    method = AdaMixUp()
    method.prepare(network)
    drawn = method.draw(network, inputs, targets, seeded())
    network.seen.clear()
    method(network, inputs, targets, generator=seeded())
    assert len(network.seen) == 1
    assert torch.equal(network.seen[0], torch.cat([drawn.mix(inputs), inputs[4:]]))
    assert network.blocks[1][1].num_batches_tracked == 1


def test_gradients_reach_policy_discriminator_and_network():
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    method = AdaMixUp()
    method(network, inputs, targets, generator=seeded()).total.backward()
    learning = [*network.named_parameters(), *method.named_parameters()]
    left_out = {name for name, p in learning if not p.requires_grad}
    assert left_out == {"policy.trunk.classifier.weight", "policy.trunk.classifier.bias"}
    for name, parameter in learning:
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_the_discriminator_learns_to_tell_and_the_policy_moves():
    """In a loop of one's own, prepared before the optimiser is made."""
    network, (inputs, targets) = toy.images(), toy.batch(16, 3, 6, 6)
    method = AdaMixUp()
    method.prepare(network)
    optimizer = torch.optim.Adam([*network.parameters(), *method.parameters()], lr=2e-2)
    told, start = [], copy.deepcopy(method.policy.state_dict())
    for step in range(40):
        losses = method(network, inputs, targets, generator=seeded(step % 4))
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        told.append(float(losses.terms["intrusion"]))
    assert told[0] == pytest.approx(torch.tensor(2.0).log().item(), abs=0.01)  # heads start with next to no weight
    assert sum(told[-4:]) / 4 < 0.6  # by their numbers alone, 8 against 16, it would be 0.64
    assert not torch.equal(method.policy.state_dict()["head.1.bias"], start["head.1.bias"])


def test_modules_fit_the_network_and_leave_the_global_state_alone():
    network = toy.images().bfloat16()
    before = torch.get_rng_state()
    first, second = AdaMixUp(), AdaMixUp()
    first.prepare(network)
    second.prepare(network)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, other)
    shared = {p.data_ptr() for p in network.parameters()} & {p.data_ptr() for p in first.parameters()}
    assert not shared
    policy = first.policy
    first.prepare(network)
    assert first.policy is policy
    total = first(network, *toy.batch(4, 3, 6, 6, dtype=torch.bfloat16), generator=seeded()).total
    assert total.dtype == torch.float32
    assert total.isfinite()


@pytest.mark.parametrize("make", [toy.images, toy.bent, toy.vectors])
def test_width_is_read_from_the_network(make):
    method = AdaMixUp()
    method.prepare(make())
    assert method.discriminator.in_features == 6


def test_vectors_and_single_positions_will_do():
    for b in (1, 2, 3, 7):
        losses = AdaMixUp()(toy.vectors(), *toy.batch(b, 8), generator=seeded())
        losses.total.backward()
        assert losses.total.isfinite()
        losses = AdaMixUp()(toy.images(kernel=1), *toy.batch(b, 3, 1, 1), generator=seeded())
        assert losses.total.isfinite()


def test_constant_images_give_finite_losses_and_gradients():
    network, method = toy.images(), AdaMixUp()
    losses = method(network, torch.full((4, 3, 6, 6), 2.0), torch.zeros(4, dtype=torch.long), generator=seeded())
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


def test_checkpoint_brings_policy_and_discriminator_back():
    network, (inputs, targets) = toy.images().eval(), toy.batch(7, 3, 6, 6)
    method, twin = prepared(network), AdaMixUp()
    twin.prepare(network)
    expected = method(network, inputs, targets, generator=seeded()).total
    assert not torch.equal(twin(network, inputs, targets, generator=seeded()).total, expected)
    twin.load_state_dict(method.state_dict())
    assert torch.equal(twin(network, inputs, targets, generator=seeded()).total, expected)


# ------------------------------------------------------------------------------------------------------- composition


def test_a_teacher_sees_its_own_view_mixed_alike():
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    inputs, targets = toy.batch(7, 3, 6, 6)
    other = toy.batch(7, 3, 6, 6, seed=5)[0]
    method = prepared(student)
    drawn = method.draw(student, inputs, targets, seeded())
    logits, wanted = student(drawn.mix(inputs)), drawn.mix_targets(toy.one_hot(targets))
    labels = functional.cross_entropy(logits, wanted)
    taught = functional.cross_entropy(logits, teacher(drawn.mix(other)).detach().softmax(-1))
    ours = method(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3))
    torch.testing.assert_close(ours.total.detach(), 0.3 * labels + 0.7 * taught + ours.terms["intrusion"])
    torch.testing.assert_close(ours.terms["teacher"], taught.detach())
    ours.total.backward()
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("reading", ["predict", "mix"])
def test_composes(reading):
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    distilled = SelfDistilled(AdaMixUp(), gamma=0.5, teacher=reading)
    assert isinstance(distilled, Method)
    assert [part.name for part in submethods(distilled)] == ["self-distilled", "adamixup"]
    distilled(network, (inputs, inputs.flip(-1)), targets, generator=seeded()).total.backward()
    both = Alternate((AdaMixUp(), ERM()))
    kinds = {frozenset(both(network, inputs, targets, generator=seeded(s)).terms) for s in range(8)}
    assert kinds == {frozenset({"labels"}), frozenset({"labels", "intrusion"})}


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


def test_engine_trains_policy_and_discriminator_and_resumes_them():
    method = Alternate((AdaMixUp(), ERM()), (0.9, 0.1))
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
    same = {name for name in first if torch.equal(wanted["method"][0][name], first[name])}
    assert same == {"policy.trunk.head.weight", "policy.trunk.head.bias"}


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": -0.1}, r"held_out must lie in \[0, 1\), got -0.1"),
        ({"held_out": 1.0}, r"held_out must lie in \[0, 1\), got 1.0"),
        ({"held_out": float("nan")}, r"held_out must lie in \[0, 1\), got nan"),
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"width": True}, "width must be a whole number of at least 1, got True"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AdaMixUp(**settings)


@pytest.mark.bad_input
def test_what_it_needs_is_named():
    inputs, targets = toy.batch(4, 3, 6, 6)
    with pytest.raises(ValueError, match="width must be the size of the network's pooled embedding, 6, for AdaMixUp"):
        AdaMixUp(width=7)(toy.images(), inputs, targets)
    with pytest.raises(TypeError, match="network must be a torch module for AdaMixUp, got function"):
        AdaMixUp().prepare(lambda x: x)

    class Headless(toy.Toy):
        def __init__(self):
            super().__init__(nn.Conv2d(3, 5, 3), width=5, classes=5, affine=False)
            self.classifier = nn.Softplus()

    with pytest.raises(ValueError, match="width must be given to AdaMixUp: the network has no linear layer"):
        AdaMixUp().prepare(Headless())
    AdaMixUp(width=5)(Headless(), inputs, targets).total.backward()
