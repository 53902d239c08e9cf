"""FMix."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from multimix._declared import check_fields
from multimix.methods._images import check_images
from multimix.methods._predict import InputMixing, MixesInputs
from multimix.ops import beta, check_concentration, draw_mask, draw_partners, mix_pairs, paste_where
from multimix.protocols import Network


@dataclass(frozen=True)
class FMix(MixesInputs):
    """Mix each image with its partner by a random binary mask of few connected pieces; targets by the mask's area.

    The mask is the largest values of low-frequency noise: lambda ~ Beta(alpha, alpha) of the pixels, rounded to whole
    ones. One mask serves all images of a step.

    Reference:
        Harris et al., "FMix: enhancing mixed sample data augmentation", 2020; defaults of its code.
    """

    name: ClassVar[str] = "fmix"

    alpha: float = 1.0
    """Concentration of the Beta distribution."""
    decay: float = 3.0
    """Power of the frequency by which the noise falls off; the larger, the fewer and smoother the pieces."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        check_fields(self)
        check_concentration("alpha", self.alpha)
        if not (math.isfinite(self.decay) and self.decay >= 0):
            raise ValueError(f"decay must be finite and at least 0, got {self.decay}")

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Masking":
        """Draw partners and a mask.

        Raises:
            ValueError: If the inputs are not images (b, c, h, w).
        """
        check_images(inputs, "FMix")
        height, width = inputs.shape[-2:]
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        lam = float(beta(1, self.alpha, generator=generator))
        mask = draw_mask(height, width, lam, self.decay, generator=generator, device=inputs.device)
        return Masking(partners, mask, round(lam * height * width) / (height * width))


@dataclass(frozen=True)
class Masking(InputMixing):
    """Who is mixed with whom, where the mask (h, w) keeps the first, and the share of the image that it keeps."""

    partners: Tensor
    mask: Tensor
    lam: float

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the masked images."""
        return paste_where(inputs, self.partners, self.mask)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities mixed by area."""
        return mix_pairs(targets, self.partners, targets.new_tensor(self.lam))
