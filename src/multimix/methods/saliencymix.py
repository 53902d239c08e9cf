"""SaliencyMix."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from multimix._declared import check_fields
from multimix.methods._images import check_images
from multimix.methods._predict import InputMixing, MixesInputs
from multimix.ops import beta, check_concentration, draw_partners, mix_pairs, saliency_peaks, static_saliency
from multimix.protocols import Network


@dataclass(frozen=True)
class SaliencyMix(MixesInputs):
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

    alpha: float = 1.0
    """Concentration of the Beta distribution; the authors call it beta."""
    prob: float = 1.0
    """Share of the steps that are mixed; the others are plain."""
    levels: tuple[float, float] | None = None
    """The inputs' values of black and white, as (0.0, 1.0), for the 256 grey levels of the saliency; by default each
    image's own smallest and largest value."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        check_fields(self)
        check_concentration("alpha", self.alpha)
        if not 0 <= self.prob <= 1:
            raise ValueError(f"prob must lie in [0, 1], got {self.prob}")
        if self.levels is not None and not (
            len(self.levels) == 2 and -math.inf < self.levels[0] < self.levels[1] < math.inf
        ):
            raise ValueError(f"levels must be None or (black, white) with black < white, got {self.levels!r}")

    def draw(
        self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None
    ) -> "SalientPasting":
        """Draw partners and a size, and find each partner's peak.

        Raises:
            ValueError: If the inputs are not images (b, c, h, w).
        """
        check_images(inputs, "SaliencyMix")
        b, _, height, width = inputs.shape
        home = generator.device if generator else None
        partners = draw_partners(b, generator=generator, device=inputs.device)
        lam = float(beta(1, self.alpha, generator=generator))
        mixed = float(torch.rand((), generator=generator, device=home)) < self.prob
        anywhere = torch.rand(b, 2, generator=generator, device=home or inputs.device).to(inputs.device)
        ratio = (1 - lam) ** 0.5 if mixed else 0.0
        half = int(height * ratio) // 2, int(width * ratio) // 2
        # where nothing is pasted, the saliency need not be known
        centres = partners.new_zeros(b, 2) if 0 in half else self._centres(inputs, anywhere)[partners]
        return SalientPasting(partners, _boxes(centres, half, (height, width)), (height, width))

    def _centres(self, images: Float[Tensor, "b c h w"], anywhere: Float[Tensor, "b 2"]) -> Int[Tensor, "b 2"]:
        """Return the peak of each image's saliency, or a place drawn for it if there is none."""
        saliency = static_saliency(images, levels=self.levels)
        drawn = (anywhere * anywhere.new_tensor(saliency.shape[1:])).long()
        return torch.where((saliency.amax((1, 2)) > 0).unsqueeze(1), saliency_peaks(saliency), drawn)


@dataclass(frozen=True)
class SalientPasting(InputMixing):
    """Which box of whose image goes into each image."""

    partners: Int[Tensor, " b"]
    boxes: Int[Tensor, "b 4"]
    """Top, bottom, left and right of each box in pixels, ends excluded."""
    size: tuple[int, int]
    """Height and width of the images."""

    @property
    def lam(self) -> Float[Tensor, " b"]:
        """Return the share of each image that stays."""
        top, bottom, left, right = self.boxes.unbind(1)
        return 1 - (bottom - top) * (right - left) / (self.size[0] * self.size[1])

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the pasted images."""
        return torch.where(self._inside().unsqueeze(1), inputs[self.partners], inputs)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities mixed by area."""
        return mix_pairs(targets, self.partners, self.lam)

    def _inside(self) -> Bool[Tensor, "b h w"]:
        top, bottom, left, right = self.boxes.unsqueeze(-1).unbind(1)
        y, x = (torch.arange(size, device=self.boxes.device) for size in self.size)
        return ((y >= top) & (y < bottom)).unsqueeze(2) & ((x >= left) & (x < right)).unsqueeze(1)


def _boxes(centres: Int[Tensor, "b 2"], half: tuple[int, int], size: tuple[int, int]) -> Int[Tensor, "b 4"]:
    y, x = centres.unbind(1)
    ends = [
        (at + sign * reach).clamp(0, most)
        for at, reach, most in zip((y, x), half, size, strict=True)
        for sign in (-1, 1)
    ]
    return torch.stack(ends, 1)
