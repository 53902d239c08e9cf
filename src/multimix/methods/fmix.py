"""FMix."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from multimix._declared import Checked, Positive
from multimix.methods._images import PairMixing, Weight, check_images
from multimix.methods._predict import MixesInputs
from multimix.ops import beta, draw_mask, draw_partners, paste_where
from multimix.protocols import Network


@dataclass(frozen=True)
class FMix(MixesInputs, Checked):
    """Mix each image with its partner by a random binary mask of few connected pieces; targets by the mask's area.

    The mask is the largest values of low-frequency noise: lambda ~ Beta(alpha, alpha) of the pixels, rounded to whole
    ones. One mask serves all images of a step.

    Reference:
        Harris et al., "FMix: enhancing mixed sample data augmentation", 2020; defaults of its code.
    """

    name: ClassVar[str] = "fmix"
    needs_images: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution."""
    decay: Weight = 3.0
    """Power of the frequency by which the noise falls off; the larger, the fewer and smoother the pieces."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Masking":
        """Draw partners and a mask."""
        check_images(inputs, "FMix")
        height, width = inputs.shape[-2:]
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        lam = float(beta(1, self.alpha, generator=generator))
        mask = draw_mask(height, width, lam, self.decay, generator=generator, device=inputs.device)
        return Masking(partners, round(lam * height * width) / (height * width), mask)


@dataclass(frozen=True)
class Masking(PairMixing):
    """Pairs, and where the mask (h, w) keeps the first."""

    mask: Tensor

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the masked images."""
        return paste_where(inputs, self.partners, self.mask)
