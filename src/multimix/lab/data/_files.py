"""Image files: reading one, and trees with a folder a class, the layout of torchvision's ImageFolder."""

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from multimix.lab.data._sets import Files, Images, Parts, held_out, one_line

EVALUATION_RATIO = 256 / 224  # of the scaled shorter side to the centre crop, as usual with ImageNet
SMALL_SIDE = 96  # px; a set of larger images stays on the disk
MEMORY_LIMIT = 2 * 1024**3  # bytes of pixels; so does a larger one


class UnreadableError(ValueError):
    """A file is not an image that can be read."""


def read_folder(path: str, split_seed: int) -> Parts:
    """Return the sets of a folder: train/ with test/ or val/ beside it, or one tree of classes.

    Without test/, val/ is the test set. Of one tree a fifth of the images is.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"folder:{path} is not a folder")
    if not (root / "train").is_dir():
        return Parts(*held_out(class_tree(root), 0.2, split_seed, f"{root} has too few images to split off a test set"))
    train = class_tree(root / "train")
    others = {name: class_tree(root / name, train.classes) for name in ("val", "test") if (root / name).is_dir()}
    if not others:
        raise FileNotFoundError(f"{root} has train/ but neither val/ nor test/ beside it")
    test = others.pop("test" if "test" in others else "val")
    return Parts(train, test, others.get("val"))


def class_tree(root: Path, classes: tuple[str, ...] | None = None) -> Files:
    """List the images under ``root`` by class folders as ImageFolder does, hidden ones left out."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is missing")
    found = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(found) < 2:
        raise ValueError(f"{root} must hold at least two class folders, got {len(found)}{_named(found)}")
    if classes is not None and found != classes:
        apart = sorted(set(found) ^ set(classes))
        raise ValueError(f"{root} must have the class folders of the training set; they differ in{_named(apart)}")
    pairs = [(path, label) for label, name in enumerate(found) for path in images_under(root / name)]
    return listed(pairs, found, root)


def listed(pairs: list[tuple[str, int]], classes: tuple[str, ...], root: Path) -> Files:
    """Return ``(path, label)`` pairs as ``Files``, unless a class has none."""
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    counts = torch.bincount(labels, minlength=len(classes))
    if empty := [classes[i] for i in (counts == 0).nonzero().flatten().tolist()]:
        raise ValueError(f"{root} has no readable kind of image for the class{_named(empty)}")
    return Files(tuple(path for path, _ in pairs), labels, classes)


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
    images = torch.empty((len(files), *shape), dtype=torch.uint8)
    pixels = images.numpy()  # threads do not help here: for so small an image Pillow hardly lets go of the interpreter
    for index, path in enumerate(files.paths):
        image = pixels_of(path, image_size)
        if image.shape != shape:
            raise _NotSmallError
        pixels[index] = image
    return Images(images, files.labels, files.classes)


def read_image(path: str) -> Image.Image:
    """Return the image at ``path`` in RGB, or raise an UnreadableError that names it."""
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


def pixels_of(path: str, image_size: int | None) -> np.ndarray:
    """Return one image (3, h, w), fitted to ``image_size`` if that is given."""
    image = read_image(path)
    return np.asarray(image if image_size is None else fitted(image, image_size)).transpose(2, 0, 1)


def images_under(folder: Path) -> list[str]:
    """Return the image files below ``folder``, in ImageFolder's order; hidden ones are passed over."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    found = make_dataset(str(folder.parent), {folder.name: 0}, extensions=IMG_EXTENSIONS, allow_empty=True)
    return [path for path, _ in found if not Path(path).name.startswith(".")]


def _named(names: Sequence[str]) -> str:
    """Return the first few names for the end of a message."""
    return f": {', '.join(names[:5])}{', ...' * (len(names) > 5)}" if names else ""
