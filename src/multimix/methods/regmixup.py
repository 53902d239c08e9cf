"""RegMixup."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from multimix._declared import Positive
from multimix.methods._images import Weight
from multimix.methods._predict import Mixing, PairMixing, Step, wanted_of
from multimix.methods.mixup import Mixup
from multimix.ops import objective_of
from multimix.protocols import Losses, Network


class PairsAndClean(PairMixing):
    """The mixed pairs (b, ...), and behind them the examples as they are: (2b, ...), inputs and targets alike."""

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities, or other values, and then the given ones."""
        b = len(targets)
        # Gathered together and mixed in place, which moves less memory than to put two halves together.
        both = targets.index_select(0, torch.cat([self.partners, torch.arange(b, device=self.partners.device)]))
        both[:b].lerp_(targets, self.lam.to(targets.device, targets.dtype).reshape(-1, *[1] * (targets.ndim - 1)))
        return both


@dataclass(frozen=True)
class RegMixup(Mixup):
    """Mixup beside plain training: the loss of the mini-batch as it is, plus ``eta`` times that of its mixed pairs.

    The network sees the 2b examples, clean and mixed, in one pass, so that batch normalisation has statistics of both.
    The sum is divided by ``1 + eta``: it has the scale of plain training, whose learning rate serves it, and at
    ``eta=1`` it is the authors' code, which takes the mean over the 2b examples. A large alpha keeps lambda near a
    half, where mixing is strongest; the clean half keeps the network sure of what is not mixed.

    ``mix`` returns all 2b examples, mixed ones first; there ``eta`` has to be 1, since the loss is somebody else's.

    Reference:
        Pinto et al., "Using mixup as a regularizer can surprisingly improve accuracy and out-of-distribution
        robustness", NeurIPS 2022, arXiv 2206.14502, whose abstract and code were read; alpha is the code's for
        CIFAR-10, which takes 10 for CIFAR-100.
    """

    name: ClassVar[str] = "regmixup"

    alpha: Positive = 20.0
    """Concentration of the Beta distribution; at 20 half of the lambdas lie between 0.45 and 0.55."""
    eta: Weight = 1.0
    """Weight of the loss of the mixed pairs; that of the clean examples weighs 1."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and lambda."""
        pairs = super().draw(network, inputs, targets, generator)
        return PairsAndClean(pairs.partners, pairs.lam)

    def compare(self, step: Step, mixing: Mixing, logits: Tensor, grid: tuple[int, ...] | None = None) -> Losses:
        """Return the losses of the mixed half of the logits and those of the clean half, in the proportion of eta."""
        mixed, clean = logits.chunk(2)
        wanted = mixing.mix_targets(wanted_of(step.network, step.targets, clean, grid=grid, label_maps=True)).chunk(2)
        taught: Any = (None, None)
        if (teacher := step.teacher) is not None:
            with torch.no_grad():
                taught = [(half, teacher.gamma) for half in mixing.predict(teacher.network, teacher.inputs).chunk(2)]
        objective = objective_of(step.network)
        losses, plain = map(objective.losses, (mixed, clean), wanted, taught)
        total = (self.eta * losses.total + plain.total) / (1 + self.eta)
        return Losses(total, {**losses.terms, **{f"clean_{name}": term for name, term in plain.terms.items()}})

    def mix(self, inputs: Tensor, targets: Any, **options: Any) -> tuple[Tensor, Any]:
        """Return the mixed and then the clean inputs, and their targets (2b, k), with the options of Mixup's ``mix``.

        Raises:
            ValueError: If ``eta`` is not 1, or as :class:`Mixup` has it.
        """
        if self.eta != 1:
            raise ValueError(f"eta must be 1 for the data alone, whose loss weighs both halves alike, got {self.eta}")
        return super().mix(inputs, targets, **options)
