"""Input mixup."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from multimix._declared import Checked, Positive
from multimix.methods._images import PairMixing
from multimix.methods._predict import MixesInputs
from multimix.ops import Mode, beta, draw_couples, draw_partners
from multimix.protocols import Network


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
    label_maps: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution; below 1 most mixed inputs stay near one of the two."""
    mode: Mode = "batch"
    """Who shares a lambda: ``batch``, all; ``pair``, two examples that are each other's partners; ``elem``, nobody."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Pairing":
        """Draw partners and lambda."""
        return draw_pairing(len(inputs), self.alpha, inputs, generator, self.mode)


@dataclass(frozen=True)
class Pairing(PairMixing):
    """Pairs of which inputs and targets are mixed linearly."""

    def mix(self, inputs: Tensor) -> Tensor:
        """Return every value, an input or a hidden representation, mixed with its partner's."""
        return self.mix_targets(inputs)


def draw_pairing(b: int, alpha: float, like: Tensor, generator: Generator | None, mode: Mode = "batch") -> Pairing:
    """Return a random pairing of b examples on the device of ``like``, its lambdas shared by ``mode``."""
    partners, shared, n = draw_sharing(b, mode, like, generator)
    lam = beta(n, alpha, generator=generator, device=like.device)
    return Pairing(partners, lam[0] if mode == "batch" else lam if shared is None else lam[shared])


def draw_sharing(b: int, mode: Mode, like: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None, int]:
    """Return partners, which draw each example takes (None: its own, or the only one), and how many draws to make."""
    if mode == "pair":
        return *draw_couples(b, generator=generator, device=like.device), (b + 1) // 2
    return draw_partners(b, generator=generator, device=like.device), None, 1 if mode == "batch" else b
