"""What pastes a region of one image into another: a box, a small image, a mask, a salient box."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from multimix._declared import Checked, Fraction, Positive
from multimix.methods._boxes import Placement
from multimix.methods._images import Weight, uniform
from multimix.methods._predict import MixesInputs, PairMixing
from multimix.methods.mixup import draw_sharing
from multimix.ops import (
    Box,
    Boxes,
    Mode,
    beta,
    draw_box,
    draw_boxes,
    draw_mask,
    draw_partners,
    paste_box,
    paste_boxes,
    paste_where,
    saliency_peaks,
    static_saliency,
)
from multimix.protocols import Network

Interpolation = Literal["nearest", "bilinear"]


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
    takes_videos: ClassVar[bool] = True
    pastes: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution."""
    prob: Fraction = 1.0
    """Share of the steps that are mixed, or of the pairs or examples by ``mode``; the others are plain."""
    mode: Mode = "batch"
    """Who shares a box: ``batch``, all; ``pair``, two images that are each other's partners; ``elem``, nobody."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and a box, or boxes."""
        height, width = inputs.shape[-2:]
        partners, shared, n = draw_sharing(len(inputs), self.mode, inputs, generator)
        if self.mode == "batch":
            box = draw_box(height, width, float(beta(1, self.alpha, generator=generator)), generator=generator)
            if self.prob < 1 and float(uniform(generator=generator)) >= self.prob:
                box = Box(0, 0, 0, 0)
            return PairMixing(partners, 1 - box.area / (height * width), paste_box, box=box)
        lam = beta(n, self.alpha, generator=generator, device=inputs.device)
        if self.prob < 1:
            lam = lam.masked_fill(uniform(n, generator=generator, like=inputs) >= self.prob, 1)  # whose box is empty
        boxes = draw_boxes(height, width, lam, generator=generator)
        if shared is not None:
            boxes = Boxes(*(corner.index_select(1, shared) for corner in boxes))
        return PairMixing(partners, 1 - boxes.area / (height * width), paste_boxes, boxes=boxes)


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
    takes_videos: ClassVar[bool] = True
    pastes: ClassVar[bool] = True

    scales: tuple[Fraction, Fraction] = (0.1, 0.8)
    """Least and largest side of the small image, as a part of the image's."""
    interpolation: Interpolation = "nearest"
    """How the partner is made smaller: ``nearest``, or ``bilinear``, which averages over what a pixel covers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales must be (low, high) with low <= high, got {self.scales}")

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners, the size of the small images and their places."""
        height, width = inputs.shape[-2:]
        low, high = self.scales
        tau = low + (high - low) * float(uniform(generator=generator))
        size = (int(tau * height), int(tau * width))
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        places = uniform(2, len(inputs), generator=generator, like=inputs)
        free = places.new_tensor([[height - size[0] + 1], [width - size[1] + 1]])
        kept = 1 - size[0] * size[1] / (height * width)
        given = {"size": size, "corners": (places * free).long(), "interpolation": self.interpolation}
        return Shrinking(partners, kept, paste_small, **given)


class Shrinking(PairMixing):
    """Pairs of images of which the second is made smaller and pasted whole."""

    def placement(self, height: int, width: int) -> Placement:
        """Return where the pixels of mixed images come from, those of the small ones from the nearest pixels."""
        size, corners = self.given["size"], self.given["corners"]
        given = {**self.given, "interpolation": "nearest"}
        nearest = cast("Placement", PairMixing(self.partners, self.lam, self.how, **given).placement(height, width))
        sides = [torch.arange(side, device=corners.device) for side in (height, width)]
        away = [side - corner.unsqueeze(1) for side, corner in zip(sides, corners, strict=True)]
        rows, columns = ((places >= 0) & (places < new) for places, new in zip(away, size, strict=True))
        pasted = rows.unsqueeze(2) & columns.unsqueeze(1)
        return nearest._replace(pasted=pasted, scale=(size[0] / height, size[1] / width), corners=corners)


def paste_small(
    images: Tensor, partners: Tensor, size: tuple[int, int], corners: Tensor, interpolation: Interpolation
) -> Tensor:
    """Return the images with their partners, made smaller, at the corners (2, b): rows and columns."""
    if 0 in size:
        return images.clone()
    b, c, _, width = images.shape
    sides = zip(corners, size, strict=True)
    rows, columns = (corner.unsqueeze(1) + torch.arange(side, device=images.device) for corner, side in sides)
    pixels = (rows * width).unsqueeze(2) + columns.unsqueeze(1)
    if interpolation == "nearest":
        down, along = (_nearest(*side, images.device) for side in zip(images.shape[2:], size, strict=True))
        taken = ((down * width).unsqueeze(1) + along).view(1, 1, -1)
        small = images.flatten(2).gather(2, taken.expand(b, c, -1))  # faster than to interpolate the images
    else:
        # In float32 at least, as torch has no such filter in half precision on a CPU, and not channels last, where
        # torch 2.14 gets images that become one pixel wide wrong.
        wide = images.contiguous().to(torch.promote_types(images.dtype, torch.float32))
        small = interpolate(wide, size, mode="bilinear", antialias=True).to(images.dtype)
    small = small.index_select(0, partners).flatten(2)
    return images.flatten(2).scatter(2, pixels.view(b, 1, -1).expand(-1, c, -1), small).view(images.shape)


def _nearest(size: int, new: int, device: torch.device) -> Tensor:
    """Return which of the pixels of a side are left when it is made smaller."""
    places = torch.arange(size, dtype=torch.float32, device=device)
    return interpolate(places.view(1, 1, size), new, mode="nearest").view(new).long()


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
    takes_videos: ClassVar[bool] = True
    pastes: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution."""
    decay: Weight = 3.0
    """Power of the frequency by which the noise falls off; the larger, the fewer and smoother the pieces."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and a mask."""
        height, width = inputs.shape[-2:]
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        lam = float(beta(1, self.alpha, generator=generator))
        mask = draw_mask(height, width, lam, self.decay, generator=generator, device=inputs.device)
        return PairMixing(partners, round(lam * height * width) / (height * width), paste_where, kept=mask)


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
    pastes: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution; the authors call it beta."""
    prob: Fraction = 1.0
    """Share of the steps that are mixed; the others are plain."""
    levels: tuple[float, float] | None = None
    """The inputs' values of black and white, as (0.0, 1.0), for the 256 grey levels of the saliency; by default each
    image's own smallest and largest value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels is not None and not -math.inf < self.levels[0] < self.levels[1] < math.inf:
            raise ValueError(f"levels must be None or (black, white) with black < white, got {self.levels!r}")

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and a size, and find each partner's peak."""
        b, _, *size = inputs.shape
        partners = draw_partners(b, generator=generator, device=inputs.device)
        lam = float(beta(1, self.alpha, generator=generator))
        mixed = float(uniform(generator=generator)) < self.prob
        anywhere = uniform(b, 2, generator=generator, like=inputs)
        ratio = (1 - lam) ** 0.5 if mixed else 0.0
        halves = [int(side * ratio) // 2 for side in size]
        # where nothing is pasted, the saliency need not be known
        centres = partners.new_zeros(b, 2)
        if 0 not in halves:
            saliency = static_saliency(inputs, levels=self.levels)
            salient = (saliency.amax((1, 2)) > 0).unsqueeze(1)
            drawn = (anywhere * anywhere.new_tensor(size)).long()
            centres = torch.where(salient, saliency_peaks(saliency), drawn)[partners]
        sides, reach = centres.new_tensor(size).view(2, 1), centres.new_tensor(halves).view(2, 1)
        boxes = Boxes(*(torch.minimum((centres.T + ends).clamp(min=0), sides).float() for ends in (-reach, reach)))
        return PairMixing(partners, 1 - boxes.area / math.prod(size), paste_boxes, boxes=boxes)
