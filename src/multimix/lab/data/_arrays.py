"""Data as arrays with MedMNIST's names: of an npz archive, or what a function of the user's own returns."""

import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from multimix.lab._code import Reference, called, find, takes_nothing
from multimix.lab._paths import expanded
from multimix.lab.data._sets import UNLABELLED, Images, Parts, Splits, one_line

Arrays = Mapping[str, np.ndarray]
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, NotImplementedError)
_CONTRACT = (
    "a mapping with the arrays train_images, train_labels, test_images and test_labels, perhaps val_images,"
    " val_labels and label_names, as in an npz file, or a multimix.lab.data.Splits"
)
_ONE_EACH = (
    "every training image has exactly one of the labels; if they are classes, give their indices: labels.argmax(1)"
)
_SAY_NONE = "if {0} stands for no class, set ignore_index={0} of the objective"
_USUALLY_NONE = (UNLABELLED, -1, 255)


def read_archive(path: str, ignore_index: int | None = None) -> Parts:
    """Return the sets of an archive with train_, test_ and perhaps val_ images and labels; nothing is unpickled."""
    file = expanded(path)
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
            return _parts(archive, str(file), ignore_index)


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


def read_own(reference: Reference, ignore_index: int | None = None) -> Parts:
    """Return the sets that a function of the user's returns, as arrays like those of an archive or as Splits."""
    found = called(reference)
    if isinstance(found, Splits):
        return Parts(found.train, found.test, found.validation, (found.mean, found.std))
    if not isinstance(found, Mapping):
        raise ValueError(f"{reference} must return {_CONTRACT}; got {type(found).__name__}")
    arrays = {str(key): _as_array(value, f"{reference}: {key}") for key, value in found.items()}
    return _parts(arrays, str(reference), ignore_index)


def _as_array(value: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(value.numpy(force=True) if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array, which it cannot be made: {one_line(error)}") from error


def _parts(arrays: Arrays, origin: str, ignored: int | None) -> Parts:
    train = _split(arrays, origin, "train", ignored)
    own_validation = any(key.startswith("val_") for key in arrays)
    validation = _split(arrays, origin, "val", ignored, train) if own_validation else None
    one_each = train.labels.ndim == 2 and bool((train.labels.sum(1) == 1).all())
    notes = [_ONE_EACH] * one_each
    known = {f"{split}_{what}" for split in ("train", "val", "test") for what in ("images", "labels")}
    if others := [key for key in arrays if key not in known | {"label_names"}]:
        notes.append(f"left out, arrays of other names than those that are read: {', '.join(others)}")
    return Parts(train, _split(arrays, origin, "test", ignored, train), validation, notes=notes)


def _split(arrays: Arrays, origin: str, split: str, ignored: int | None, train: Images | None = None) -> Images:
    """Return a split; ``train`` is the training split, whose classes and shape the others have to have."""
    labels = _labels(arrays, origin, split)
    if ignored is not None and labels.ndim == 1:
        labels = labels.masked_fill(labels == ignored, UNLABELLED)
    elif train is not None and (labels == UNLABELLED).any():
        raise ValueError(f"{origin}: {split}_labels must be classes, got {UNLABELLED}; {_SAY_NONE.format(UNLABELLED)}")
    classes = _named(arrays, _classes(labels, origin, ignored), origin) if train is None else train.classes
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
    given = _array(arrays, origin, "label_names").ravel()
    names = tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in given)
    if len(set(names)) < len(names) or len(names) != len(classes):
        raise ValueError(f"{origin}: label_names must be {len(classes)} different names, got {', '.join(names)}")
    return names


def _classes(labels: torch.Tensor, origin: str, ignored: int | None) -> tuple[str, ...]:
    """Return the names 0..k-1 of the classes; each must have an image, which finds labels that count from 1."""
    if labels.ndim == 2:
        if without := (labels.sum(0) == 0).nonzero().flatten().tolist():
            raise ValueError(
                f"{origin}: train_labels must have an image of each label, but label {without[0]} has none"
            )
        return tuple(map(str, range(labels.shape[1])))
    present = torch.unique(labels if ignored is None else labels[labels != UNLABELLED]).tolist()
    if not present:
        raise ValueError(f"{origin}: train_labels are {ignored} for all images, which is the label of none")
    if present != list(range(len(present))):
        missing = next((i for i, label in enumerate(present) if i != label), len(present))
        got = f"lie in {present[0]}..{present[-1]} and class {missing} has no image"
        hint = "".join(f"; {_SAY_NONE.format(odd)}" for odd in _USUALLY_NONE if odd in present)
        raise ValueError(f"{origin}: train_labels must be 0..k-1, each present, but {got}{hint}")
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
