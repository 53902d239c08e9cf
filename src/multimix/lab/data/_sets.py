"""Labelled images, in memory or in files, their splits, and choices among them that a seed fixes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from multimix._declared import Checked, Count

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""


UNLABELLED = -100
"""What stands for the class of an image that has none, as in torch; training sets alone may hold such images."""


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images held in memory; a ValueError if there is none, or a field is not as said below."""

    images: UInt8[Tensor, "size c h w"]
    """The pixels, contiguous."""
    labels: Int64[Tensor, " size"] | Float32[Tensor, "size k"]
    """Class indices, -100 of an image without one; or 0 and 1 for each of k labels, any number of which may be 1."""
    classes: tuple[str, ...]
    """The name of every class, in the order of the indices."""
    origin: str = ""
    """Digest of the files that the images were decoded from, which pixels may not tell on another machine."""
    names: tuple[str, ...] = ()
    """What the images are called, for whoever looks at them; none where they come without names."""

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
        images, labels = (part.index_select(0, chosen) for part in (self.images, self.labels))
        names = tuple(self.names[index] for index in chosen.tolist()) if self.names else ()
        return Images(images, labels, self.classes, names=names)

    def to(self, device: torch.device | str) -> "Images":
        """Return the set on ``device``; itself where it is there already."""
        images, labels = self.images.to(device), self.labels.to(device)
        if images is self.images and labels is self.labels:
            return self
        return Images(images, labels, self.classes, names=self.names)


@dataclass(frozen=True, eq=False)
class Files(Checked):
    """Labelled image files, decoded to RGB of one size when a batch asks for them; a ValueError as for ``Images``."""

    paths: tuple[str, ...]
    """Where each image lies."""
    labels: Int64[Tensor, " size"] | Float32[Tensor, "size k"]
    """As those of ``Images``, on the CPU."""
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
    """What a source was found to hold, how it was understood and what was left out, a line each."""
    by_name: bool = False
    """Whether each file's own name decided what is held out."""

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none, instead of one class."""
        return self.train.labels.ndim == 2

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of every class, in the order of the labels."""
        return self.train.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one image."""
        return self.train.shape


def classes_told(classes: tuple[str, ...]) -> str:
    """Return how many classes there are and the first few, for a message."""
    return f"{len(classes)} classes ({', '.join(classes[:4])}{', ...' * (len(classes) > 4)})"


def class_counts(part: ImageSet) -> Int64[Tensor, " k"]:
    """Return how many images of a set have each class, or each label."""
    labels = part.labels.cpu()
    return labels.sum(0).long() if labels.ndim == 2 else labels[labels >= 0].bincount(minlength=len(part.classes))


def labelled(part: ImageSet) -> ImageSet:
    """Return a set without the images that have no class."""
    known = part.labels != UNLABELLED
    return part if part.labels.ndim == 2 or known.all() else part.subset(known.nonzero().flatten())


def ignoring(splits: Splits, label: int | None) -> Splits:
    """Return splits in which images with a label have none: they stay in training and are left out elsewhere."""
    if label is None or splits.multi_label:
        return splits

    def known(part: ImageSet, name: str) -> ImageSet:
        kept = ((part.labels != label) & (part.labels != UNLABELLED)).nonzero().flatten()
        if not len(kept):
            raise ValueError(f"data {splits.name}: every image of {name} has the label {label} that is ignored")
        return part if len(kept) == len(part) else part.subset(kept)

    labels = splits.train.labels.masked_fill(splits.train.labels == label, UNLABELLED)
    held_out = splits.validation and known(splits.validation, "validation")
    return replace(
        splits, train=replace(splits.train, labels=labels), validation=held_out, test=known(splits.test, "test")
    )


@dataclass(frozen=True)
class Parts:
    """What a source holds, before a validation split is held out of the training images."""

    train: ImageSet
    test: ImageSet
    validation: ImageSet | None = None
    statistics: Statistics | None = None  # those the field uses, where it agrees on some
    notes: Sequence[str] = ()  # what was found and left out, a line each
    by_name: bool = False  # whether each file's name decided what is held out

    def __post_init__(self) -> None:
        for name, part in (("validation", self.validation), ("test", self.test)):
            if part is not None and part.labels.ndim != self.train.labels.ndim:
                kinds = {1: "one class an image", 2: "several labels an image"}
                ours, theirs = kinds[part.labels.ndim], kinds[self.train.labels.ndim]
                raise ValueError(f"the {name} set must be as the training set, of {theirs}, got one of {ours}")
            if part is not None and part.classes != self.train.classes:
                pairs = zip_longest(self.train.classes, part.classes)
                ours, theirs = next((here, there) for here, there in pairs if here != there)
                said = "must have the classes of the training set in their order"
                raise ValueError(f"the {name} set {said}, but has {theirs!r} in place of {ours!r}")

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


def stratified(labels: Tensor, chosen: int, seed: int, what: str = "") -> tuple[Tensor, Tensor]:
    """Return ascending indices of ``chosen`` images, of each class its share and at least one, and of the rest.

    Of several labels an image, the choice is at random but for one image of each label that any image has.
    """
    # From the front of one shuffle: under one seed a larger choice all but contains a smaller one.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed_of("stratified", seed)))
    choose = _of_each_class if labels.ndim == 1 else _of_each_label
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[order[choose(labels[order], chosen, what)]] = True
    return mask.nonzero().flatten(), (~mask).nonzero().flatten()


def _of_each_class(labels: Int64[Tensor, " size"], chosen: int, what: str) -> Tensor:
    counts = torch.unique(labels, return_counts=True)[1].tolist()
    _check_chosen(len(counts), chosen, len(labels), f"{what}{{}} each of the {len(counts)} classes")
    by_class = torch.argsort(labels, stable=True).split(counts)
    return torch.cat([part[:count] for part, count in zip(by_class, shares(counts, chosen), strict=True)])


def _of_each_label(labels: Float32[Tensor, "size k"], chosen: int, what: str) -> Tensor:
    """Return the places of an image of each label, the rarest label first, and then of the first of the others."""
    first: list[int] = []
    for label in labels.sum(0).argsort(stable=True).tolist():
        having = labels[:, label] > 0
        if having.any() and not having[first].any():
            first.append(int(having.nonzero()[0]))
    _check_chosen(len(first), chosen, len(labels), f"{what}{{}} each of the {labels.shape[1]} labels")
    others = torch.ones(len(labels), dtype=torch.bool)
    others[first] = False
    return torch.cat([torch.tensor(first, dtype=torch.int64), others.nonzero().flatten()])[:chosen]


def _check_chosen(least: int, chosen: int, size: int, complaint: str) -> None:
    if chosen > size:
        raise ValueError(complaint.partition("{}")[0] + f"there are {size} images")
    if chosen < least:
        raise ValueError(complaint.format(f"{chosen} of {size} images cannot hold"))


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
    several = labels.dtype == torch.float32 and labels.ndim == 2
    if not several and (labels.dtype != torch.int64 or labels.ndim != 1):
        expected = "an int64 tensor (size,), or a float32 tensor (size, k) of 0 and 1 for several labels an image"
        raise ValueError(f"labels must be {expected}, got {labels.dtype} of {tuple(labels.shape)}")
    if len(labels) != size:
        raise ValueError(f"labels must be as many as the images: {size} images but {len(labels)} labels")
    if several:
        if labels.shape[1] != classes or classes < 2:
            raise ValueError(
                f"labels must have one column for each of {classes} labels, 2 or more, got {labels.shape[1]}"
            )
        if not ((labels == 0) | (labels == 1)).all():
            raise ValueError("labels must be 0 or 1 for each label of an image, got other numbers")
        return
    given = labels[labels != UNLABELLED]
    if not len(given):
        raise ValueError(f"labels must have a class of at least one image, got {UNLABELLED} for all of {size}")
    low, high = int(given.min()), int(given.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1} for {classes} classes, got {low}..{high}")
