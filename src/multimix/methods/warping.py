"""Mixup with weights of its own: rounded for the targets, or warped by how far apart the two examples are."""

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Generator, Tensor

from multimix._declared import Checked, Positive
from multimix._modules import evaluating
from multimix.methods._predict import MixesInputs, PairMixing
from multimix.methods.mixup import Mixup
from multimix.ops import accurate, beta, draw_partners, mix_pairs
from multimix.protocols import Network, check_network, encode, pool

_CONCENTRATIONS = 1e-6, 1e6  # at these, lambda is 0 or 1, and a half, but for rounding


class TargetsOfTheHeavier(PairMixing):
    """Pairs whose inputs are mixed, and whose target is that of the one that weighs more."""

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mixed inputs."""
        return super().mix_targets(inputs)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the target of the first of each pair where lambda is above a half, else that of the second."""
        return mix_pairs(targets, self.partners, (self.lam > 0.5).to(targets.device, targets.dtype))


@dataclass(frozen=True)
class MixupIO(Mixup):
    """Mixup of the inputs only: each mixed input keeps the whole target of the one that weighs more in it.

    ``lam * x + (1 - lam) * x[partners]`` has target ``y`` where ``lam > 0.5`` and ``y[partners]`` elsewhere, so that no
    target is soft that was not before, and nothing in the loss holds confidence down.

    Reference:
        Wang et al., "On the pitfall of mixup for uncertainty calibration", CVPR 2023, whose public code lacks this
        form; read from torch-uncertainty 0.13, alpha from the configurations of Bouniot et al. (``sim_kernel_mixup``).
    """

    name: ClassVar[str] = "mixup-io"

    alpha: Positive = 0.2
    """Concentration of the Beta distribution; below 1 most mixed inputs stay near one of the two."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and lambda."""
        pairs = super().draw(network, inputs, targets, generator)
        return TargetsOfTheHeavier(pairs.partners, pairs.lam)


@dataclass(frozen=True)
class KernelWarpingMixup(Checked, MixesInputs):
    r"""Mixup whose pairs are mixed the more strongly the closer they are; in later texts Similarity Kernel Mixup.

    Each pair has its own lambda ~ Beta(tau, tau), inputs and targets alike, with

    .. math::
        \tau = \tau_\mathrm{max} \exp\left(-\frac{d / \bar d - 1}{2 \tau_\mathrm{std}^2}\right)

    where d is the squared distance of the two and :math:`\bar d` its mean over the pairs of the mini-batch. A pair at
    the mean distance has ``tau = tau_max``; far ones have lambda near 0 or 1, close ones near a half.

    Distances are those of the network's pooled embeddings, which costs a forward pass more, or of the inputs. That pass
    is in eval mode and leaves the network as it was; the authors make it in training mode, and move the running
    statistics of batch normalisation twice a step.

    The authors draw lambda by the inverse distribution function of Beta(tau, tau) at a uniform number, one a pair: the
    same distribution, drawn here without that function. Their first version, and torch-uncertainty 0.13, takes the
    distribution function of Beta(1 / tau, 1 / tau) instead, the latter with ``(d - 1)`` over the mean distance in place
    of ``d`` over it less 1.

    Reference:
        Bouniot, Mozharovskyi, d'Alché-Buc, "Tailoring mixup to data for calibration", arXiv 2311.01434; abstract read,
        kernel and settings (those for CIFAR) from the authors' code at github.com/qbouniot/sim_kernel_mixup.
    """

    name: ClassVar[str] = "kernel-warping-mixup"

    tau_max: Positive = 1.0
    """Concentration of lambda for a pair at the mean distance; the authors have 0.1 on ImageNet."""
    tau_std: Positive = 0.25
    """How slowly it falls with distance; the authors have 1.25 on Tiny-ImageNet."""
    distance: Literal["embedding", "input"] = "embedding"
    """Between what distances are taken: the network's pooled embeddings, or the inputs."""

    @property
    def needs_network(self) -> bool:  # type: ignore[override]
        """Whether the mixing depends on the network."""
        return self.distance == "embedding"

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners, and each pair's lambda by its distance."""
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        tau = self.concentrations(self._compared(network, inputs), partners)
        return PairMixing(partners, beta(len(inputs), tau, generator=generator, device=inputs.device))

    @torch.no_grad()
    def concentrations(self, compared: Tensor, partners: Tensor) -> Tensor:
        """Return tau of every pair, (b,), by the squared distances of what is compared, (b, ...)."""
        apart = compared.index_select(0, partners).sub_(compared).flatten(1)
        distance = torch.linalg.vector_norm(apart, dim=1).square()
        relative = distance / distance.mean().clamp_min(torch.finfo(distance.dtype).tiny)
        return (self.tau_max * torch.exp((1 - relative) / (2 * self.tau_std**2))).clamp(*_CONCENTRATIONS)

    @torch.no_grad()
    def _compared(self, network: Network | None, inputs: Tensor) -> Tensor:
        if not self.needs_network:
            return accurate(inputs)
        check_network(network, called=True)
        with evaluating(network):
            known = cast("Network", network)
            return accurate(pool(known, encode(known, inputs)))
