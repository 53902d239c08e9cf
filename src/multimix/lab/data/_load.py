"""Data sets by name, as arrays with MedMNIST's names, and what every source has in common."""

import difflib
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from multimix._declared import Count, Interval, check
from multimix.lab._code import Reference, called, find, split_reference, takes_nothing
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
    one_line,
    seed_of,
)

Arrays = Mapping[str, np.ndarray]
_IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What torchvision raises for files that are absent, damaged or out of reach.
_UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, AssertionError, tarfile.TarError, pickle.UnpicklingError)
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, NotImplementedError)
_CONTRACT = (
    "a mapping with the arrays train_images, train_labels, test_images and test_labels, perhaps val_images and"
    " val_labels, as in an npz file, or a multimix.lab.data.Splits"
)

_TORCHVISION: dict[str, tuple[str, Statistics | None]] = {
    "cifar10": ("CIFAR10", ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))),
    "cifar100": ("CIFAR100", ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))),
    "svhn": ("SVHN", None),
    "fashion-mnist": ("FashionMNIST", None),
}
"""Class of torchvision.datasets, and statistics, of the data sets that it reads."""
_ONE_EACH = (
    "every training image has exactly one of the labels; if they are classes, give their indices: labels.argmax(1)"
)
_TREES = {"tiny-imagenet": ("tiny-imagenet-200", None), "imagenet": ("imagenet", _IMAGENET_STATISTICS)}
"""Folder below the root and statistics of the data sets that are trees of files."""
_KINDS = ("folder", "npz")

DATASETS: tuple[str, ...] = ("digits", *_TORCHVISION, *_TREES, *(f"{kind}:PATH" for kind in _KINDS))
"""Everything ``load`` takes; of the last two, PATH stands for a path."""


def load(
    name: str,
    *,
    root: str | Path = "data",
    validation: float = 0.1,
    split_seed: int = 0,
    download: bool = False,
    train_size: int | None = None,
    image_size: int | None = None,
    skip_unreadable: bool = False,
) -> Splits:
    """Load a data set by name (``DATASETS``) or path (``folder:PATH``, ``npz:PATH``).

    Args:
        name: Which data set.
        root: Folder that holds, or will hold, the named data sets.
        validation: Fraction of the training set to hold out, class by class; a source's own validation set goes first.
            Of several labels an image it is drawn at random, and an image of each label stays in training.
        split_seed: Fixes which images are held out or kept, apart from any seed of training.
        download: Fetch cifar10, cifar100, svhn or fashion-mnist where they are absent.
        train_size: Keep only that many training images, likewise, after validation is held out.
        image_size: Height and width to bring the images to; None keeps small ones as they are and large ones at 224.
        skip_unreadable: Leave files of ``folder:PATH`` out that cannot be read, instead of refusing them.

    Raises:
        FileNotFoundError: The data set is not where it should be; the line says what to pass.
        ValueError: The name is unknown, an argument out of range, or the data are damaged or unfit; it says where.
        TypeError: The name is no text, or the root no path.
    """
    check(Annotated[float, Interval(ge=0, lt=1)], validation=validation)
    check(Count | None, image_size=image_size)
    parts = parts_of(name, root, split_seed=split_seed, download=download, skip_unreadable=skip_unreadable)
    if parts.validation is None and validation > 0:
        complaint = f"validation={validation} leaves too few training images"
        seed = seed_of("validation", split_seed)
        hold_out: Any = by_name if isinstance(parts.train, Files) and parts.train.names else held_out
        train, held = hold_out(parts.train, validation, seed, complaint)
        parts = replace(parts, train=train, validation=held)
    parts = replace(parts, train=first_of(parts.train, train_size, what="train_size", split_seed=split_seed))
    # Chosen first and decoded after, so that memory holds no image that is left out, nor any image twice.
    parts = small_or_files(parts, image_size)
    if image_size is not None:
        parts = parts.mapped(lambda part: _resized(part, image_size))
    mean, std = parts.statistics or _statistics(parts.train)
    return Splits(name, parts.train, parts.validation, parts.test, mean, std, tuple(parts.notes))


def parts_of(
    name: str, root: str | Path, *, split_seed: int = 0, download: bool = False, skip_unreadable: bool = False
) -> Parts:
    """Return the sets of a source as they are there, before anything is held out or decoded."""
    check(str, data=name)
    if not isinstance(root, (str, Path)):
        raise TypeError(f"root must be a path, got {root!r}")
    if isinstance(name, Reference):
        return read_own(name)
    root = Path(root).expanduser()
    kind, colon, path = name.partition(":")
    if colon and kind in _KINDS:
        if not path:
            raise ValueError(f"data set {name!r} lacks its path: {kind}:PATH")
        return read_archive(path) if kind == "npz" else read_folder(path, split_seed, skip_unreadable=skip_unreadable)
    if name == "digits":
        return _digits()
    if name in _TORCHVISION:
        return _from_torchvision(name, root, download=download)
    if name in _TREES:
        return _tree(name, root)
    if split_reference(name):
        raise ValueError(f"data {name!r} is code, which is not run because a text names it; see own_data")
    near = " or ".join(difflib.get_close_matches(name.lower(), DATASETS, n=2))
    hint = f"did you mean {near}? " if near else ""
    raise ValueError(f"unknown data set {name!r}; {hint}known are {', '.join(DATASETS)}")


def _digits() -> Parts:
    """Return scikit-learn's 1797 handwritten digits, 8x8 in 17 grey levels, with a fixed fifth as the test set."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(np.rint(data.images * (255 / 16)).astype(np.uint8))[:, None]
    whole = Images(pixels, torch.from_numpy(data.target.astype(np.int64)), tuple(map(str, data.target_names)))
    return Parts(*held_out(whole, 0.2, 0, "digits"))


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


def read_archive(path: str) -> Parts:
    """Return the sets of an archive with train_, test_ and perhaps val_ images and labels; nothing is unpickled."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"npz:{path} is not a file")
    with file.open("rb") as stream:  # opened here, as numpy leaves a file that it cannot read open
        try:
            archive = np.load(stream, allow_pickle=False)
        except DAMAGED as error:
            raise ValueError(f"{file} is damaged or no .npz archive: {one_line(error)}") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{file} is not an .npz archive but a single array")
        with archive:
            return _parts(archive, str(file))


def own_data(text: str) -> Reference:
    """Return what ``FILE.py:FUNCTION``, or the only function of ``FILE.py``, refers to; the file is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no function without arguments of that name; in one line.
    """
    reference = find(text, "function without arguments", _is_loader)
    if not _is_loader(reference.resolve()):
        raise ValueError(f"{reference} must be a function without arguments that returns {_CONTRACT}")
    return reference


def _is_loader(value: Any) -> bool:
    return callable(value) and not isinstance(value, type) and takes_nothing(value)


def read_own(reference: Reference) -> Parts:
    """Return the sets that a function of the user's returns, as arrays like those of an archive or as Splits."""
    found = called(reference)
    if isinstance(found, Splits):
        return Parts(found.train, found.test, found.validation, (found.mean, found.std))
    if not isinstance(found, Mapping):
        raise ValueError(f"{reference} must return {_CONTRACT}; got {type(found).__name__}")
    return _parts({str(key): np.asarray(value) for key, value in found.items()}, str(reference))


def _parts(arrays: Arrays, origin: str) -> Parts:
    train = _split(arrays, origin, "train")
    validation = _split(arrays, origin, "val", train) if any(key.startswith("val_") for key in arrays) else None
    one_each = train.labels.ndim == 2 and bool((train.labels.sum(1) == 1).all())
    notes = (_ONE_EACH,) * one_each
    return Parts(train, _split(arrays, origin, "test", train), validation, notes=notes)


def _split(arrays: Arrays, origin: str, split: str, train: Images | None = None) -> Images:
    """Return a split; ``train`` is the training split, whose classes and shape the others have to have."""
    labels = _labels(arrays, origin, split)
    classes = _named(arrays, _classes(labels, origin), origin) if train is None else train.classes
    images = _pixels(arrays, origin, split)
    shape = tuple(images.shape[1:])
    if train is not None and shape != train.shape:
        raise ValueError(f"{origin}: {split}_images are {shape} (c, h, w), train_images are {train.shape}")
    if train is not None and labels.shape[1:] != train.labels.shape[1:]:
        form = "(n,)" if train.labels.ndim == 1 else f"(n, {len(train.classes)})"
        raise ValueError(f"{origin}: {split}_labels must be {form} as train_labels are, got {tuple(labels.shape)}")
    try:
        return Images(images, labels, classes)
    except ValueError as error:
        raise ValueError(f"{origin}: {split}_{error}") from error


def _array(arrays: Arrays, origin: str, key: str) -> np.ndarray:
    if key not in arrays:
        raise ValueError(f"{origin} has no {key}, only: {', '.join(arrays) or 'nothing'}")
    try:
        return arrays[key]
    except DAMAGED as error:
        raise ValueError(f"{origin}: {key} is damaged or holds pickled objects: {one_line(error)}") from error


def _labels(arrays: Arrays, origin: str, split: str) -> torch.Tensor:
    array = _array(arrays, origin, key := f"{split}_labels")
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim not in (1, 2) or array.size == 0:
        expected = "(n,) or (n, 1), or (n, k) for several labels an image"
        raise ValueError(f"{origin}: {key} must be of shape {expected}, one or more, got {array.shape}")
    if array.ndim == 2:
        return _label_rows(array, f"{origin}: {key}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{origin}: {key} must be integers, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _label_rows(array: np.ndarray, name: str) -> torch.Tensor:
    """Return several labels an image as float32 (n, k)."""
    known = np.isin(array, (0, 1)) if array.dtype.kind in "biuf" else np.zeros(array.shape, dtype=bool)
    if not known.all():
        raise ValueError(f"{name} (n, k) must be 0 or 1 for each of k labels of an image, got {array[~known][0]!r}")
    return torch.from_numpy(array.astype(np.float32))


def _named(arrays: Arrays, classes: tuple[str, ...], origin: str) -> tuple[str, ...]:
    """Return the names of classes, or labels, where arrays hold some."""
    if "label_names" not in arrays:
        return classes
    names = tuple(map(str, _array(arrays, origin, "label_names").ravel()))
    if len(set(names)) < len(names) or len(names) != len(classes):
        raise ValueError(f"{origin}: label_names must be {len(classes)} different names, got {', '.join(names)}")
    return names


def _classes(labels: torch.Tensor, origin: str) -> tuple[str, ...]:
    """Return the names 0..k-1 of the classes; each must have an image, which finds labels that count from 1."""
    if labels.ndim == 2:
        if missing := (labels.sum(0) == 0).nonzero().flatten().tolist():
            raise ValueError(
                f"{origin}: train_labels must have an image of each label, but label {missing[0]} has none"
            )
        return tuple(map(str, range(labels.shape[1])))
    present = torch.unique(labels).tolist()
    if present != list(range(len(present))):
        missing = next((i for i, label in enumerate(present) if i != label), len(present))
        got = f"lie in {present[0]}..{present[-1]} and class {missing} has no image"
        raise ValueError(f"{origin}: train_labels must be 0..k-1, each present, but {got}")
    if len(present) < 2:
        raise ValueError(f"{origin}: train_labels must hold at least two classes, got {len(present)}")
    return tuple(map(str, present))


def _pixels(arrays: Arrays, origin: str, split: str) -> torch.Tensor:
    """Return the images as uint8 (n, c, h, w)."""
    array = _array(arrays, origin, key := f"{split}_images")
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or not 1 <= array.shape[3] <= 4 or array.size == 0:
        raise ValueError(f"{origin}: {key} must be (n, h, w) or (n, h, w, c) with c of 1 to 4, got {array.shape}")
    return torch.from_numpy(as_bytes(array, f"{origin}: {key}")).permute(0, 3, 1, 2)


def as_bytes(array: np.ndarray, name: str) -> np.ndarray:
    """Return pixels as uint8, floats in [0, 1] scaled by 255 and rounded."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise ValueError(f"{name} must be uint8, or floats in [0, 1], got {array.dtype}")
    low, high = array.min(), array.max()  # NaN if there is one
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must lie in [0, 1] as floats, without NaN, got [{low}, {high}]")
    return np.rint(array * 255).astype(np.uint8)
