"""Image files to uint8 tensors: reading, and the per-sample transforms of large images."""

import struct
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from multimix.data._augment import Augment
from multimix.data._seeds import seed_of

__all__ = ["Decoder", "Job", "fitted", "read_picture"]

EVALUATION_RATIO = 256 / 224  # of the shorter side to the centre crop, as usual with ImageNet


def read_picture(path: str) -> Image.Image:
    """Return the image at ``path`` in RGB.

    Raises:
        ValueError: The file is missing, is no image, or is damaged; the message names it.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def fitted(picture: Image.Image, size: int, *, ratio: float = 1.0) -> Image.Image:
    """Scale the shorter side to ``ratio * size`` and cut the centre square of ``size`` out."""
    resized = v2.functional.resize(picture, [round(size * ratio)], antialias=True)
    return v2.functional.center_crop(resized, [size, size])


class Job(NamedTuple):
    """One batch of files for a worker."""

    epoch: int
    """The epoch, which with ``indices`` fixes the randomness."""
    indices: list[int]
    """Positions of the files in their set."""
    paths: list[str]
    """The files; sent with the job so that no worker holds, or copies on write, the list of all of them."""


@dataclass(frozen=True)
class Decoder(torch.utils.data.Dataset[list[Tensor] | str]):
    """Turns a ``Job`` into one uint8 batch a view, as a map-style data set whose keys are jobs."""

    size: int
    augment: Augment | None
    views: int
    seed: int

    def __getitem__(self, job: Job) -> list[Tensor] | str:
        """Return the views, each (b, 3, size, size), or the message of what could not be read.

        A message and not an exception: a DataLoader would wrap the latter in the worker's traceback.
        """
        try:
            pictures = [read_picture(path) for path in job.paths]
        except ValueError as error:
            return str(error)
        if self.augment is None:
            return [self._stack([fitted(p, self.size, ratio=EVALUATION_RATIO) for p in pictures])] * self.views
        return [self._view(pictures, job, view) for view in range(self.views)]

    def _view(self, pictures: list[Image.Image], job: Job, view: int) -> Tensor:
        seeds = [seed_of("file", self.seed, job.epoch, index, view) for index in job.indices]
        return self._stack([self._augmented(p, s) for p, s in zip(pictures, seeds, strict=True)])

    def _augmented(self, picture: Image.Image, seed: int) -> Image.Image:
        """Return a random view; torch's global CPU generator, which v2 draws from, is seeded and then put back."""
        augment = self.augment or Augment(crop_padding=0, flip=False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            if augment.crop_padding:
                picture = v2.RandomResizedCrop(self.size, antialias=True)(picture)
            else:
                picture = fitted(picture, self.size, ratio=EVALUATION_RATIO)
            return v2.RandomHorizontalFlip()(picture) if augment.flip else picture

    @staticmethod
    def _stack(pictures: list[Image.Image]) -> UInt8[Tensor, "b 3 h w"]:
        return torch.stack([v2.functional.pil_to_tensor(picture) for picture in pictures])
