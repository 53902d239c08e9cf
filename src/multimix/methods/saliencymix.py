"""SaliencyMix."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from multimix._declared import Checked, Fraction, Positive
from multimix.methods._images import check_images, uniform
from multimix.methods._predict import MixesInputs
from multimix.methods.cutmix import Pasting
from multimix.ops import Boxes, beta, draw_partners, saliency_peaks, static_saliency
from multimix.protocols import Network


@dataclass(frozen=True)
class SaliencyMix(MixesInputs, Checked):
    """CutMix whose box lies where the pasted image is most salient; targets are mixed by the area that is left.

    The box has side ratio ``sqrt(1 - lam)`` with lambda ~ Beta(alpha, alpha), one a step. Its centre is the peak of
    the fine-grained static saliency of the image it is cut from, and it is pasted at the same place. Every image has
    its own centre, so that the image may clip each box differently; lambda is corrected image by image. An image with
    no saliency, being constant, gets a centre that is uniform over it.

    The authors' code finds one centre a step, on the first pasted image, and cuts there from all of them. It also
    gives standardised floats to a saliency of OpenCV that reads them as bytes. Neither is done here.

    Reference:
        Uddin et al., "SaliencyMix: a saliency guided data augmentation strategy for better regularization", ICLR 2021,
        section 3, where lambda ~ Beta(1, 1). Its code mixes half of the steps on CIFAR (``prob=0.5``) and all
        of them on ImageNet.
    """

    name: ClassVar[str] = "saliencymix"
    needs_images: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution; the authors call it beta."""
    prob: Fraction = 1.0
    """Share of the steps that are mixed; the others are plain."""
    levels: tuple[float, float] | None = None
    """The inputs' values of black and white, as (0.0, 1.0), for the 256 grey levels of the saliency; by default each
    image's own smallest and largest value."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if self.levels is not None and not (
            len(self.levels) == 2 and -math.inf < self.levels[0] < self.levels[1] < math.inf
        ):
            raise ValueError(f"levels must be None or (black, white) with black < white, got {self.levels!r}")

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Pasting:
        """Draw partners and a size, and find each partner's peak."""
        check_images(inputs, "SaliencyMix")
        b, _, *size = inputs.shape
        partners = draw_partners(b, generator=generator, device=inputs.device)
        lam = float(beta(1, self.alpha, generator=generator))
        mixed = float(uniform(generator=generator)) < self.prob
        anywhere = uniform(b, 2, generator=generator, like=inputs)
        ratio = (1 - lam) ** 0.5 if mixed else 0.0
        halves = [int(side * ratio) // 2 for side in size]
        # where nothing is pasted, the saliency need not be known
        centres = partners.new_zeros(b, 2) if 0 in halves else self._centres(inputs, anywhere)[partners]
        sides, reach = centres.new_tensor(size).view(2, 1), centres.new_tensor(halves).view(2, 1)
        start, end = (torch.minimum((centres.T + ends).clamp(min=0), sides).float() for ends in (-reach, reach))
        boxes = Boxes(start, end)
        return Pasting(partners, lam=1 - boxes.area / math.prod(size), box=boxes)

    def _centres(self, images: Float[Tensor, "b c h w"], anywhere: Float[Tensor, "b 2"]) -> Int[Tensor, "b 2"]:
        """Return the peak of each image's saliency, or a place drawn for it if there is none."""
        saliency = static_saliency(images, levels=self.levels)
        drawn = (anywhere * anywhere.new_tensor(saliency.shape[1:])).long()
        return torch.where((saliency.amax((1, 2)) > 0).unsqueeze(1), saliency_peaks(saliency), drawn)
