"""Trees of image files: one folder a class, the layout of torchvision's ImageFolder."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from multimix.lab.data._images import fitted, read_image
from multimix.lab.data._sets import Files, Images, Parts
from multimix.lab.data._split import stratified

__all__ = ["class_tree", "listed", "pixels_of", "read_folder", "small_or_files"]

SMALL_SIDE = 96  # px; a set of larger images stays on the disk
MEMORY_LIMIT = 2 * 1024**3  # bytes of pixels; so does a larger one
TEST_FRACTION = 0.2  # of a folder that comes without a test split


def read_folder(path: str, split_seed: int) -> Parts:
    """Return the sets of a folder: train/ with val/ or test/ beside it, or a single tree of classes.

    Where there are both val/ and test/, val/ is the validation set. A single tree gives a fifth of its images,
    stratified by ``split_seed``, to the test set.

    Raises:
        FileNotFoundError: The folder, or one of its splits, is missing.
        ValueError: A tree has no class, one, an empty one or other classes than train/.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"folder:{path} is not a folder")
    if (root / "train").is_dir():
        train = class_tree(root / "train")
        others = {name: class_tree(root / name, train.classes) for name in ("val", "test") if (root / name).is_dir()}
        if not others:
            raise FileNotFoundError(f"{root} has train/ but neither val/ nor test/ beside it")
        test = others.pop("test" if "test" in others else "val")
        return Parts(train, test, others.get("val"))
    whole = class_tree(root)
    size = len(whole) - max(1, round(TEST_FRACTION * len(whole)))
    try:
        kept, held = stratified(whole.labels, size, split_seed)
    except ValueError as error:
        raise ValueError(f"{root} has too few images to split off a test set: {error}") from error
    return Parts(whole.subset(kept), whole.subset(held))


def class_tree(root: Path, classes: tuple[str, ...] | None = None) -> Files:
    """List the images under ``root``, whose folders are the classes, in the order of torchvision's ImageFolder.

    Args:
        root: The folder of the class folders; hidden ones are passed over.
        classes: The classes that must be there.

    Raises:
        FileNotFoundError: ``root`` is missing.
        ValueError: Fewer than two classes, a class without an image, or other classes than ``classes``.
    """
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
    """Return ``(path, label)`` pairs as ``Files``.

    Raises:
        ValueError: A class has no image.
    """
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    counts = torch.bincount(labels, minlength=len(classes))
    if empty := [classes[i] for i in (counts == 0).nonzero().flatten().tolist()]:
        raise ValueError(f"{root} has no readable kind of image for the class{_named(empty)}")
    return Files(tuple(path for path, _ in pairs), labels, classes)


def small_or_files(parts: Parts, image_size: int | None) -> Parts:
    """Return parts of ``Files`` decoded into memory, or to be decoded later to ``image_size`` (224 if None).

    Into memory go images all of one size of at most 96 px, or brought to that by ``image_size``, and at most 2 GiB of
    them.

    Raises:
        ValueError: An image cannot be read.
    """
    train = parts.train
    shape = pixels_of(train.paths[0], image_size).shape if isinstance(train, Files) else train.shape
    try:
        # The training set first: it is the largest, and tells soonest.
        return parts.mapped(lambda part: _in_memory(part, image_size, shape) if isinstance(part, Files) else part)
    except _NotSmallError:
        size = 224 if image_size is None else image_size
        return parts.mapped(lambda part: replace(part, image_size=size) if isinstance(part, Files) else part)


class _NotSmallError(Exception):
    """Images are large, many, or of several shapes."""


def _in_memory(files: Files, image_size: int | None, shape: tuple[int, ...]) -> Images:
    """Decode every file, or raise _NotSmallError."""
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
