"""Image sets in an .npz archive with MedMNIST's keys."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from multimix.lab.data._sets import Images
from multimix.lab.data._source import Parts, Request, one_line

__all__ = ["parts_of", "read_archive"]

Arrays = Mapping[str, np.ndarray]


def read_archive(path: str, request: Request) -> Parts:
    """Return the sets of an archive with train_, test_ and perhaps val_ images and labels.

    Images are (n, h, w) or (n, h, w, c) with up to 4 channels, uint8 or floats in [0, 1]; labels are integers (n,) or
    (n, 1). The classes are the labels of the training set, 0..k-1. Nothing is unpickled.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no archive, is damaged, holds pickled objects, lacks a key, or its arrays are not as above.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"npz:{path} is not a file")
    with file.open("rb") as stream:  # opened here, as numpy leaves a file that it cannot read open
        try:
            archive = np.load(stream, allow_pickle=False)
        except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
            raise ValueError(f"{file} is damaged or no .npz archive: {one_line(error)}") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{file} is not an .npz archive but a single array")
        with archive:
            return parts_of(archive, file)


def parts_of(archive: Arrays, file: Path | str) -> Parts:
    """Return the sets of arrays by :func:`read_archive`'s names; classes are those of the training labels.

    Raises:
        ValueError: If one is missing, or they are not as those of an archive; ``file`` says where they are from.
    """
    labels = _labels(archive, file, "train")
    classes = _classes(labels, file)
    train = Images(_images(archive, file, "train", len(labels)), labels, classes)
    test = _part(archive, file, "test", train)
    has_validation = any(key.startswith("val_") for key in archive)
    return Parts(train, test, _part(archive, file, "val", train) if has_validation else None)


def _part(archive: Arrays, file: Path | str, prefix: str, train: Images) -> Images:
    labels = _labels(archive, file, prefix)
    if int(labels.min()) < 0 or int(labels.max()) >= len(train.classes):
        span = f"{int(labels.min())}..{int(labels.max())}"
        raise ValueError(f"{file}: {prefix}_labels must lie in 0..{len(train.classes) - 1} as in training, not {span}")
    images = _images(archive, file, prefix, len(labels))
    if images.shape[1:] != train.images.shape[1:]:
        raise ValueError(
            f"{file}: {prefix}_images are {tuple(images.shape[1:])} (c, h, w), train_images are {train.shape}"
        )
    return Images(images, labels, train.classes)


def _array(archive: Arrays, file: Path | str, key: str) -> np.ndarray:
    if key not in archive:
        raise ValueError(f"{file} has no {key}, only: {', '.join(archive) or 'nothing'}")
    try:
        return archive[key]
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{file}: {key} is damaged or holds pickled objects: {one_line(error)}") from error


def _labels(archive: Arrays, file: Path | str, prefix: str) -> torch.Tensor:
    key = f"{prefix}_labels"
    array = _array(archive, file, key)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{file}: {key} must be of shape (n,) or (n, 1), one or more, not {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{file}: {key} must be integers, not {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _classes(labels: torch.Tensor, file: Path | str) -> tuple[str, ...]:
    """Return the names 0..k-1 of the classes; each must have an image, which finds labels that count from 1."""
    present = torch.unique(labels).tolist()
    if present != list(range(len(present))):
        missing = next((i for i, label in enumerate(present) if i != label), len(present))
        span = f"lie in {present[0]}..{present[-1]}"
        raise ValueError(
            f"{file}: train_labels must be 0..k-1, each present, but {span} and class {missing} has no image"
        )
    if len(present) < 2:
        raise ValueError(f"{file}: train_labels must hold at least two classes, not {len(present)}")
    return tuple(str(label) for label in present)


def _images(archive: Arrays, file: Path | str, prefix: str, count: int) -> torch.Tensor:
    """Return the images as contiguous uint8 (n, c, h, w)."""
    key = f"{prefix}_images"
    array = _array(archive, file, key)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or not 1 <= array.shape[3] <= 4 or array.size == 0:
        raise ValueError(f"{file}: {key} must be (n, h, w) or (n, h, w, c) with c of 1 to 4, not {array.shape}")
    if len(array) != count:
        raise ValueError(f"{file}: {key} and {prefix}_labels differ in length: {len(array)} and {count}")
    return torch.from_numpy(_as_bytes(array, f"{file}: {key}")).permute(0, 3, 1, 2).contiguous()


def _as_bytes(array: np.ndarray, name: str) -> np.ndarray:
    """Return pixels as uint8, floats in [0, 1] scaled by 255 and rounded."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise ValueError(f"{name} must be uint8, or floats in [0, 1], not {array.dtype}")
    low, high = array.min(), array.max()  # NaN if there is one
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must lie in [0, 1] as floats, without NaN, not in [{low}, {high}]")
    return np.rint(array * 255).astype(np.uint8)
