"""Mini-batches of images with boxes as a pure function of seed, epoch and position."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multimix.lab.data._batches import EpochBatches, decoded
from multimix.lab.data._images import UnreadableError, read_image
from multimix.lab.data._split import seed_of
from multimix.lab.data.boxes._sets import BoxSet, Objects, Photo

__all__ = ["BoxBatch", "BoxBatches"]


@dataclass(frozen=True)
class BoxBatch:
    """Images of any sizes and their objects."""

    images: list[Tensor]
    """Each float32 (c, h, w) in [0, 1]."""
    objects: list[Objects]
    """Those of each image."""


@dataclass(eq=False)
class BoxBatches(EpochBatches[BoxBatch]):
    """Serves a set in mini-batches.

    The order is drawn from (seed, epoch) and the flip of an image from (seed, epoch, index), so neither the number of
    workers nor the batch an iteration starts from changes what comes out.

    Raises:
        ValueError: If the network takes neither grey nor colour images, or as for batches of images without boxes.
    """

    dataset: BoxSet
    """The images and their objects."""
    _: KW_ONLY
    shuffle: bool = False
    """Draw a new order each epoch."""
    flip: bool = False
    """Mirror half of the images."""
    channels: int = 3
    """3 for colour, 1 for grey."""

    ORDER: ClassVar[str] = "boxes"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, but the backbone was trained on images of {self.channels}")

    def _served(self, epoch: int, start: int, chunks: list[Tensor]) -> Iterator[BoxBatch]:
        jobs = [[self._view(epoch, index) for index in chunk.tolist()] for chunk in chunks]
        decode = partial(_images, "RGB" if self.channels == 3 else "L")
        for job, made in zip(jobs, decoded(decode, jobs, workers=self.workers), strict=True):
            images = [image.to(self.device, non_blocking=True).float().div_(255) for image in made]
            yield BoxBatch(images, [self._objects(view) for view in job])

    def _view(self, epoch: int, index: int) -> "_View":
        mirrored = self.flip and bool(seed_of("mirror", self.seed, epoch, index) & 1)
        return _View(index, mirrored, self.dataset.photos[index])

    def _objects(self, view: "_View") -> Objects:
        found = self.dataset.of(view.index)
        return (found.flipped(view.photo.width) if view.mirrored else found).to(self.device)


@dataclass(frozen=True)
class _View:
    """One image as a batch shows it."""

    index: int
    mirrored: bool
    photo: Photo


def _images(mode: str, job: list[_View]) -> list[Tensor]:
    """Return the images of a batch, each uint8 (c, h, w)."""
    return [_image(mode, view) for view in job]


def _image(mode: str, view: _View) -> Tensor:
    photo, image = view.photo, read_image(view.photo.path)
    if image.size != (photo.width, photo.height):
        said = f"{photo.width} x {photo.height}"
        raise UnreadableError(f"{photo.path} is {image.width} x {image.height} px, its annotations say {said}")
    image = image.convert(mode)
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.mirrored else image
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
