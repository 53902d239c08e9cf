"""Image files to pixels, and random crops and flips: of one image of a file, and of a whole batch at once."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image
from torch import Generator, Tensor

from multimix._declared import Checked, Ge
from multimix.lab.data._sets import one_line

__all__ = [
    "EVALUATION_RATIO",
    "Augment",
    "Crops",
    "UnreadableError",
    "augmented",
    "fitted",
    "normalise",
    "read_image",
]

EVALUATION_RATIO = 256 / 224
"""Of the scaled shorter side to the centre crop, as usual with ImageNet."""


class UnreadableError(ValueError):
    """A file is not an image that can be read."""


class Crops(NamedTuple):
    """Where each image of a batch is cropped and whether it is mirrored."""

    top: Int64[Tensor, " b"]
    """First row of the crop in the padded image."""
    left: Int64[Tensor, " b"]
    """First column of the crop in the padded image."""
    mirrored: Bool[Tensor, " b"]
    """Whether the crop is flipped left to right."""


@dataclass(frozen=True, kw_only=True)
class Augment(Checked):
    """Random crop from zero padding, then a horizontal flip of every other image on average.

    The usual augmentation of small images (He et al. 2016, arXiv 1512.03385, section 4.2). Padding is zero in pixels,
    so normalisation comes last. ``Files`` read it otherwise: any ``crop_padding`` above 0 stands for a random resized
    crop.

    Raises:
        ValueError: ``crop_padding`` is negative.
    """

    crop_padding: Annotated[int, Ge(0)] = 4
    """Zeros added on each side before the crop; 0 leaves the crop out."""
    flip: bool = True
    """Whether each image is mirrored with probability one half."""

    def __call__(
        self,
        images: UInt8[Tensor, "b c h w"],
        mean: Tensor | Sequence[float],
        std: Tensor | Sequence[float],
        generator: Generator,
        shard: tuple[int, int] = (0, 1),
    ) -> Float32[Tensor, "b c h w"]:
        """Return the images augmented and normalised; ``generator`` lives on their device and gives all randomness.

        Those of one shard (rank, world size) are augmented as in the batch of all shards, of which they are every
        world-th.

        Raises:
            ValueError: As ``normalise``.
        """
        if self.crop_padding or self.flip:
            rank, world = shard
            crops = self.draw(len(images) * world, generator)
            images = self.apply(images, Crops(*(part[rank::world] for part in crops)))
        return normalise(images, mean, std)

    def draw(self, size: int, generator: Generator) -> Crops:
        """Draw the parameters of ``size`` images, on the generator's device."""
        device = generator.device
        corner = torch.randint(2 * self.crop_padding + 1, (2, size), generator=generator, device=device)
        mirrored = torch.rand(size, generator=generator, device=device) < 0.5
        return Crops(corner[0], corner[1], mirrored if self.flip else torch.zeros_like(mirrored))

    def apply(self, images: UInt8[Tensor, "b c h w"], crops: Crops) -> UInt8[Tensor, "b c h w"]:
        """Return each image padded, cropped at its own corner and mirrored where its crop says so."""
        b, c, h, w = images.shape
        padded = F.pad(images, (self.crop_padding,) * 4)
        rows = crops.top[:, None] + torch.arange(h, device=images.device)
        columns = crops.left[:, None] + torch.arange(w, device=images.device)
        columns = torch.where(crops.mirrored[:, None], columns.flip(1), columns)
        # One gather with the pixel index shared by the channels: on bytes, a tenth of the time of the same on floats.
        pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        index = pixels.view(b, 1, h * w).expand(b, c, h * w)
        return padded.view(b, c, -1).gather(2, index).view(b, c, h, w)


def normalise(
    images: UInt8[Tensor, "b c h w"], mean: Tensor | Sequence[float], std: Tensor | Sequence[float]
) -> Float32[Tensor, "b c h w"]:
    """Return ``(images / 255 - mean) / std``, channel by channel.

    Raises:
        ValueError: The images are not uint8, or ``mean`` and ``std`` have not one number a channel.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 (pixels in 0..255), got {images.dtype}")
    centre, spread = (_per_channel(name, value, images) for name, value in (("mean", mean), ("std", std)))
    return images.float().mul_(1 / (255 * spread)).sub_(centre / spread)


def _per_channel(name: str, value: Tensor | Sequence[float], images: Tensor) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float32, device=images.device)
    if tensor.shape != images.shape[1:2]:
        raise ValueError(
            f"{name} must have one number for each of {images.shape[1]} channels, got {tuple(tensor.shape)}"
        )
    return tensor.view(-1, 1, 1)


def read_image(path: str) -> Image.Image:
    """Return the image at ``path`` in RGB.

    Raises:
        UnreadableError: The file is missing, is no image, is damaged, or would take gigabytes of memory; the message
            names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadableError(f"{path} cannot be read as an image: {one_line(error)}") from error


def fitted(image: Image.Image, size: int, *, ratio: float = 1.0) -> Image.Image:
    """Scale the shorter side to ``ratio * size`` and cut the centre square of ``size`` out."""
    from torchvision.transforms.v2 import functional  # whose import takes seconds

    resized = functional.resize(image, [round(size * ratio)], antialias=True)
    return functional.center_crop(resized, [size, size])


def augmented(image: Image.Image, size: int, augment: Augment, seed: int) -> Image.Image:
    """Return a random view of ``size`` squared: a resized crop (none if ``crop_padding`` is 0), then perhaps a flip.

    Torch's global CPU generator, which torchvision draws from, is seeded and afterwards put back.
    """
    from torchvision.transforms import v2

    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the accelerators for good.
        torch.default_generator.manual_seed(seed)
        if augment.crop_padding:
            image = v2.RandomResizedCrop(size, antialias=True)(image)
        else:
            image = fitted(image, size, ratio=EVALUATION_RATIO)
        return v2.RandomHorizontalFlip()(image) if augment.flip else image
