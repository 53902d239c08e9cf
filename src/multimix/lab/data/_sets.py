"""Labelled images, in memory or in files, their splits, and choices among them that a seed fixes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from multimix._declared import Checked, Count

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images held in memory; a ValueError if there is none, or a field is not as said below."""

    images: UInt8[Tensor, "size c h w"]
    """The pixels, contiguous."""
    labels: Int64[Tensor, " size"]
    """Class indices."""
    classes: tuple[str, ...]
    """The name of every class, in the order of the indices."""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8 or self.images.numel() == 0:
            got = f"{self.images.dtype} of {tuple(self.images.shape)}"
            raise ValueError(f"images must be a non-empty uint8 tensor (size, c, h, w), got {got}")
        _check_labels(self.labels, len(self.images), len(self.classes))
        object.__setattr__(self, "images", self.images.contiguous())

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def subset(self, indices: Tensor | Sequence[int]) -> "Images":
        """Return the images at ``indices``, in that order, as a copy."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.images.device)
        return Images(self.images.index_select(0, chosen), self.labels.index_select(0, chosen), self.classes)

    def to(self, device: torch.device | str) -> "Images":
        """Return the set on ``device``; itself where it is there already."""
        images, labels = self.images.to(device), self.labels.to(device)
        if images is self.images and labels is self.labels:
            return self
        return Images(images, labels, self.classes)


@dataclass(frozen=True, eq=False)
class Files(Checked):
    """Labelled image files, decoded to RGB of one size when a batch asks for them; a ValueError as for ``Images``."""

    paths: tuple[str, ...]
    """Where each image lies."""
    labels: Int64[Tensor, " size"]
    """Class indices, on the CPU."""
    classes: tuple[str, ...]
    """The name of every class, in the order of the indices."""
    image_size: Count = 224
    """Height and width of the decoded images."""
    names: tuple[str, ...] = ()
    """Their names below the folder that was read, which fix how it is split; none of a set that comes split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.paths:
            raise ValueError("paths must name at least one image file, got none")
        _check_labels(self.labels, len(self.paths), len(self.classes))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one decoded image."""
        return 3, self.image_size, self.image_size

    def subset(self, indices: Tensor | Sequence[int]) -> "Files":
        """Return the files at ``indices``, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        paths, names = (tuple(each[i] for i in chosen.tolist()) if each else () for each in (self.paths, self.names))
        return replace(self, paths=paths, labels=self.labels.index_select(0, chosen), names=names)


ImageSet = Images | Files


@dataclass(frozen=True, eq=False)
class Splits:
    """The splits of a data set, and what to normalise them with."""

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
    notes: tuple[str, ...] = ()
    """What a folder was found to hold, how it was understood and what was left out, a line each."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of every class, in the order of the labels."""
        return self.train.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one image."""
        return self.train.shape


@dataclass(frozen=True)
class Parts:
    """What a source holds, before a validation split is held out of the training images."""

    train: ImageSet
    test: ImageSet
    validation: ImageSet | None = None
    statistics: Statistics | None = None  # those the field uses, where it agrees on some
    notes: Sequence[str] = ()  # what was found and left out, a line each

    def mapped(self, change: Callable[[ImageSet], ImageSet]) -> "Parts":
        """Return the parts with ``change`` made to each set, the training set first."""
        train, test = change(self.train), change(self.test)
        return replace(
            self, train=train, test=test, validation=None if self.validation is None else change(self.validation)
        )


def seed_of(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) that is the same for the same parts on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stratified(labels: Int64[Tensor, " size"], chosen: int, seed: int, what: str = "") -> tuple[Tensor, Tensor]:
    """Return ascending indices of ``chosen`` images, of each class its share and at least one, and of the rest."""
    counts = torch.unique(labels, return_counts=True)[1].tolist()
    if not len(counts) <= chosen <= len(labels):
        raise ValueError(f"{what}{chosen} of {len(labels)} images cannot hold each of the {len(counts)} classes")
    taken = shares(counts, chosen)
    # From the front of one shuffle: under one seed a larger choice all but contains a smaller one.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed_of("stratified", seed)))
    by_class = order[torch.argsort(labels[order], stable=True)]
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for members, count in zip(by_class.split(counts), taken, strict=True):
        mask[members[:count]] = True
    return mask.nonzero().flatten(), (~mask).nonzero().flatten()


def shares(counts: list[int], size: int) -> list[int]:
    """Divide ``size`` in proportion to ``counts`` by largest remainders, from 1 to its count each."""
    ideal = [count * size / sum(counts) for count in counts]
    taken = [max(1, int(share)) for share in ideal]
    while (missing := size - sum(taken)) != 0:
        step = 1 if missing > 0 else -1
        able = [i for i in range(len(counts)) if 1 <= taken[i] + step <= counts[i]]
        best = max(able, key=lambda i: (ideal[i] - taken[i]) * step)
        taken[best] += step
    return taken


def held_out(images: ImageSet, fraction: float, seed: int, complaint: str) -> tuple[ImageSet, ImageSet]:
    """Return a set without a stratified fraction of it, at least one image, and that fraction."""
    remaining = len(images) - max(1, round(fraction * len(images)))
    kept, held = stratified(images.labels, remaining, seed, f"{complaint}: ")
    return images.subset(kept), images.subset(held)


def first_of(images: ImageSet, size: int | None, *, what: str, split_seed: int = 0) -> ImageSet:
    """Return ``size`` images of a set (None: all), the same share of each class; ``split_seed`` fixes which.

    Raises:
        ValueError: There are not so many, or not one for each class; the message calls ``size`` what ``what`` says.
    """
    if size is None or size == len(images):
        return images
    kept, _ = stratified(images.labels, size, seed_of("train_size", split_seed), f"{what}={size} does not fit: ")
    return images.subset(kept)


def one_line(error: Exception) -> str:
    """Return another library's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _check_labels(labels: Tensor, size: int, classes: int) -> None:
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(f"labels must be an int64 tensor (size,), got {labels.dtype} of {tuple(labels.shape)}")
    if len(labels) != size:
        raise ValueError(f"labels must be as many as the images: {size} images but {len(labels)} labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1} for {classes} classes, got {low}..{high}")
