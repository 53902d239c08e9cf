"""Plain training."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator, Tensor

from multimix.methods._predict import InputMixing, MixesInputs
from multimix.ops import check_examples
from multimix.protocols import Network


@dataclass(frozen=True)
class ERM(MixesInputs):
    """Empirical risk minimisation: nothing is mixed (equation (2) of the MultiMix paper)."""

    name: ClassVar[str] = "erm"
    label_maps: ClassVar[bool] = True
    mixes: ClassVar[bool] = False

    def check(self, inputs: Any, targets: Tensor) -> None:
        """Raise unless inputs hold one example for each target, in whatever form the network takes them."""
        check_examples(inputs, targets)

    def draw(
        self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None
    ) -> InputMixing:
        """Draw nothing."""
        return _Nothing()


class _Nothing(InputMixing):
    def mix(self, inputs: Tensor) -> Tensor:
        return inputs

    def mix_targets(self, targets: Tensor) -> Tensor:
        return targets
