"""Image files to uint8 tensors: reading, and the per-sample transforms of large images.

Importing torchvision takes seconds, so this file is imported where files are read and not with the package.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from multimix.lab.data._augment import Augment
from multimix.lab.data._seeds import seed_of
from multimix.lab.data._source import one_line

__all__ = ["Decoder", "Job", "UnreadableError", "augmented", "fitted", "read_picture"]

EVALUATION_RATIO = 256 / 224  # of the shorter side to the centre crop, as usual with ImageNet


class UnreadableError(ValueError):
    """A file is not an image that can be read."""


def read_picture(path: str) -> Image.Image:
    """Return the image at ``path`` in RGB.

    Raises:
        UnreadableError: The file is missing, is no image, is damaged, or would take gigabytes of memory; the message
            names it.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadableError(f"{path} cannot be read as an image: {one_line(error)}") from error


def fitted(picture: Image.Image, size: int, *, ratio: float = 1.0) -> Image.Image:
    """Scale the shorter side to ``ratio * size`` and cut the centre square of ``size`` out."""
    resized = v2.functional.resize(picture, [round(size * ratio)], antialias=True)
    return v2.functional.center_crop(resized, [size, size])


def augmented(picture: Image.Image, size: int, augment: Augment, seed: int) -> Image.Image:
    """Return a random view of ``size`` squared: a resized crop (none if ``crop_padding`` is 0), then perhaps a flip.

    Torch's global CPU generator, which v2 draws from, is seeded and afterwards put back.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the accelerators for good.
        torch.default_generator.manual_seed(seed)
        if augment.crop_padding:
            picture = v2.RandomResizedCrop(size, antialias=True)(picture)
        else:
            picture = fitted(picture, size, ratio=EVALUATION_RATIO)
        return v2.RandomHorizontalFlip()(picture) if augment.flip else picture


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
            samples = [self._sample(path, job.epoch, i) for path, i in zip(job.paths, job.indices, strict=True)]
        except UnreadableError as error:
            return str(error)
        return [torch.stack(view) for view in zip(*samples, strict=True)]

    def _sample(self, path: str, epoch: int, index: int) -> list[UInt8[Tensor, "3 h w"]]:
        """Return the views of one file."""
        picture = read_picture(path)
        if self.augment is None:
            return [v2.functional.pil_to_tensor(fitted(picture, self.size, ratio=EVALUATION_RATIO))] * self.views
        seeds = [seed_of("file", self.seed, epoch, index, view) for view in range(self.views)]
        return [v2.functional.pil_to_tensor(augmented(picture, self.size, self.augment, seed)) for seed in seeds]
