"""ResizeMix."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from multimix._declared import check_fields
from multimix.methods._images import check_images
from multimix.methods._predict import InputMixing, MixesInputs
from multimix.ops import draw_partners, mix_pairs
from multimix.protocols import Network

Interpolation = Literal["nearest", "bilinear"]


@dataclass(frozen=True)
class ResizeMix(MixesInputs):
    """Paste each image's whole partner, made smaller, into it; targets are mixed by the pixels it covers.

    The small image has sides ``int(tau * h)`` and ``int(tau * w)``, tau uniform over ``scales`` and one a step; its
    place is uniform over those where it fits, one an image. Where a side has no pixel, the image stays as it is.

    Reference:
        Qin et al., "ResizeMix: mixing data with preserved object information and true labels", 2020; defaults of
        its code.
    """

    name: ClassVar[str] = "resizemix"

    scales: tuple[float, float] = (0.1, 0.8)
    """Least and largest side of the small image, as a part of the image's."""
    interpolation: Interpolation = "nearest"
    """How the partner is made smaller: ``nearest``, or ``bilinear``, which averages over what a pixel covers."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        low, high = _bounds(self.scales)
        check_fields(self)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"scales must be (low, high) with 0 <= low <= high <= 1, got {self.scales}")
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(f"interpolation must be nearest or bilinear, got {self.interpolation!r}")

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Patching":
        """Draw partners, the size of the small images and their places.

        Raises:
            ValueError: If the inputs are not images (b, c, h, w).
        """
        check_images(inputs, "ResizeMix")
        height, width = inputs.shape[-2:]
        home = None if generator is None else generator.device
        low, high = self.scales
        tau = low + (high - low) * float(torch.rand((), generator=generator, device=home))
        size = (int(tau * height), int(tau * width))
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        uniform = torch.rand(2, len(inputs), generator=generator, device=inputs.device if home is None else home)
        free = uniform.new_tensor([[height - size[0] + 1], [width - size[1] + 1]])
        top, left = (uniform * free).long().to(inputs.device)
        return Patching(partners, size, top, left, 1 - size[0] * size[1] / (height * width), self.interpolation)


@dataclass(frozen=True)
class Patching(InputMixing):
    """Whose small image goes where, and the share of the image that stays."""

    partners: Tensor
    size: tuple[int, int]
    top: Tensor
    left: Tensor
    lam: float
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

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities mixed by area."""
        return mix_pairs(targets, self.partners, targets.new_tensor(self.lam))

    def _small(self, images: Tensor) -> Tensor:
        if self.interpolation == "nearest":
            return interpolate(images, self.size, mode="nearest")
        # In float32 at least: torch has no such filter in half precision on a CPU.
        wide = images.to(torch.promote_types(images.dtype, torch.float32))
        return interpolate(wide, self.size, mode="bilinear", antialias=True).to(images.dtype)


def _bounds(scales: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in scales)
    except (TypeError, ValueError) as error:
        raise ValueError(f"scales must be (low, high) with 0 <= low <= high <= 1, got {scales!r}") from error
    return low, high
