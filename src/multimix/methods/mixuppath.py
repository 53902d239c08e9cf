"""Several mixed examples of each pair."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from multimix._declared import Checked, Count, Positive
from multimix.methods._predict import MixesInputs, Mixing
from multimix.methods.mixup import draw_sharing
from multimix.ops import Mode, beta
from multimix.protocols import Network


@dataclass(frozen=True)
class Path(Mixing):
    """Pairs at several lambdas: all pairs at the first one, then all at the second, and so on."""

    partners: Tensor
    """The second of each pair, (b,)."""
    lams: Tensor
    """The weights of the first of each pair, (n, b), or (n, 1) where all pairs share them."""

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mixed inputs, (n * b, ...)."""
        return self.mix_targets(inputs)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities, or other values, (n * b, ...)."""
        lams = self.lams.to(targets.device, targets.dtype)
        lams = lams.reshape(*lams.shape, *[1] * (targets.ndim - 1))
        return torch.lerp(targets.index_select(0, self.partners), targets, lams).flatten(0, 1)


@dataclass(frozen=True)
class MixupPath(Checked, MixesInputs):
    """Mixup at several points of the way from each example to its partner: n lambdas a pair, n * b mixed examples.

    The loss is the mean over all of them, which the network sees in one pass: a step costs about as much as n steps of
    mixup, and its gradient varies less. ``mix`` returns all n * b. At ``lambdas=1`` it is mixup.

    Its authors call it multi-mix. It has nothing to do with :class:`MultiMix`, which interpolates many examples, and
    inside the network.

    Reference:
        Shen et al., "Mixup augmentation with multiple interpolations", arXiv 2406.01417; its abstract was read, and a
        summary that has five lambdas as the best number. No code is known. They draw Beta(alpha, alpha) and put the
        lambdas of a pair in order, which a mean does not see; alpha is ours.
    """

    name: ClassVar[str] = "mixup-path"
    traced: ClassVar[bool] = True
    label_maps: ClassVar[bool] = True

    lambdas: Count = 5
    """Mixed examples a pair, n."""
    alpha: Positive = 1.0
    """Concentration of the Beta distribution."""
    mode: Mode = "batch"
    """Who shares the n lambdas: ``batch``, all; ``pair``, two examples that are each other's partners; ``elem``,
    nobody."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Path:
        """Draw partners and lambdas."""
        partners, shared, n = draw_sharing(len(inputs), self.mode, inputs, generator)
        lams = beta(self.lambdas * n, self.alpha, generator=generator, device=inputs.device).view(self.lambdas, n)
        return Path(partners, lams if shared is None else lams.index_select(1, shared))
