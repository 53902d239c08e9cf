"""Mini-batches of images with boxes as a pure function of seed, epoch and position."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from multimix.lab.data._seeds import generator_for, seed_of
from multimix.lab.data._workers import decoded
from multimix.lab.data.boxes._sets import BoxSet, Objects, Photo

__all__ = ["BoxBatch", "BoxBatches"]


@dataclass(frozen=True)
class BoxBatch:
    """Images of any sizes and their objects."""

    images: list[Tensor]
    """Each float32 (c, h, w) in [0, 1]."""
    objects: list[Objects]
    """Those of each image."""


class BoxBatches:
    """Serves a set in mini-batches.

    The order is drawn from (seed, epoch) and the flip of an image from (seed, epoch, index), so neither the number of
    workers nor the batch an iteration starts from changes what comes out.

    Args:
        boxes: The images and their objects.
        batch_size: Images in a batch; the last one may have fewer.
        channels: 3 for colour, 1 for grey.
        seed: Fixes order and flips.
        train: Draw a new order each epoch and mirror half of the images; else serve them in order, as they are.
        flip: Whether to mirror any.
        device: Where the batches live.
        workers: Processes that decode; 0 decodes in this one.

    Raises:
        ValueError: If the network takes neither grey nor colour images.
    """

    def __init__(
        self,
        boxes: BoxSet,
        *,
        batch_size: int,
        channels: int = 3,
        seed: int = 0,
        train: bool = False,
        flip: bool = True,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, but the backbone was trained on images of {channels}")
        self.boxes, self.batch_size, self.channels = boxes, batch_size, channels
        self.seed, self.train, self.device, self.workers = seed, train, torch.device(device), workers
        self.flip = train and flip

    def __len__(self) -> int:
        return -(-len(self.boxes) // self.batch_size)

    def __iter__(self) -> Iterator[BoxBatch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BoxBatch]:
        """Iterate over the batches of an epoch from batch ``start`` on.

        Raises:
            ValueError: If an image cannot be read, or has not the size that its annotations say.
        """
        jobs = [self._job(epoch, chunk.tolist()) for chunk in self._order(epoch).split(self.batch_size)[start:]]
        decoder = _Decoder("RGB" if self.channels == 3 else "L")
        for job, made in zip(jobs, decoded(decoder, jobs, workers=self.workers), strict=True):
            images = [image.to(self.device, non_blocking=True).float().div_(255) for image in made]
            yield BoxBatch(
                images, [self._objects(i, mirrored=m) for i, m in zip(job.indices, job.mirrored, strict=True)]
            )

    def _order(self, epoch: int) -> Tensor:
        size = len(self.boxes)
        if not self.train:
            return torch.arange(size)
        return torch.randperm(size, generator=generator_for("boxes", self.seed, epoch))

    def _job(self, epoch: int, indices: list[int]) -> "_Job":
        mirrored = [self.flip and bool(seed_of("mirror", self.seed, epoch, i) & 1) for i in indices]
        return _Job(indices, mirrored, [self.boxes.photos[i] for i in indices])

    def _objects(self, index: int, *, mirrored: bool) -> Objects:
        found = self.boxes.of(index)
        found = found.flipped(self.boxes.photos[index].width) if mirrored else found
        return Objects(*(x.to(self.device) for x in (found.boxes, found.labels, found.areas, found.ignored)))


class _Job(NamedTuple):
    """One batch of files for a worker."""

    indices: list[int]
    mirrored: list[bool]
    photos: list[Photo]


@dataclass(frozen=True)
class _Decoder(Dataset[list[Tensor] | str]):
    """Turns a job into images; what cannot be read becomes a message, which a worker would wrap in its traceback."""

    mode: str

    def __getitem__(self, job: _Job) -> list[Tensor] | str:
        from multimix.lab.data._pictures import UnreadableError

        try:
            return [self._image(photo, mirrored=m) for photo, m in zip(job.photos, job.mirrored, strict=True)]
        except UnreadableError as error:
            return str(error)

    def _image(self, photo: Photo, *, mirrored: bool) -> Tensor:
        from multimix.lab.data._pictures import UnreadableError, read_picture

        picture = read_picture(photo.path)
        if picture.size != (photo.width, photo.height):
            said = f"{photo.width} x {photo.height}"
            raise UnreadableError(f"{photo.path} is {picture.width} x {picture.height} px, its annotations say {said}")
        picture = picture.convert(self.mode)
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture
        pixels = torch.from_numpy(np.array(picture))
        return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
