"""Plain training, and what mixes any inputs or hidden representations linearly."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Generator, Tensor

from multimix._declared import Checked, Ge, MinLen, Positive
from multimix.methods._predict import MixesInputs, Mixing, PairMixing, Predicts
from multimix.ops import (
    Mode,
    batch_size,
    beta,
    check_examples,
    draw_couples,
    draw_partners,
    interpolate,
    no_autocast,
    zeta_weights,
)
from multimix.protocols import Network, check_network, require_part


@dataclass(frozen=True)
class ERM(MixesInputs):
    """Empirical risk minimisation: nothing is mixed (equation (2) of the MultiMix paper)."""

    name: ClassVar[str] = "erm"
    traced: ClassVar[bool] = True
    label_maps: ClassVar[bool] = True
    mixes: ClassVar[bool] = False
    pastes: ClassVar[bool] = True

    def check(self, inputs: Any, targets: Tensor) -> None:
        """Raise unless inputs hold one example for each target, in whatever form the network takes them."""
        check_examples(inputs, targets)

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw nothing."""
        return Mixing()


@dataclass(frozen=True)
class Mixup(Checked, MixesInputs):
    """Mix pairs of inputs and their targets: ``lam * x + (1 - lam) * x[partners]``.

    Lambda ~ Beta(alpha, alpha), one a step unless ``mode`` says otherwise. Works on inputs of any shape: images,
    tokens, features.

    Reference:
        Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018; defaults of its CIFAR code. Equation (5)
        of the MultiMix paper.
    """

    name: ClassVar[str] = "mixup"
    traced: ClassVar[bool] = True
    label_maps: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution; below 1 most mixed inputs stay near one of the two."""
    mode: Mode = "batch"
    """Who shares a lambda: ``batch``, all; ``pair``, two examples that are each other's partners; ``elem``, nobody."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and lambda."""
        return draw_pairing(len(inputs), self.alpha, inputs, generator, self.mode)


def draw_pairing(b: int, alpha: float, like: Tensor, generator: Generator | None, mode: Mode = "batch") -> PairMixing:
    """Return a random pairing of b examples on the device of ``like``, its lambdas shared by ``mode``."""
    partners, shared, n = draw_sharing(b, mode, like, generator)
    lam = beta(n, alpha, generator=generator, device=like.device)
    return PairMixing(partners, lam[0] if mode == "batch" else lam if shared is None else lam.index_select(0, shared))


def draw_sharing(b: int, mode: Mode, like: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None, int]:
    """Return partners, which draw each example takes (None: its own, or the only one), and how many draws to make."""
    if mode == "pair":
        return *draw_couples(b, generator=generator, device=like.device), (b + 1) // 2
    return draw_partners(b, generator=generator, device=like.device), None, 1 if mode == "batch" else b


@dataclass(frozen=True)
class ManifoldMixup(Checked, Predicts):
    """Mix pairs of hidden representations at a stage drawn anew every step, targets alike; lambda ~ Beta(alpha, alpha).

    The paper's code takes binary cross-entropy on softmax outputs; here it is cross-entropy, as in its text and for
    every other method.

    Inputs that are not numbers to be mixed (token indices, mappings) are mixed from stage 1 on; each sequence keeps its
    own mask, so that what its partner has beyond its end is lost.

    Reference:
        Verma et al., "Manifold mixup: better representations by interpolating hidden states", ICML 2019; alpha and
        stages of its CIFAR code. Equations (3) and (4) of the MultiMix paper.
    """

    name: ClassVar[str] = "manifold-mixup"
    label_maps: ClassVar[bool] = True
    needs_stages: ClassVar[bool] = True

    alpha: Positive = 2.0
    """Concentration of the Beta distribution."""
    stages: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0, 1, 2)
    """Where to mix, 0 being the input; stages that a network does not have are left out."""

    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw a stage that the network has, partners and lambda."""
        check_network(network, "mixing_at", "stages")
        like = inputs if isinstance(inputs, Tensor) else targets
        first = 0 if isinstance(inputs, Tensor) and inputs.is_floating_point() else 1  # indices are not to be mixed
        available = [stage for stage in self.stages if stage in network.stages and stage >= first]
        if not any(available) and any(self.stages):  # inputs alone would be another method
            require_part(network, "stages")
        if not available:
            raise ValueError(
                f"stages must name a stage of the network, {list(network.stages[first:])}, got {self.stages}"
            )
        device = generator.device if generator is not None else None
        stage = available[int(torch.randint(len(available), (), generator=generator, device=device))]
        return AtStage(draw_pairing(batch_size(inputs), self.alpha, like, generator), stage)


class AtStage(PairMixing):
    """Pairs of hidden representations that leave a stage."""

    inside: ClassVar[bool] = True

    def __init__(self, pairing: PairMixing, stage: int) -> None:
        super().__init__(pairing.partners, pairing.lam)
        self._stage = str(stage)  # a constant of compiled code, in which numbers that change become variables

    @property
    def stage(self) -> int:
        """Where to mix."""
        return int(self._stage)

    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        """Return the logits of the mixed mini-batch."""
        with network.mixing_at(self.stage, self.mix):
            return network(inputs)


@dataclass(frozen=True)
class Weighting(Mixing):
    """How much every output (row) takes of every input (column)."""

    weights: Tensor

    def mix(self, inputs: Tensor) -> Tensor:
        """Return every value, an input or class probabilities, mixed with all others."""
        with no_autocast(inputs.device.type):  # which would cost digits of the data
            return interpolate(self.weights, inputs)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities."""
        return self.mix(targets)


@dataclass(frozen=True)
class ZetaMixup(MixesInputs, Checked):
    r"""Mix each input with all others of the mini-batch, in weights that fall off as a power of a random rank.

    The weights of output i are :math:`1, 2^{-\gamma}, 3^{-\gamma}, \dots`, normalised to a sum of 1; the largest is
    that of input i, the others are in random order. Works on inputs of any shape: images, tokens, features.

    Reference:
        Abhishek et al., "Multi-sample zeta-mixup: richer, more realistic synthetic samples from a p-series
        interpolant", Journal of Big Data 2024; default of its code.
    """

    name: ClassVar[str] = "zeta-mixup"
    traced: ClassVar[bool] = True
    label_maps: ClassVar[bool] = True

    gamma: Positive = 2.8
    """How fast the weights fall off; from 1.73 on an input weighs at least as much as all others together."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Weighting:
        """Draw the weights."""
        return Weighting(zeta_weights(len(inputs), self.gamma, generator=generator, device=inputs.device))
