"""CutMix."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from multimix.methods._predict import InputMixing, MixesInputs
from multimix.ops import Box, beta, check_concentration, draw_box, draw_partners, mix_pairs, paste_box
from multimix.protocols import Network


@dataclass(frozen=True)
class CutMix(MixesInputs):
    """Paste a box of each image's partner into it; targets are mixed by the area that is left.

    The box has side ratio ``sqrt(1 - lam)`` with lambda ~ Beta(alpha, alpha), its centre is uniform over the image, and
    lambda is corrected where the image clips it.

    Reference:
        Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", ICCV 2019.
        Its code applies CutMix to half of the steps on CIFAR (``probability=0.5``) and to all of them on ImageNet.
    """

    name: ClassVar[str] = "cutmix"

    alpha: float = 1.0
    """Concentration of the Beta distribution."""
    probability: float = 1.0
    """Share of the steps that are mixed; the others are plain."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        check_concentration("alpha", self.alpha)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], got {self.probability}")

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Pasting":
        """Draw partners and a box.

        Raises:
            ValueError: If the inputs are not images (b, c, h, w).
        """
        if inputs.ndim != 4:
            raise ValueError(f"inputs must be images of shape (b, c, h, w) for CutMix, got {tuple(inputs.shape)}")
        height, width = inputs.shape[-2:]
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        lam = float(beta(1, self.alpha, generator=generator))
        box = draw_box(height, width, lam, generator=generator)
        if _coin(generator) >= self.probability:
            box = Box(0, 0, 0, 0)
        return Pasting(partners, box, 1 - box.area / (height * width))


@dataclass(frozen=True)
class Pasting(InputMixing):
    """Whose box goes where, and the share of the image that stays."""

    partners: Tensor
    box: Box
    lam: float

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the pasted images."""
        return paste_box(inputs, self.partners, self.box)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities mixed by area."""
        return mix_pairs(targets, self.partners, targets.new_tensor(self.lam))


def _coin(generator: Generator | None) -> float:
    return float(torch.rand((), generator=generator, device=generator.device if generator else None))
