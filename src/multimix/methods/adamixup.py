"""AdaMixUp."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from multimix._declared import Count, Interval
from multimix._modules import as_module, copied
from multimix.methods._images import uniform
from multimix.methods._learned import LearnsBeside
from multimix.methods._predict import Mixing, Step
from multimix.ops import accurate, check_batch, draw_partners
from multimix.protocols import Losses, Network


@dataclass(eq=False)
class AdaMixUp(LearnsBeside):
    r"""Mixup with weights from a learned policy that avoids mixed images which could pass for clean ones.

    A policy network, a copy of the network with a head of its own, sees the average of two images, each value weighed
    at random, and answers with a softmax (a, b, .). Lambda is uniform in [a, a + b], which lies in [0, 1]. The
    classifier trains on the mixed images and their first ones, clean, with cross-entropy. An intrusion discriminator,
    a linear layer on the classifier's pooled embedding, learns to tell mixed images from clean ones, the held-out ones
    among them; its cross-entropy is added. Both losses train the policy through the mixed images. Lambda in the targets
    passes no gradient on, as in the authors' code. Works on inputs of any shape that the network takes.

    The training engine trains policy and discriminator along with the network. In a loop of your own, build them by
    ``method.prepare(network)`` and give the optimiser ``[*network.parameters(), *method.parameters()]``. Without
    ``prepare`` they are built in the first step, where no optimiser knows of them.

    Reference:
        Guo, Mao, Zhang, "MixUp as locally linear out-of-manifold regularization", AAAI 2019; defaults of the authors'
        code at github.com/SITE5039/AdaMixUp.
    """

    name: ClassVar[str] = "adamixup"

    held_out: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Share of the mini-batch that only the discriminator sees (and, as second images, the mixing)."""
    width: Count | None = None
    """Size of the network's pooled embedding; by default what its last linear layer takes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.policy: Policy | None = None
        self.discriminator: nn.Linear | None = None

    def prepare(self, network: Network) -> None:
        """Build policy and discriminator, unless there are some.

        Raises:
            ValueError: If ``width`` is not given and the network has no linear layer to read it from.
            TypeError: If the network is not a torch module.
        """
        self.meet(network, anew=True)
        if self.discriminator is None:
            width = self.width or _embedding_width(network)
            self.policy = self.build(network, lambda: Policy(network, width))
            self.discriminator = self.build(network, lambda: _small_linear(width, 2))
        self.met(network)

    def check(self, inputs: Any, targets: Tensor) -> None:
        """Raise unless this is a mini-batch of numbers that can be mixed."""
        check_batch(inputs, targets)

    def losses(self, step: Step) -> Losses:
        """Return the classification losses of mixed and clean inputs plus the discriminator's."""
        network, inputs = step.network, step.inputs
        self.look_for_an_optimiser(network)
        step, drawn = cast("tuple[Step, PolicyMixing]", self.drawn(step))
        n = len(drawn.partners)
        embeddings = network.pool(network.embed(torch.cat([drawn.mix(inputs), inputs[n:]])))
        _check_width(embeddings, cast("nn.Linear", self.discriminator).in_features)
        losses = self.compare(step, drawn, network.classify(embeddings[: 2 * n]))
        clean = torch.arange(len(embeddings), device=embeddings.device) >= n
        intrusion = cross_entropy(accurate(cast("nn.Linear", self.discriminator)(embeddings)), clean.long())
        return Losses(losses.total + intrusion, {**losses.terms, "intrusion": intrusion.detach()})

    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "PolicyMixing":
        """Draw pairs and, from the policy, each pair's lambda; the first images of the mini-batch are mixed."""
        self.ready(network)
        b = len(inputs)
        n = b - min(int(b * self.held_out), b - 1)
        partners = draw_partners(b, generator=generator, device=inputs.device)[:n]
        first, second = inputs[:n], inputs[partners]
        average = (_noise(first, generator) * first + _noise(first, generator) * second) / 2
        region = cast("Policy", self.policy)(average)
        lam = region[:, 0] + uniform(n, generator=generator, like=inputs).to(region) * region[:, 1]
        return PolicyMixing(partners, lam.clamp(max=1))  # which rounding could exceed


@dataclass(frozen=True)
class PolicyMixing(Mixing):
    """The second input of each pair and the weight of its first, which is an early one of the mini-batch."""

    partners: Tensor
    lam: Tensor

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mixed inputs, then the first of each pair as it is."""
        return self._mix(inputs, self.lam)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities of :meth:`mix`; the policy gets no gradient from them."""
        return self._mix(targets, self.lam.detach())

    def _mix(self, values: Tensor, lam: Tensor) -> Tensor:
        first = values[: len(lam)]
        lam = lam.to(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
        return torch.cat([torch.lerp(values[self.partners], first, lam), first])


class Policy(nn.Module):
    """Where lambda of a pair may lie: a network's trunk, copied, and a head."""

    def __init__(self, network: Network, width: int):
        """Copy the network; its own head stays behind and is not trained."""
        super().__init__()
        self.width = width
        self.trunk = copied(as_module(network, "AdaMixUp")).train()
        head = cast("Network", self.trunk).head
        if head is not None:
            head.requires_grad_(False)
        self.head = nn.Sequential(_small_linear(width, 100), _small_linear(100, 3))

    def forward(self, averages: Tensor) -> Tensor:
        """Return (a, b, .), of sum 1, for each average of two inputs."""
        trunk, n = cast("Network", self.trunk), len(averages)
        if n == 1:  # batch normalisation cannot train on a single value
            averages = torch.cat([averages, averages])
        embeddings = trunk.pool(trunk.embed(averages))
        _check_width(embeddings, self.width)
        return accurate(self.head(embeddings))[:n].softmax(-1)


def _check_width(embeddings: Tensor, width: int) -> None:
    if (size := embeddings.shape[-1]) != width:
        raise ValueError(f"width must be the size of the network's pooled embedding, {size}, for AdaMixUp, got {width}")


def _embedding_width(network: Network) -> int:
    modules, head = as_module(network, "AdaMixUp").modules(), network.head
    if isinstance(head, nn.Conv2d):
        return head.in_channels
    linear = [head] if isinstance(head, nn.Linear) else [m for m in modules if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError("width must be given to AdaMixUp: the network has no linear layer to read it from")
    return linear[-1].in_features


def _small_linear(inside: int, outside: int) -> nn.Linear:
    layer = nn.Linear(inside, outside)
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)
    return layer


def _noise(like: Tensor, generator: Generator | None) -> Tensor:
    """Return weights drawn from the standard normal distribution, cut off at two standard deviations."""
    home = like.device if generator is None else generator.device
    return nn.init.trunc_normal_(torch.empty(like.shape, device=home), generator=generator).to(like)
