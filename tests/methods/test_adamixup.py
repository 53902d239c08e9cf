"""AdaMixUp against loops, given what it drew, and its policy against known logits."""

import pytest
import torch
from scipy import stats
from torch import nn

import toy
from methods.shared import problem, same_gradients
from multimix.methods.adamixup import AdaMixUp
from toy import seeded


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


@pytest.mark.bad_input
def test_another_width_is_refused():
    with pytest.raises(ValueError, match="width must be the size of the network's pooled embedding, 6, for AdaMixUp"):
        AdaMixUp(width=7)(toy.images(), *toy.batch(4, 3, 6, 6))
