"""Image sets as arrays with MedMNIST's names: in an .npz archive, or returned by a function of the user's own."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimix.lab._code import Reference, called, find, takes_nothing
from multimix.lab.data._sets import Images, Parts, Splits, one_line

Arrays = Mapping[str, np.ndarray]
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, NotImplementedError)
_CONTRACT = (
    "a mapping with the arrays train_images, train_labels, test_images and test_labels, perhaps val_images and"
    " val_labels, as in an npz file, or a multimix.lab.data.Splits"
)


def read_archive(path: str) -> Parts:
    """Return the sets of an archive with train_, test_ and perhaps val_ images and labels; nothing is unpickled.

    Images are (n, h, w) or (n, h, w, c) with up to 4 channels, uint8 or floats in [0, 1]; labels are integers (n,) or
    (n, 1). The classes are the labels of the training set, 0..k-1.
    """
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
    return Parts(train, _split(arrays, origin, "test", train), validation)


def _split(arrays: Arrays, origin: str, split: str, train: Images | None = None) -> Images:
    """Return a split; ``train`` is the training split, whose classes and shape the others have to have."""
    labels = _labels(arrays, origin, split)
    classes = _classes(labels, origin) if train is None else train.classes
    images = _images(arrays, origin, split)
    if train is not None and images.shape[1:] != train.shape:
        shape = tuple(images.shape[1:])
        raise ValueError(f"{origin}: {split}_images are {shape} (c, h, w), train_images are {train.shape}")
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
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{origin}: {key} must be of shape (n,) or (n, 1), one or more, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{origin}: {key} must be integers, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _classes(labels: torch.Tensor, origin: str) -> tuple[str, ...]:
    """Return the names 0..k-1 of the classes; each must have an image, which finds labels that count from 1."""
    present = torch.unique(labels).tolist()
    if present != list(range(len(present))):
        missing = next((i for i, label in enumerate(present) if i != label), len(present))
        raise ValueError(
            f"{origin}: train_labels must be 0..k-1, each present, but lie in {present[0]}..{present[-1]} and class"
            f" {missing} has no image"
        )
    if len(present) < 2:
        raise ValueError(f"{origin}: train_labels must hold at least two classes, got {len(present)}")
    return tuple(map(str, present))


def _images(arrays: Arrays, origin: str, split: str) -> torch.Tensor:
    """Return the images as uint8 (n, c, h, w)."""
    array = _array(arrays, origin, key := f"{split}_images")
    if array.ndim == 3:
        array = array[..., None]
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
