"""ResizeMix."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from multimix._declared import Checked, Fraction
from multimix.methods._images import PairMixing, check_images, uniform
from multimix.methods._predict import MixesInputs
from multimix.ops import draw_partners
from multimix.protocols import Network

Interpolation = Literal["nearest", "bilinear"]


@dataclass(frozen=True)
class ResizeMix(MixesInputs, Checked):
    """Paste each image's whole partner, made smaller, into it; targets are mixed by the pixels it covers.

    The small image has sides ``int(tau * h)`` and ``int(tau * w)``, tau uniform over ``scales`` and one a step; its
    place is uniform over those where it fits, one an image. Where a side has no pixel, the image stays as it is.

    Reference:
        Qin et al., "ResizeMix: mixing data with preserved object information and true labels", 2020; defaults of
        its code.
    """

    name: ClassVar[str] = "resizemix"
    needs_images: ClassVar[bool] = True

    scales: tuple[Fraction, Fraction] = (0.1, 0.8)
    """Least and largest side of the small image, as a part of the image's."""
    interpolation: Interpolation = "nearest"
    """How the partner is made smaller: ``nearest``, or ``bilinear``, which averages over what a pixel covers."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if len(self.scales) != 2 or self.scales[0] > self.scales[1]:
            raise ValueError(f"scales must be (low, high) with low <= high, got {self.scales}")

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Patching":
        """Draw partners, the size of the small images and their places."""
        check_images(inputs, "ResizeMix")
        height, width = inputs.shape[-2:]
        low, high = self.scales
        tau = low + (high - low) * float(uniform(generator=generator))
        size = (int(tau * height), int(tau * width))
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        places = uniform(2, len(inputs), generator=generator, like=inputs)
        free = places.new_tensor([[height - size[0] + 1], [width - size[1] + 1]])
        top, left = (places * free).long()
        return Patching(partners, 1 - size[0] * size[1] / (height * width), size, top, left, self.interpolation)


@dataclass(frozen=True)
class Patching(PairMixing):
    """Pairs, and where each small image goes; ``lam`` is the share of the image that stays."""

    size: tuple[int, int]
    top: Tensor
    left: Tensor
    interpolation: Interpolation = "nearest"

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the images with their partners pasted in."""
        if 0 in self.size:
            return inputs.clone()
        b, c, _, width = inputs.shape
        rows = self.top.unsqueeze(1) + torch.arange(self.size[0], device=inputs.device)
        columns = self.left.unsqueeze(1) + torch.arange(self.size[1], device=inputs.device)
        pixels = (rows * width).unsqueeze(2) + columns.unsqueeze(1)
        small = self._small(inputs).index_select(0, self.partners)
        mixed = inputs.flatten(2).scatter(2, pixels.view(b, 1, -1).expand(-1, c, -1), small.flatten(2))
        return mixed.view(inputs.shape)

    def _small(self, images: Tensor) -> Tensor:
        if self.interpolation == "nearest":
            return interpolate(images, self.size, mode="nearest")
        # In float32 at least, as torch has no such filter in half precision on a CPU, and not channels last, where
        # torch 2.14 gets images that become one pixel wide wrong.
        wide = images.contiguous().to(torch.promote_types(images.dtype, torch.float32))
        return interpolate(wide, self.size, mode="bilinear", antialias=True).to(images.dtype)
