"""From the name or path of a data set to its training, validation and test parts."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from multimix.lab._code import Reference, split_reference
from multimix.lab.data._archive import read_archive
from multimix.lab.data._folder import read_folder, small_or_files
from multimix.lab.data._named import NAMED
from multimix.lab.data._own import read_own
from multimix.lab.data._seeds import seed_of
from multimix.lab.data._sets import Files, Images, ImageSet
from multimix.lab.data._source import IMAGENET_STATISTICS, Parts, Request, Statistics
from multimix.lab.data._split import stratified

__all__ = ["DATASETS", "Splits", "first_of", "load"]

READERS: dict[str, Callable[[str, Request], Parts]] = {"folder": read_folder, "npz": read_archive}

DATASETS: tuple[str, ...] = (*NAMED, *(f"{kind}:PATH" for kind in READERS))
"""Everything ``load`` takes; of the last two, PATH stands for a path."""


@dataclass(frozen=True, eq=False)
class Splits:
    """The parts of a data set, and what to normalise them with."""

    name: str
    """What was loaded, as given to ``load``."""
    train: ImageSet
    """Images to train on."""
    validation: ImageSet | None
    """Images to choose by, held out of the training set or the source's own; None where ``validation`` is 0."""
    test: ImageSet
    """Images to report on."""
    mean: tuple[float, ...]
    """Mean of each channel, for pixels in [0, 1]: the field's constants for cifar10, cifar100 and imagenet (ImageNet's
    for any ``Files``), else that of ``train``."""
    std: tuple[float, ...]
    """Standard deviation of each channel, likewise; 1 for a channel that never varies."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of every class, in the order of the labels."""
        return self.train.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one image."""
        return self.train.shape


def load(
    name: str,
    *,
    root: str | Path = "data",
    validation: float = 0.1,
    split_seed: int = 0,
    download: bool = False,
    train_size: int | None = None,
    image_size: int | None = None,
) -> Splits:
    """Load a data set by name (``DATASETS``) or path (``folder:PATH``, ``npz:PATH``).

    Args:
        name: Which data set.
        root: Folder that holds, or will hold, the named data sets.
        validation: Fraction of the training set to hold out, class by class; a source's own validation set goes first.
        split_seed: Fixes which images are held out or kept, apart from any seed of training.
        download: Fetch cifar10, cifar100, svhn or fashion-mnist where they are absent.
        train_size: Keep only that many training images, class by class, after validation is held out.
        image_size: Height and width to bring the images to; None keeps small ones as they are and large ones at 224.

    Raises:
        FileNotFoundError: The data set is not where it should be; the line says what to pass.
        ValueError: The name is unknown, an argument out of range, or the data are damaged or unfit; the line says
            where.
        TypeError: The name is no text, or the root no path.
    """
    if not isinstance(name, str):
        raise TypeError(f"data must be the name of a data set, got {name!r}")
    if not isinstance(root, (str, Path)):
        raise TypeError(f"root must be a path, got {root!r}")
    if not 0 <= validation < 1:
        raise ValueError(f"validation must be a fraction, 0 <= validation < 1, not {validation}")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1, not {image_size}")
    parts = _read(name, Request(Path(root).expanduser(), download, split_seed))
    if parts.validation is None and validation > 0:
        parts = _held_out(parts, validation, split_seed)
    parts = replace(parts, train=first_of(parts.train, train_size, what="train_size", split_seed=split_seed))
    # Chosen first and decoded after, so that memory holds no image that is left out, nor any image twice.
    parts = _resized(small_or_files(parts, image_size), image_size)
    mean, std = parts.statistics or _statistics(parts.train)
    return Splits(name, parts.train, parts.validation, parts.test, mean, std)


def _read(name: str, request: Request) -> Parts:
    if isinstance(name, Reference):
        return read_own(name)
    kind, colon, path = name.partition(":")
    if colon and kind in READERS:
        if not path:
            raise ValueError(f"data set {name!r} lacks its path: {kind}:PATH")
        return READERS[kind](path, request)
    if name in NAMED:
        return NAMED[name](request)
    if split_reference(name):
        raise ValueError(f"data {name!r} is code, which is not run because a text names it; see own_data")
    near = difflib.get_close_matches(name.lower(), NAMED, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"unknown data set {name!r}; {hint}known are {', '.join(DATASETS)}")


def _held_out(parts: Parts, fraction: float, split_seed: int) -> Parts:
    """Move a fraction of the training set, at least one image, to the validation set."""
    size = len(parts.train) - max(1, round(fraction * len(parts.train)))
    try:
        kept, held = stratified(parts.train.labels, size, seed_of("validation", split_seed))
    except ValueError as error:
        raise ValueError(f"validation={fraction} leaves too few training images: {error}") from error
    return replace(parts, train=parts.train.subset(kept), validation=parts.train.subset(held))


def first_of(images: ImageSet, size: int | None, *, what: str, split_seed: int = 0) -> ImageSet:
    """Return so many images of a set, the same share of each class; all of them if ``size`` is None.

    Args:
        images: The set.
        size: How many.
        what: What the caller's user calls ``size``.
        split_seed: Fixes which.

    Raises:
        ValueError: There are not so many, or not one for each class.
    """
    if size is None or size == len(images):
        return images
    try:
        kept, _ = stratified(images.labels, size, seed_of("train_size", split_seed))
    except ValueError as error:
        raise ValueError(f"{what}={size} does not fit: {error}") from error
    return images.subset(kept)


def _resized(parts: Parts, image_size: int | None) -> Parts:
    """Bring in-memory images that came in another size to ``image_size`` squared."""
    if image_size is None:
        return parts

    def sized(part: ImageSet) -> ImageSet:
        if isinstance(part, Files) or part.shape[1:] == (image_size, image_size):
            return part
        from torchvision.transforms.v2.functional import resize

        chunks = [resize(chunk, [image_size, image_size], antialias=True) for chunk in part.images.split(1024)]
        return Images(torch.cat(chunks), part.labels, part.classes)

    return parts.mapped(sized)


def _statistics(train: ImageSet) -> Statistics:
    """Return the exact mean and standard deviation of every channel, from histograms; ImageNet's for files."""
    if isinstance(train, Files):
        return IMAGENET_STATISTICS
    histogram = sum(_histogram(chunk) for chunk in train.images.split(4096))
    levels = torch.arange(256, dtype=torch.float64) / 255
    weight = torch.as_tensor(histogram).double() / (train.images.numel() // train.shape[0])
    mean = weight @ levels
    variance = (weight * (levels - mean[:, None]).square()).sum(1)
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def _histogram(images: Tensor) -> Tensor:
    """Return how often each byte occurs in each channel, (c, 256)."""
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
