"""Plain training."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from multimix.methods._predict import Mixing, Predicts
from multimix.protocols import Network


@dataclass(frozen=True)
class ERM(Predicts):
    """Empirical risk minimisation: nothing is mixed (equation (2) of the MultiMix paper)."""

    name: ClassVar[str] = "erm"
    calls_only: ClassVar[bool] = True
    label_maps: ClassVar[bool] = True

    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw nothing."""
        return _Nothing()


class _Nothing:
    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        return network(inputs)

    def mix_targets(self, targets: Tensor) -> Tensor:
        return targets
