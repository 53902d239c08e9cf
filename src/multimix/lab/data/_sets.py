"""Labelled images, in memory or in files, and the splits of a data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from multimix._declared import Checked, Count

__all__ = ["Files", "ImageSet", "Images", "Parts", "Splits", "Statistics", "one_line"]

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images held in memory.

    Raises:
        ValueError: There is no image, ``images`` is not uint8 of shape (size, c, h, w), or ``labels`` are not int64
            class indices, one for each image.
    """

    images: UInt8[Tensor, "size c h w"]
    """The pixels, contiguous."""
    labels: Int64[Tensor, " size"]
    """Class indices."""
    classes: tuple[str, ...]
    """The name of every class, in the order of the indices."""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8 or self.images.numel() == 0:
            shape = tuple(self.images.shape)
            raise ValueError(
                f"images must be a non-empty uint8 tensor (size, c, h, w), got {self.images.dtype} of {shape}"
            )
        _check_labels(self.labels, len(self.images), len(self.classes))
        object.__setattr__(self, "images", self.images.contiguous())

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one image."""
        channels, height, width = self.images.shape[1:]
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
    """Labelled image files, decoded to RGB of one size when a batch asks for them.

    Raises:
        ValueError: There is no path, ``labels`` are not int64 class indices, one for each path, or ``image_size`` < 1.
    """

    paths: tuple[str, ...]
    """Where each image lies."""
    labels: Int64[Tensor, " size"]
    """Class indices, on the CPU."""
    classes: tuple[str, ...]
    """The name of every class, in the order of the indices."""
    image_size: Count = 224
    """Height and width of the decoded images."""

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
        paths = tuple(self.paths[i] for i in chosen.tolist())
        return replace(self, paths=paths, labels=self.labels.index_select(0, chosen))


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
    """The source's own, where it has one."""
    statistics: Statistics | None = None
    """Those the field uses, where it agrees on some."""

    def mapped(self, change: Callable[[ImageSet], ImageSet]) -> "Parts":
        """Return the parts with ``change`` made to each set."""
        validation = None if self.validation is None else change(self.validation)
        return replace(self, train=change(self.train), test=change(self.test), validation=validation)


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
