"""CutMix."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from multimix._declared import Checked, Fraction, Positive
from multimix.methods._images import PairMixing, check_images, uniform
from multimix.methods._predict import MixesInputs
from multimix.methods.mixup import draw_sharing
from multimix.ops import Box, Boxes, Mode, beta, draw_box, draw_boxes, paste_box, paste_boxes
from multimix.protocols import Network


@dataclass(frozen=True)
class CutMix(Checked, MixesInputs):
    """Paste a box of each image's partner into it; targets are mixed by the area that is left.

    The box has side ratio ``sqrt(1 - lam)`` with lambda ~ Beta(alpha, alpha), its centre is uniform over the image, and
    lambda is corrected where the image clips it. One box serves all images unless ``mode`` says otherwise.

    Reference:
        Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", ICCV 2019.
        Its code applies CutMix to half of the steps on CIFAR (``prob=0.5``) and to all of them on ImageNet.
    """

    name: ClassVar[str] = "cutmix"
    needs_images: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution."""
    prob: Fraction = 1.0
    """Share of the steps that are mixed, or of the pairs or examples by ``mode``; the others are plain."""
    mode: Mode = "batch"
    """Who shares a box: ``batch``, all; ``pair``, two images that are each other's partners; ``elem``, nobody."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Pasting":
        """Draw partners and a box, or boxes.

        Raises:
            ValueError: If the inputs are not images (b, c, h, w).
        """
        check_images(inputs, "CutMix")
        height, width = inputs.shape[-2:]
        partners, shared, n = draw_sharing(len(inputs), self.mode, inputs, generator)
        box: Box | Boxes
        if self.mode == "batch":
            box = draw_box(height, width, float(beta(1, self.alpha, generator=generator)), generator=generator)
            if float(uniform(generator=generator)) >= self.prob:
                box = Box(0, 0, 0, 0)
        else:
            lam = beta(n, self.alpha, generator=generator, device=inputs.device)
            if self.prob < 1:
                plain = uniform(n, generator=generator, like=inputs) >= self.prob
                lam = lam.masked_fill(plain, 1)  # whose box is empty
            box = draw_boxes(height, width, lam, generator=generator)
            if shared is not None:
                box = Boxes(box.start[:, shared], box.end[:, shared])
        return Pasting(partners, 1 - box.area / (height * width), box)


@dataclass(frozen=True)
class Pasting(PairMixing):
    """Pairs of images, of which a box of the second goes into the first: one for all, or one an image."""

    box: Box | Boxes

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the pasted images."""
        if isinstance(self.box, Boxes):
            return paste_boxes(inputs, self.partners, self.box)
        return paste_box(inputs, self.partners, self.box)
