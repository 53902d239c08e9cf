"""Data sets by name, and what every source has in common."""

import difflib
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from multimix._declared import Ge, Interval, check
from multimix.lab._code import Reference, split_reference
from multimix.lab._paths import expanded
from multimix.lab.data._arrays import read_archive, read_own
from multimix.lab.data._files import small_or_files
from multimix.lab.data._folder import by_name, check_classes, class_tree, read_folder
from multimix.lab.data._identity import digest
from multimix.lab.data._sets import (
    Files,
    Images,
    ImageSet,
    Parts,
    Splits,
    Statistics,
    first_of,
    held_out,
    ignoring,
    one_line,
    seed_of,
)

_IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What torchvision raises for files that are absent, damaged or out of reach.
_UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, AssertionError, tarfile.TarError, pickle.UnpicklingError)

_TORCHVISION: dict[str, tuple[str, Statistics | None]] = {
    "cifar10": ("CIFAR10", ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))),
    "cifar100": ("CIFAR100", ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))),
    "svhn": ("SVHN", None),
    "fashion-mnist": ("FashionMNIST", None),
}
"""Class of torchvision.datasets, and statistics, of the data sets that it reads."""
_TREES = {"tiny-imagenet": ("tiny-imagenet-200", None), "imagenet": ("imagenet", _IMAGENET_STATISTICS)}
"""Folder below the root and statistics of the data sets that are trees of files."""
KINDS = ("folder", "npz")
"""Of data given by path."""

_DIGITS = {"digits": 1 / 5, "digits-few": 2 / 3}
"""The share of scikit-learn's digits that is the test set, always the same images."""

DATASETS: tuple[str, ...] = (*_DIGITS, *_TORCHVISION, *_TREES, *(f"{kind}:PATH" for kind in KINDS))
"""Everything ``load`` takes; of the last two, PATH stands for a path."""


_VALIDATION = 0.1  # what is usually held out, and may be left out where it leaves too few


def load(
    name: str,
    *,
    root: str | Path = "data",
    validation: float = _VALIDATION,
    split_seed: int = 0,
    download: bool = False,
    train_size: int | None = None,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    ignore_index: int | None = None,
) -> Splits:
    """Load a data set by name (``DATASETS``) or path (``folder:PATH``, ``npz:PATH``).

    Args:
        name: Which data set.
        root: Folder that holds, or will hold, the named data sets.
        validation: Fraction of the training set to hold out, class by class; a source's own validation set goes first.
            Of several labels an image it is drawn at random, and an image of each label stays in training. Where 0.1
            leaves too few for that, there is no validation set, which is noted.
        split_seed: Fixes which images are held out or kept, apart from any seed of training.
        download: Fetch cifar10, cifar100, svhn or fashion-mnist where they are absent.
        train_size: Keep only that many training images, likewise, after validation is held out.
        image_size: Height and width to bring the images to; None keeps small ones as they are and large ones at 224.
        skip_unreadable: Leave files of ``folder:PATH`` out that cannot be read, instead of refusing them.
        ignore_index: Label of images that have no class; those stay in training, as -100, and are left out elsewhere.

    Raises:
        FileNotFoundError: The data set is not where it should be; the line says what to pass.
        ValueError: The name is unknown, an argument out of range, or the data are damaged or unfit; it says where.
        TypeError: The name is no text, or the root no path.
    """
    check(Annotated[float, Interval(ge=0, lt=1)], validation=validation)
    check(Annotated[int, Ge(2)] | None, image_size=image_size)
    check(int | None, train_size=train_size, ignore_index=ignore_index)
    check(int, split_seed=split_seed)
    reading: dict[str, Any] = {"split_seed": split_seed, "download": download, "skip_unreadable": skip_unreadable}
    parts = parts_of(name, root, **reading, ignore_index=ignore_index)
    if parts.validation is None and validation > 0:
        complaint = f"validation={validation} leaves too few training images"
        seed = seed_of("validation", split_seed)
        named = isinstance(parts.train, Files) and len(parts.train.names) > 0 and parts.train.labels.ndim == 1
        hold_out: Any = by_name if named else held_out
        try:
            train, held = hold_out(parts.train, validation, seed, complaint)
            parts = replace(parts, train=train, validation=held, by_name=parts.by_name or named)
        except ValueError as error:
            if validation != _VALIDATION:
                raise ValueError(f"{error}; --validation 0 holds none out") from None
            parts = replace(parts, notes=[*parts.notes, f"there is no validation set: {error}"])
    parts = replace(parts, train=first_of(parts.train, train_size, what="train_size", split_seed=split_seed))
    # Chosen first and decoded after, so that memory holds no image that is left out, nor any image twice.
    parts = small_or_files(parts, image_size)
    if image_size is not None:
        parts = parts.mapped(lambda part: _resized(part, image_size))
    mean, std = parts.statistics or _statistics(parts.train)
    splits = Splits(name, parts.train, parts.validation, parts.test, mean, std, tuple(parts.notes), parts.by_name)
    return ignoring(splits, ignore_index)


def parts_of(
    name: str,
    root: str | Path,
    *,
    split_seed: int = 0,
    download: bool = False,
    skip_unreadable: bool = False,
    ignore_index: int | None = None,
) -> Parts:
    """Return the sets of a source as they are there, before anything is held out or decoded."""
    check(str, data=name)
    if not isinstance(root, (str, Path)):
        raise TypeError(f"root must be a path, got {root!r}")
    if isinstance(name, Reference):
        return read_own(name, ignore_index)
    root = expanded(root)
    kind, colon, path = name.partition(":")
    if colon and kind in KINDS:
        if not path:
            raise ValueError(f"data set {name!r} lacks its path: {kind}:PATH")
        if kind == "npz":
            return read_archive(path, ignore_index)
        return read_folder(path, split_seed, skip_unreadable=skip_unreadable)
    if name in _DIGITS:
        return _digits(_DIGITS[name])
    if name in _TORCHVISION:
        return _from_torchvision(name, root, download=download)
    if name in _TREES:
        return _tree(name, root)
    if split_reference(name):
        raise ValueError(f"data {name!r} is code, which is not run because a text names it; see own_data")
    raise _unknown(name)


def _unknown(name: str) -> ValueError:
    near = difflib.get_close_matches(name.lower(), DATASETS, n=2)
    there = expanded(name)
    if there.is_dir() or (there.is_file() and there.suffix == ".npz"):
        near = [f"{'folder' if there.is_dir() else 'npz'}:{name}"]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return ValueError(f"unknown data set {name!r}; {hint}known are {', '.join(DATASETS)}")


def _digits(test: float) -> Parts:
    """Return scikit-learn's 1797 handwritten digits, 8x8 in 17 grey levels, with a fixed share as the test set."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(np.rint(data.images * (255 / 16)).astype(np.uint8))[:, None]
    whole = Images(pixels, torch.from_numpy(data.target.astype(np.int64)), tuple(map(str, data.target_names)))
    return Parts(*held_out(whole, test, 0, "digits"))


def _from_torchvision(name: str, root: Path, *, download: bool) -> Parts:
    """Return what torchvision reads, or say in one line what to do where it is not there."""
    from torchvision import datasets

    cls, statistics = _TORCHVISION[name]
    splits: tuple[dict[str, Any], ...] = ({"train": True}, {"train": False})
    if name == "svhn":
        root, splits = root / "svhn", ({"split": "train"}, {"split": "test"})
    try:
        found = [getattr(datasets, cls)(root=str(root), download=download, **split) for split in splits]
    except _UNREADABLE as error:
        reason = one_line(error)
        advice = "pass --download (download=True) to fetch it, or npz:PATH to read an archive of your own"
        absent = f"is not, or not whole, under {root}: {advice} ({reason})"
        failed = f"could not be downloaded into {root}: {reason}; or pass npz:PATH"
        raise FileNotFoundError(f"{name} {failed if download else absent}") from error
    classes = tuple("0123456789") if name == "svhn" else tuple(found[0].classes)
    train, test = (_images(dataset, classes) for dataset in found)
    return Parts(train, test, statistics=statistics)


def _images(dataset: Any, classes: tuple[str, ...]) -> Images:
    """Return a torchvision data set's pixels as (n, c, h, w), whichever way it keeps them."""
    pixels = torch.as_tensor(dataset.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[1] != 3:
        pixels = pixels.permute(0, 3, 1, 2)
    labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
    return Images(pixels, torch.as_tensor(labels, dtype=torch.int64), classes)


def _tree(name: str, root: Path) -> Parts:
    """Return train/ and val/, the test set; the latter as a tree, or as TinyImageNet comes: images and annotations."""
    folder, statistics = _TREES[name]
    root = root / folder
    if not root.is_dir():
        advice = "unpack it there (train/ and val/ with a folder a class; there is no download), or pass folder:PATH"
        raise FileNotFoundError(f"{name} is not under {root}: {advice}")
    train = class_tree(root / "train")
    annotations = root / "val" / "val_annotations.txt"
    test = _annotated(annotations, train.classes) if annotations.is_file() else class_tree(root / "val", train.classes)
    return Parts(train, test, statistics=statistics)


def _annotated(annotations: Path, classes: tuple[str, ...]) -> Files:
    """List val/images by the lines ``file<TAB>class<TAB>box`` of TinyImageNet's annotations."""
    pairs = []
    for number, line in enumerate(annotations.read_text().splitlines(), 1):
        name, wnid, *_ = (*line.split("\t"), "")
        if wnid not in classes:
            raise ValueError(f"{annotations}, line {number}: {wnid!r} is not a class folder of train/")
        pairs.append((str(annotations.parent / "images" / name), classes.index(wnid)))
    files = Files(tuple(path for path, _ in pairs), torch.tensor([label for _, label in pairs]), classes)
    check_classes(files, str(annotations))
    return files


def _resized(part: ImageSet, size: int) -> ImageSet:
    """Bring in-memory images that came in another size to ``size`` squared."""
    if isinstance(part, Files) or part.shape[1:] == (size, size):
        return part
    from torchvision.transforms.v2.functional import resize

    chunks = [resize(chunk, [size, size], antialias=True) for chunk in part.images.split(1024)]
    return Images(torch.cat(chunks), part.labels, part.classes, part.origin or digest(part))


def _statistics(train: ImageSet) -> Statistics:
    """Return the exact mean and standard deviation of every channel, from histograms; ImageNet's for files."""
    if isinstance(train, Files):
        return _IMAGENET_STATISTICS
    histograms = [
        torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in chunk.unbind(1)])
        for chunk in train.images.split(4096)
    ]
    weight = torch.stack(histograms).sum(0).double() / (train.images.numel() // train.shape[0])
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = weight @ levels
    variance = (weight * (levels - mean[:, None]).square()).sum(1)
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())
