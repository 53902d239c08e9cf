"""CutMix."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from multimix._declared import check_fields
from multimix.methods._images import check_images
from multimix.methods._predict import InputMixing, MixesInputs
from multimix.methods.mixup import draw_sharing
from multimix.ops import (
    Box,
    Boxes,
    Mode,
    beta,
    check_concentration,
    draw_box,
    draw_boxes,
    mix_pairs,
    paste_box,
    paste_boxes,
)
from multimix.protocols import Network


@dataclass(frozen=True)
class CutMix(MixesInputs):
    """Paste a box of each image's partner into it; targets are mixed by the area that is left.

    The box has side ratio ``sqrt(1 - lam)`` with lambda ~ Beta(alpha, alpha), its centre is uniform over the image, and
    lambda is corrected where the image clips it. One box serves all images unless ``mode`` says otherwise.

    Reference:
        Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", ICCV 2019.
        Its code applies CutMix to half of the steps on CIFAR (``prob=0.5``) and to all of them on ImageNet.
    """

    name: ClassVar[str] = "cutmix"

    alpha: float = 1.0
    """Concentration of the Beta distribution."""
    prob: float = 1.0
    """Share of the steps that are mixed, or of the pairs or examples by ``mode``; the others are plain."""
    mode: Mode = "batch"
    """Who shares a box: ``batch``, all; ``pair``, two images that are each other's partners; ``elem``, nobody."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        check_fields(self)
        check_concentration("alpha", self.alpha)
        if not 0 <= self.prob <= 1:
            raise ValueError(f"prob must lie in [0, 1], got {self.prob}")

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Pasting":
        """Draw partners and a box, or boxes.

        Raises:
            ValueError: If the inputs are not images (b, c, h, w).
        """
        check_images(inputs, "CutMix")
        partners, shared, n = draw_sharing(len(inputs), self.mode, inputs, generator)
        if self.mode == "batch":
            return self._draw_one(partners, inputs, generator)
        return self._draw_many(partners, shared, n, inputs, generator)

    def _draw_one(self, partners: Tensor, images: Tensor, generator: Generator | None) -> "Pasting":
        height, width = images.shape[-2:]
        lam = float(beta(1, self.alpha, generator=generator))
        box = draw_box(height, width, lam, generator=generator)
        if _coin(generator) >= self.prob:
            box = Box(0, 0, 0, 0)
        return Pasting(partners, box, 1 - box.area / (height * width))

    def _draw_many(
        self, partners: Tensor, shared: Tensor | None, n: int, images: Tensor, generator: Generator | None
    ) -> "Pasting":
        height, width = images.shape[-2:]
        lam = beta(n, self.alpha, generator=generator, device=images.device)
        if self.prob < 1:
            home = images.device if generator is None else generator.device
            plain = torch.rand(n, generator=generator, device=home).to(images.device) >= self.prob
            lam = lam.masked_fill(plain, 1)  # whose box is empty
        boxes = draw_boxes(height, width, lam, generator=generator)
        if shared is not None:
            boxes = Boxes(boxes.start[:, shared], boxes.end[:, shared])
        return Pasting(partners, boxes, 1 - boxes.area / (height * width))


@dataclass(frozen=True)
class Pasting(InputMixing):
    """Whose box goes where, and the share of the image that stays: one for all, or one an image (b,)."""

    partners: Tensor
    box: Box | Boxes
    lam: float | Tensor

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the pasted images."""
        if isinstance(self.box, Boxes):
            return paste_boxes(inputs, self.partners, self.box)
        return paste_box(inputs, self.partners, self.box)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities mixed by area."""
        return mix_pairs(targets, self.partners, torch.as_tensor(self.lam, dtype=targets.dtype, device=targets.device))


def _coin(generator: Generator | None) -> float:
    return float(torch.rand((), generator=generator, device=generator.device if generator else None))
