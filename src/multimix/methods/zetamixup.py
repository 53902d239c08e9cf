"""Zeta-mixup."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from multimix._declared import Checked, Positive
from multimix.methods._predict import InputMixing, MixesInputs
from multimix.ops import interpolate, zeta_weights
from multimix.protocols import Network


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

    gamma: Positive = 2.8
    """How fast the weights fall off; from 1.73 on an input weighs at least as much as all others together."""

    def draw(
        self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None
    ) -> "Weighting":
        """Draw the weights."""
        return Weighting(zeta_weights(len(inputs), self.gamma, generator=generator, device=inputs.device))


@dataclass(frozen=True)
class Weighting(InputMixing):
    """How much every output (row) takes of every input (column)."""

    weights: Tensor

    def mix(self, inputs: Tensor) -> Tensor:
        """Return every value, an input or class probabilities, mixed with all others."""
        with torch.autocast(inputs.device.type, enabled=False):  # which would cost digits of the data
            return interpolate(self.weights, inputs)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities."""
        return self.mix(targets)
