"""Manifold mixup."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Generator, Tensor

from multimix._declared import Checked, Ge, MinLen, Positive
from multimix.methods._predict import Mixing, Predicts
from multimix.methods.mixup import Pairing, draw_pairing
from multimix.ops import batch_size
from multimix.protocols import Network, check_network, require_part


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
        """Draw a stage, partners and lambda.

        Raises:
            ValueError: If the network has none of the stages, or says that it has none but its inputs.
        """
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
        return AtStage(stage, draw_pairing(batch_size(inputs), self.alpha, like, generator))


@dataclass(frozen=True)
class AtStage:
    """Pairs of hidden representations that leave a stage."""

    stage: int
    pairing: Pairing

    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        """Return the logits of the mixed mini-batch."""
        with network.mixing_at(self.stage, self.pairing.mix):
            return network(inputs)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities."""
        return self.pairing.mix(targets)
