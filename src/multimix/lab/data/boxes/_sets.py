"""Sets of images with boxes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["TOLERANCE", "BoxSet", "Draft", "Objects", "Photo", "Rule"]

Rule = Literal["coco", "voc"]
"""Whose evaluation a set is made for."""

TOLERANCE = 1.0
"""Boxes that leave the image by at most so many pixels are rounding errors and are clipped."""

LEAST_SIDE = 0.01
"""Boxes narrower or lower than so many pixels have no area: in single precision there may be nothing left of them."""

Box = tuple[float, float, float, float]


class Photo(NamedTuple):
    """One image file."""

    path: str
    """Where it lies."""
    name: str
    """What its annotations call it."""
    height: int
    """Pixels, as its annotations say."""
    width: int
    """Pixels, as its annotations say."""


@dataclass(frozen=True)
class Objects:
    """The objects of an image, or of several one after another."""

    boxes: Float[Tensor, "objects 4"]
    """Left, top, right, bottom in pixels; the image is (0, 0, w, h)."""
    labels: Int[Tensor, " objects"]
    """Classes, from 1; 0 is the background."""
    areas: Float[Tensor, " objects"]
    """Square pixels by which COCO calls an object small, medium or large: of its outline where that is known."""
    ignored: Bool[Tensor, " objects"]
    """COCO's crowds and VOC's difficult objects: not trained on, and neither found nor missed in evaluation."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: slice | Tensor) -> "Objects":
        """Return some of the objects."""
        return Objects(self.boxes[chosen], self.labels[chosen], self.areas[chosen], self.ignored[chosen])

    def flipped(self, width: int) -> "Objects":
        """Return the objects of the image of that width mirrored left to right."""
        left, top, right, bottom = self.boxes.unbind(1)
        boxes = torch.stack([width - right, top, width - left, bottom], 1)
        return Objects(boxes, self.labels, self.areas, self.ignored)


@dataclass(frozen=True)
class BoxSet:
    """Images and the objects in them."""

    name: str
    """Folder and split."""
    rule: Rule
    """Whose evaluation it is made for."""
    classes: tuple[str, ...]
    """Names; that of label 1 comes first."""
    photos: tuple[Photo, ...]
    """The images."""
    objects: Objects
    """Those of all images, one image after another."""
    counts: Int[Tensor, " images"]
    """How many of them belong to each image."""
    notes: tuple[str, ...] = ()
    """What was left out or mended while reading."""

    def __post_init__(self) -> None:
        ends = [0, *self.counts.cumsum(0).tolist()]
        object.__setattr__(self, "_ends", ends)

    def __len__(self) -> int:
        return len(self.photos)

    def of(self, index: int) -> Objects:
        """Return the objects of one image."""
        ends: list[int] = self._ends  # type: ignore[attr-defined]
        return self.objects[ends[index] : ends[index + 1]]

    def trainable(self) -> "BoxSet":
        """Return the images with at least one object that is not ignored, and those objects alone.

        Raises:
            ValueError: If no image is left.
        """
        image = torch.arange(len(self)).repeat_interleave(self.counts)
        wanted = ~self.objects.ignored
        counts = torch.zeros_like(self.counts).index_add_(0, image[wanted], torch.ones_like(image[wanted]))
        kept = [photo for photo, count in zip(self.photos, counts.tolist(), strict=True) if count]
        if not kept:
            raise ValueError(f"{self.name} has no object to train on")
        left_out = len(self) - len(kept)
        note = (f"{self.name}: {left_out} images without an object to train on left out",) if left_out else ()
        chosen = self.objects[wanted]
        return BoxSet(self.name, self.rule, self.classes, tuple(kept), chosen, counts[counts > 0], (*self.notes, *note))


@dataclass
class Draft:
    """Gathers a set while its files are read."""

    name: str
    rule: Rule
    photos: list[Photo] = field(default_factory=list)
    rows: list[tuple[Box, int, float, bool]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    empty: int = 0
    clipped: int = 0

    def begin(self, photo: Photo) -> None:
        """Go on to the next image."""
        self.photos.append(photo)
        self.counts.append(0)

    def add(self, box: Sequence[float], label: int, *, area: float | None, ignored: bool) -> None:
        """Add an object of the current image; one whose box has no area is counted and left out.

        Raises:
            ValueError: If the box is no box, or leaves the image by more than ``TOLERANCE``.
        """
        photo = self.photos[-1]
        inside = _bounded(box, photo)
        self.clipped += inside != tuple(box)
        width, height = inside[2] - inside[0], inside[3] - inside[1]
        if min(width, height) < LEAST_SIDE:
            self.empty += 1
            return
        self.rows.append((inside, label, width * height if area is None else area, ignored))
        self.counts[-1] += 1

    def finish(self, classes: tuple[str, ...]) -> BoxSet:
        """Return the set.

        Raises:
            ValueError: If it has no image.
        """
        if not self.photos:
            raise ValueError(f"{self.name} has no image")
        notes = []
        if self.empty:
            notes.append(f"{self.name}: {self.empty} boxes without an area left out")
        if self.clipped:
            notes.append(f"{self.name}: {self.clipped} boxes that left their image by at most {TOLERANCE:g} px clipped")
        objects = Objects(
            torch.tensor([row[0] for row in self.rows], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([row[1] for row in self.rows], dtype=torch.int64),
            torch.tensor([row[2] for row in self.rows], dtype=torch.float32),
            torch.tensor([row[3] for row in self.rows], dtype=torch.bool),
        )
        return BoxSet(
            self.name, self.rule, classes, tuple(self.photos), objects, torch.tensor(self.counts), tuple(notes)
        )


def _bounded(box: Sequence[float], photo: Photo) -> Box:
    """Return a box with what is at most ``TOLERANCE`` outside of its image cut off."""
    left, top, right, bottom = box
    if not all(map(math.isfinite, box)) or right < left or bottom < top:
        raise ValueError(f"(left, top, right, bottom) = {_shown(box)} is no box")
    if min(left, top) < -TOLERANCE or right > photo.width + TOLERANCE or bottom > photo.height + TOLERANCE:
        raise ValueError(
            f"(left, top, right, bottom) = {_shown(box)} is outside the image of {photo.width} x {photo.height} px"
        )
    limit = (photo.width, photo.height) * 2
    clipped = [min(max(edge, 0), most) for edge, most in zip(box, limit, strict=True)]
    return clipped[0], clipped[1], clipped[2], clipped[3]


def _shown(box: Sequence[float]) -> str:
    return f"({', '.join(f'{edge:g}' for edge in box)})"
