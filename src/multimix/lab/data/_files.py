"""Sets of image files: how one is brought to a size, and which sets are decoded into memory at once."""

import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from multimix.lab.data._identity import content_digest
from multimix.lab.data._pixels import read_image
from multimix.lab.data._sets import Files, Images, Parts

EVALUATION_RATIO = 256 / 224  # of the scaled shorter side to the centre crop, as usual with ImageNet
SMALL_SIDE = 96  # px; a set of larger images stays on the disk
MEMORY_LIMIT = 2 * 1024**3  # bytes of pixels; so does a larger one


def small_or_files(parts: Parts, image_size: int | None) -> Parts:
    """Return parts of ``Files`` decoded into memory, if small and all of one size, or to be decoded later."""
    train = parts.train
    shape = pixels_of(train.paths[0], image_size).shape if isinstance(train, Files) else train.shape
    try:
        return parts.mapped(lambda part: _in_memory(part, image_size, shape) if isinstance(part, Files) else part)
    except _NotSmallError:
        size = Files.image_size if image_size is None else image_size
        return parts.mapped(lambda part: replace(part, image_size=size) if isinstance(part, Files) else part)


class _NotSmallError(Exception):
    """Images are large, many, or of several shapes."""


def _in_memory(files: Files, image_size: int | None, shape: tuple[int, ...]) -> Images:
    if max(shape) > SMALL_SIDE or len(files) * math.prod(shape) > MEMORY_LIMIT:
        raise _NotSmallError
    images, origin = torch.empty((len(files), *shape), dtype=torch.uint8), content_digest(files)
    pixels = images.numpy()  # threads do not help here: for so small an image Pillow hardly lets go of the interpreter
    for index, path in enumerate(files.paths):
        image = pixels_of(path, image_size)
        if image.shape != shape:
            raise _NotSmallError
        pixels[index] = image
    return Images(images, files.labels, files.classes, origin, files.names)


def fitted(image: Image.Image, size: int, *, ratio: float = 1.0) -> Image.Image:
    """Scale the shorter side to ``ratio * size`` and cut the centre square of ``size`` out."""
    from torchvision.transforms.v2 import functional  # whose import takes seconds

    resized = functional.resize(image, [round(size * ratio)], antialias=True)
    return functional.center_crop(resized, [size, size])


def pixels_of(path: str, image_size: int | None) -> np.ndarray:
    """Return one image (3, h, w), fitted to ``image_size`` if that is given."""
    image = read_image(path)
    return np.asarray(image if image_size is None else fitted(image, image_size)).transpose(2, 0, 1)
