"""Sets of images that a network was not trained on, by name or path."""

import difflib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multimix.lab.data import DATASETS, Images, load, seed_of
from multimix.lab.evaluate.ood.pixels import Fitting, Memory, Noise, Pictures, Pixels, images_under

__all__ = ["BUILT_IN", "KNOWN", "defaults", "is_own", "labels_of", "open_set"]

NOISE = ("gaussian-noise", "uniform-noise")
BUILT_IN = (*NOISE, "digits")
"""The sets that need no file."""

SHORT = {"tiny-imagenet-crop": "crop:tiny-imagenet", "tiny-imagenet-resize": "resize:tiny-imagenet"}
NAMES = tuple(name for name in DATASETS if ":" not in name)
KNOWN = (*NOISE, *SHORT, *DATASETS)
"""Every set; ``crop:`` or ``resize:`` may stand before all but the noise."""

TREES = {"tiny-imagenet": "tiny-imagenet-200/val", "imagenet": "imagenet/val"}
"""The test images that ``load`` would read under its root; only those that are taken are read here."""
IMAGE_FILE_RATIO = 256 / 224  # of large images, the same as of a run's own test images


def defaults(own: str) -> tuple[str, ...]:
    """Return the built-in sets, without the data set that a run was trained on."""
    return tuple(name for name in BUILT_IN if name != own)


def is_own(name: str, own: str) -> bool:
    """Tell whether a set goes by the name of the run's data set, scaled or cut or not."""
    return _taken_apart(name)[1] == own


def open_set(
    name: str,
    shape: tuple[int, int, int],
    *,
    limit: int,
    root: str | Path,
    download: bool = False,
    seed: int = 0,
    files: bool = False,
) -> Pixels:
    """Return a set's images in the shape (c, h, w) of a run; of a larger set, ``limit`` of them by chance.

    Args:
        name: One of ``KNOWN``, perhaps with ``crop:`` or ``resize:`` before it. Of a named data set the test images are
            taken; of a folder every image below it; of an archive ``test_images``, ``images`` or the only array.
        shape: Of the run's images.
        limit: The most images; so many of noise.
        root: Where named data sets lie.
        download: Fetch a named data set that is absent and can be had.
        seed: Fixes the noise, the images that are taken and where they are cut.
        files: Whether the run's own test images are decoded from large files.

    Raises:
        ValueError: If the name is unknown, the set is not there, is damaged, holds no image or does not fit the shape.
    """
    crop, base = _taken_apart(name)
    if base in NOISE:
        return Noise(base == "gaussian-noise", shape, limit, seed_of("ood", seed, base))
    fitting = Fitting(shape, crop, seed_of("ood", seed, "cut", base), IMAGE_FILE_RATIO if files else 1.0)
    try:
        found = _found(base, root, download)
        return _limited(found, limit, seed_of("ood", seed, "taken", base), fitting)
    except (OSError, ValueError) as error:
        raise ValueError(f"sets: {name!r}: {error}") from error


def labels_of(names: Iterable[str]) -> list[str]:
    """Return a short label for each name, of letters, digits, dots, dashes and underscores, each another.

    A path's is its last part. ``mean`` is left to the mean over sets.
    """
    labels: list[str] = []
    for name in names:
        label = first = _label(name)
        number = 2
        while label in labels or label == "mean":
            label, number = f"{first}-{number}", number + 1
        labels.append(label)
    return labels


def _label(name: str) -> str:
    kind, colon, rest = SHORT.get(name, name).partition(":")
    if colon and kind in ("crop", "resize"):
        return f"{_label(rest)}-{kind}"
    last = Path(rest).expanduser().resolve().name.removesuffix(".npz") if colon else kind
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "set"


def _taken_apart(name: str) -> tuple[bool, str]:
    """Return whether a part is to be cut out, and the name without ``crop:`` or ``resize:``.

    Raises:
        ValueError: If the name is unknown.
    """
    kind, _, rest = SHORT.get(name, name).partition(":")
    prefixed = kind in ("crop", "resize")
    base = rest if prefixed else name
    source, _, path = base.partition(":")
    if base in NAMES or (base in NOISE and not prefixed) or (source in ("folder", "npz") and path):
        return kind == "crop", base
    near = difflib.get_close_matches(name.lower(), KNOWN, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"sets: unknown set {name!r}; {hint}known are {', '.join(KNOWN)}; before all but noise may stand crop:, resize:"
    )


def _found(base: str, root: str | Path, download: bool) -> Tensor | list[str]:  # noqa: FBT001
    """Return a set's images, uint8 (n, c, h, w), or the paths of its image files."""
    kind, colon, path = base.partition(":")
    if colon:
        readers: dict[str, Callable[[Path], Tensor | list[str]]] = {"folder": _folder, "npz": _archive}
        return readers[kind](Path(path).expanduser())
    if base in TREES:
        return _folder(Path(root).expanduser() / TREES[base])
    test = load(base, root=root, validation=0, download=download).test
    return test.images if isinstance(test, Images) else list(test.paths)


def _limited(found: Tensor | list[str], limit: int, seed: int, fitting: Fitting) -> Pixels:
    """Return so many images, in order, and try the first."""
    taken = torch.arange(len(found))
    if len(found) > limit:
        taken = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:limit].sort().values
    if isinstance(found, Tensor):
        pixels: Pixels = Memory(found[taken], fitting)
    else:
        pixels = Pictures(tuple(found[index] for index in taken.tolist()), fitting)
    if isinstance(first := pixels[[0]], str):
        raise ValueError(first)
    return pixels


def _folder(path: Path) -> list[str]:
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder")
    found = images_under(path)
    if not found:
        raise ValueError(f"{path} holds no image file, nor do the folders in it")
    return found


def _archive(path: Path) -> Tensor:
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    try:
        array = _array(path)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no .npz archive of images: {' '.join(str(error).split())}") from error
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.size == 0:
        raise ValueError(f"{path} must hold images (n, h, w) or (n, h, w, c), one or more, not {array.shape}")
    return torch.from_numpy(_bytes(array, path)).permute(0, 3, 1, 2).contiguous()


def _array(path: Path) -> np.ndarray:
    with path.open("rb") as stream:
        archive = np.load(stream, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            return archive
        keys = [key for key in ("test_images", "images") if key in archive.files] or archive.files
        if len(keys) != 1 and keys == archive.files:
            raise ValueError(f"it has neither test_images nor images, but {', '.join(keys) or 'nothing'}")
        return archive[keys[0]]


def _bytes(array: np.ndarray, path: Path) -> np.ndarray:
    """Return pixels as uint8, floats in [0, 1] scaled by 255 and rounded."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f" or not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"{path} must hold uint8, or floats in [0, 1] without NaN, not {array.dtype}")
    return np.rint(array * 255).astype(np.uint8)
