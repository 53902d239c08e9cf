"""Sets of images that a network was not trained on, by name or path, brought to the shape that it was trained on."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Generator, Tensor

from multimix.lab._paths import expanded
from multimix.lab.data import DATASETS, Files, Images, load, normalise, seed_of
from multimix.lab.data._arrays import DAMAGED, as_bytes
from multimix.lab.data._batches import decoded
from multimix.lab.data._files import EVALUATION_RATIO, fitted
from multimix.lab.data._folder import Survey, images_under, look_over, unreadable
from multimix.lab.data._pixels import read_image
from multimix.lab.data._sets import one_line
from multimix.lab.evaluate.passes import per_example
from multimix.lab.evaluate.suite import Source, warn

NOISE = ("gaussian-noise", "uniform-noise")
BUILT_IN = (*NOISE, "digits")  # the sets that need no file
SHORT = {"tiny-imagenet-crop": "crop:tiny-imagenet", "tiny-imagenet-resize": "resize:tiny-imagenet"}
KNOWN = (*NOISE, *SHORT, *DATASETS)
"""Every set; ``crop:`` or ``resize:`` may stand before all but the noise."""
TREES = {"tiny-imagenet": "tiny-imagenet-200/val", "imagenet": "imagenet/val"}
"""The test images that ``load`` would read under its root; only those that are taken are read here."""


@dataclass(frozen=True, eq=False)
class Outside:
    """A set's images as a run's network takes them, in batches, in order, with labels that mean nothing."""

    source: Source
    size: int
    make: Callable[[list[int]], UInt8[Tensor, "b c h w"]]  # from positions in the set to images of the run's shape
    in_files: bool = False  # whether making them takes the time of decoding files, and so worker processes

    def __len__(self) -> int:
        return -(-self.size // self.source.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over all images; a file that cannot be read is a ValueError."""
        device, splits = self.source.device, self.source.splits
        chunks = [chunk.tolist() for chunk in torch.arange(self.size).split(self.source.batch_size)]
        for images in decoded(self.make, chunks, workers=self.source.workers if self.in_files else 0):
            inputs = normalise(images.to(device), splits.mean, splits.std)
            yield inputs, torch.zeros(len(inputs), dtype=torch.int64, device=device)


def open_set(name: str, source: Source, *, limit: int, download: bool = False, seed: int = 0) -> Outside:
    """Return the (test) images of a set in the shape of a run's; of a larger set, ``limit`` of them by chance."""
    test, (crop, base) = source.splits.test, taken_apart(name)
    if base in NOISE:
        seed = seed_of("ood", seed, base)
        return Outside(source, limit, partial(_noise, gaussian=base == "gaussian-noise", shape=test.shape, seed=seed))
    try:
        found = _found(base, source.root, download)
        taken = torch.arange(len(found))
        if len(found) > limit:
            generator = Generator().manual_seed(seed_of("ood", seed, "taken", base))
            taken = torch.randperm(len(found), generator=generator)[:limit].sort().values
        in_files = not isinstance(found, Tensor)
        images = found[taken] if isinstance(found, Tensor) else tuple(found[index] for index in taken.tolist())
        ratio = EVALUATION_RATIO if isinstance(test, Files) else 1.0
        _check_readable(images)
        fitting = Fitting(images, test.shape, crop, seed_of("ood", seed, "cut", base), ratio)
        fitting([0])
    except (OSError, ValueError) as error:
        reason = str(error).replace("--download (download=True)", "--ood.download")
        raise ValueError(f"sets: {name!r}: {reason}") from error
    return Outside(source, len(taken), fitting, in_files)


def labels_of(names: Iterable[str]) -> list[str]:
    """Return a short label for each name, each another and none ``mean``; a path's is its last part."""
    labels: list[str] = []
    for name in names:
        label = _label(name)
        numbered = (f"{label}-{number}" for number in count(2))
        labels.append(next(free for free in chain([label], numbered) if free not in [*labels, "mean"]))
    return labels


def _label(name: str) -> str:
    kind, colon, rest = SHORT.get(name, name).partition(":")
    if colon and kind in ("crop", "resize"):
        return f"{_label(rest)}-{kind}"
    last = expanded(rest).resolve().name.removesuffix(".npz") if colon else kind
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "set"


def taken_apart(name: str) -> tuple[bool, str]:
    """Return whether a part is to be cut out, and the name without ``crop:`` or ``resize:``; refuse unknown names."""
    kind, _, rest = SHORT.get(name, name).partition(":")
    prefixed = kind in ("crop", "resize")
    base = rest if prefixed else name
    source, _, path = base.partition(":")
    if (
        (base in DATASETS and ":" not in base)
        or (base in NOISE and not prefixed)
        or (source in ("folder", "npz") and path)
    ):
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
        return (_folder if kind == "folder" else _archive)(expanded(path))
    if base in TREES:
        return _folder(expanded(root) / TREES[base])
    test = load(base, root=root, validation=0, download=download).test
    return test.images if isinstance(test, Images) else list(test.paths)


def _folder(path: Path) -> list[str]:
    """Return every image file below a folder once, in the order of its path, and warn of what is left out."""
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder")
    survey, found = Survey(path), dict[str, str]()
    for file in sorted(images_under(path, survey)):
        if file != found.setdefault(os.path.realpath(file), file):
            survey.leave_out("a link to an image that is read already", file)
    left_out = "".join(f"; {line}" for line in survey.lines())
    if not found:
        raise ValueError(f"{path} holds no image file, nor do the folders in it{left_out}")
    if left_out:
        warn("ood", f"{path}: {len(found)} images{left_out}")
    return list(found.values())


def _check_readable(images: Tensor | tuple[str, ...]) -> None:
    """Raise UnreadableError, which lists them, if files cannot be read."""
    if not isinstance(images, Tensor):
        looks, _ = look_over(images)
        if bad := [look.problem for look in looks.values() if look.problem is not None]:
            raise unreadable(bad, len(images), "mend or remove them")


def _archive(path: Path) -> Tensor:
    """Return ``test_images``, ``images`` or the only array of an archive."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    try:
        with path.open("rb") as stream:
            array = np.load(stream, allow_pickle=False)
            if not isinstance(array, np.ndarray):
                keys = [key for key in ("test_images", "images") if key in array.files] or array.files
                if len(keys) != 1 and keys == array.files:
                    raise ValueError(f"it has neither test_images nor images, but {', '.join(keys) or 'nothing'}")
                array = array[keys[0]]
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged or no .npz archive of images: {one_line(error)}") from error
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.size == 0:
        raise ValueError(f"{path} must hold images (n, h, w) or (n, h, w, c), one or more, not {array.shape}")
    return torch.from_numpy(as_bytes(array, str(path))).permute(0, 3, 1, 2).contiguous()


def _noise(indices: list[int], *, gaussian: bool, shape: tuple[int, int, int], seed: int) -> UInt8[Tensor, "b c h w"]:
    """Return images of independent bytes, uniform, or N(1/2, 1), clipped to [0, 1] and rounded, as in ODIN."""
    if not gaussian:
        return per_example(lambda g: torch.randint(256, shape, generator=g, dtype=torch.uint8), indices, seed=seed)
    values = per_example(lambda g: torch.randn(shape, generator=g), indices, seed=seed)
    return values.add_(0.5).clamp_(0, 1).mul_(255).round_().byte()


@dataclass(frozen=True, eq=False)
class Fitting:
    """Brings images to one shape, either the whole image scaled or a part of it cut out."""

    images: UInt8[Tensor, " n *chw"] | tuple[str, ...]  # in memory, or the paths of files
    shape: tuple[int, int, int]  # (c, h, w) to bring them to
    # Cut a random part out of the unscaled image, unless it is too small; else scale it to cover height and width, and
    # cut the centre out.
    crop: bool
    seed: int  # of the places of the cuts, which belong to an image's position in its set
    ratio: float = 1.0  # of a file's scaled shorter side to the centre that is kept, where height and width are one

    def __call__(self, indices: list[int]) -> UInt8[Tensor, "b c h w"]:
        """Return the images at some positions; those in files are scaled as the run's own test images are."""
        if isinstance(self.images, Tensor):
            return self._fit(self.images[indices], indices)
        return torch.cat([self._fit(self._read(self.images[index]), [index]) for index in indices])

    def _read(self, path: str) -> Tensor:
        from torchvision.transforms.v2.functional import pil_to_tensor

        image, (_, height, width) = read_image(path), self.shape
        if height == width and not self.crop:
            image = fitted(image, height, ratio=self.ratio)
        return pil_to_tensor(image)[None]

    def _fit(self, images: UInt8[Tensor, " b *chw"], indices: list[int]) -> Tensor:
        from torchvision.transforms.v2.functional import center_crop, resize

        images = self._channels(images)
        has, wanted = images.shape[-2:], self.shape[1:]
        scale = max(wanted[0] / has[0], wanted[1] / has[1])
        if scale > 1 or (scale < 1 and not self.crop):
            size = [max(least, round(side * scale)) for side, least in zip(has, wanted, strict=True)]
            images = cast("Tensor", resize(images, size, antialias=True))
        return self._cut(images, indices) if self.crop else cast("Tensor", center_crop(images, list(wanted)))

    def _channels(self, images: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import rgb_to_grayscale

        has, wanted = images.shape[1], self.shape[0]
        if has == wanted:
            return images
        if has == 1:
            return images.expand(-1, wanted, -1, -1)
        if (has, wanted) == (3, 1):
            return rgb_to_grayscale(images)
        raise ValueError(f"images of {has} channels cannot be made into the run's, of {wanted}")

    def _cut(self, images: Tensor, indices: list[int]) -> Tensor:
        height, width = self.shape[1:]
        free = torch.tensor([images.shape[-2] - height + 1, images.shape[-1] - width + 1])
        drawn = per_example(lambda g: torch.rand(2, generator=g, dtype=torch.float64), indices, seed=self.seed)
        pairs = zip(images, (drawn * free).long().tolist(), strict=True)
        return torch.stack([image[:, top : top + height, left : left + width] for image, (top, left) in pairs])
