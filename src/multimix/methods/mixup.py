"""Input mixup."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from multimix.methods._predict import InputMixing, MixesInputs
from multimix.ops import beta, check_concentration, draw_partners, mix_pairs
from multimix.protocols import Network


@dataclass(frozen=True)
class Mixup(MixesInputs):
    """Mix pairs of inputs and their targets: ``lam * x + (1 - lam) * x[partners]``.

    Lambda ~ Beta(alpha, alpha), one a step. Works on inputs of any shape: images, tokens, features.

    Reference:
        Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018; defaults of its CIFAR code. Equation (5)
        of the MultiMix paper.
    """

    name: ClassVar[str] = "mixup"

    alpha: float = 1.0
    """Concentration of the Beta distribution; below 1 most mixed inputs stay near one of the two."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        check_concentration("alpha", self.alpha)

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Pairing":
        """Draw partners and lambda."""
        return draw_pairing(len(inputs), self.alpha, inputs, generator)


@dataclass(frozen=True)
class Pairing(InputMixing):
    """Who is mixed with whom, and the weight of the first."""

    partners: Tensor
    lam: Tensor

    def mix(self, inputs: Tensor) -> Tensor:
        """Return every value, an input or a hidden representation, mixed with its partner's."""
        return mix_pairs(inputs, self.partners, self.lam)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities."""
        return self.mix(targets)


def draw_pairing(b: int, alpha: float, like: Tensor, generator: Generator | None) -> Pairing:
    """Return a random pairing of b examples with one lambda for all, on the device of ``like``."""
    partners = draw_partners(b, generator=generator, device=like.device)
    return Pairing(partners, beta(1, alpha, generator=generator, device=like.device)[0])
