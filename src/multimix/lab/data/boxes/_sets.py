"""Sets of images with boxes, and their mini-batches as a pure function of seed, epoch and position."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from multimix.lab.data._batches import EpochBatches, decoded
from multimix.lab.data._folder import look_over, unreadable
from multimix.lab.data._identity import digest_of
from multimix.lab.data._pixels import UnreadableError, read_image
from multimix.lab.data._sets import seed_of

Rule = Literal["coco", "voc"]

TOLERANCE = 1.0  # px by which boxes may leave the image: rounding errors, which are clipped
_LISTED = 20
LEAST_SIDE = 0.01  # px; narrower boxes have no area: in single precision there may be nothing left of them


class Photo(NamedTuple):
    """Where an image file lies, and its name and size in pixels by its annotations."""

    path: str
    name: str
    height: int
    width: int


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

    def to(self, device: torch.device | str) -> "Objects":
        """Return the objects on a device."""
        return Objects(*(x.to(device) for x in (self.boxes, self.labels, self.areas, self.ignored)))

    def flipped(self, width: int) -> "Objects":
        """Return the objects of the image of that width mirrored left to right."""
        left, top, right, bottom = self.boxes.unbind(1)
        return replace(self, boxes=torch.stack([width - right, top, width - left, bottom], 1))


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
    objects: Objects
    """Those of all images, one image after another."""
    counts: Int[Tensor, " images"]
    """How many of them belong to each image."""
    notes: tuple[str, ...] = ()
    """What was left out or mended while reading."""

    def __len__(self) -> int:
        return len(self.photos)

    @cached_property
    def _ends(self) -> list[int]:
        return [0, *self.counts.cumsum(0).tolist()]

    def of(self, index: int) -> Objects:
        """Return the objects of one image."""
        return self.objects[self._ends[index] : self._ends[index + 1]]

    def identity(self) -> dict[str, Any]:
        """Return how many images there are, and a digest of names, sizes of files, and objects."""
        parts = (self.counts, self.objects.boxes, self.objects.labels, self.objects.ignored)
        names = (f"{photo.name}\0{os.path.getsize(photo.path)}" for photo in self.photos)
        return {"images": len(self), "digest": digest_of(*parts, *self.classes, *names)}

    def looked_at(self) -> "BoxSet":
        """Return the set with a note of images that lie turned; an UnreadableError lists those that do not fit."""
        looks, _ = look_over([photo.path for photo in self.photos])
        wrong, upright, stored = [], 0, 0
        for photo in self.photos:
            look, said = looks[photo.path], (photo.width, photo.height)
            if look.size == said:
                stored += look.orientation > 1
            elif look.size == said[::-1] and look.orientation > 4:
                upright += 1
            else:
                wrong.append(look.problem or _of_another_size(photo, *look.size or ()))
        if wrong:
            raise unreadable(wrong, len(self), f"{self.name} needs each, of the size that its annotations say")
        turned = {"as they are stored, whose size": stored, "once they are upright, whose size": upright}
        notes = (
            f"{self.name}: {count} images lie turned by their EXIF data; boxes are those of the images {how}"
            " their annotations have"
            for how, count in turned.items()
            if count
        )
        return replace(self, notes=(*self.notes, *notes))

    def trainable(self) -> "BoxSet":
        """Return the images with at least one object that is not ignored, and those objects; a ValueError if none."""
        image = torch.arange(len(self)).repeat_interleave(self.counts)
        wanted = ~self.objects.ignored
        counts = torch.bincount(image[wanted], minlength=len(self))
        kept = tuple(photo for photo, count in zip(self.photos, counts.tolist(), strict=True) if count)
        if not kept:
            raise ValueError(f"{self.name} has no object to train on")
        left_out = f"{self.name}: {len(self) - len(kept)} images without an object to train on left out"
        notes = (*self.notes, left_out) if len(kept) < len(self) else self.notes
        return replace(self, photos=kept, objects=self.objects[wanted], counts=counts[counts > 0], notes=notes)


@dataclass
class Draft:
    """Gathers a set while its files are read."""

    name: str
    rule: Rule
    classes: tuple[str, ...] | None  # None: all that occur, in alphabetical order
    photos: list[Photo] = field(default_factory=list)
    rows: list[tuple[list[float], str, float, bool]] = field(default_factory=list)  # box, class, area, ignored
    counts: list[int] = field(default_factory=list)
    empty: int = 0
    clipped: int = 0
    unused: str = ""  # images that no annotation names, in words
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @contextmanager
    def entry(self, where: str) -> Iterator[None]:
        """Keep what is refused inside for :meth:`finish`, which lists it."""
        try:
            yield
        except (TypeError, ValueError, OverflowError) as error:
            self.wrong.append(f"{where}: {error}")

    def begin(self, photo: Photo) -> None:
        """Go on to the next image."""
        self.photos.append(photo)
        self.counts.append(0)

    def add(self, box: Sequence[float], name: str, *, area: float | None, ignored: bool) -> None:
        """Add an object of the current image; one whose box has no area is counted and left out."""
        if self.classes is not None and name not in self.classes:
            raise ValueError(f"class {name!r} is not among {', '.join(self.classes)}")
        inside = _bounded(box, self.photos[-1])
        self.clipped += inside != list(box)
        width, height = inside[2] - inside[0], inside[3] - inside[1]
        if min(width, height) < LEAST_SIDE:
            self.empty += 1
        else:
            self.rows.append((inside, name, width * height if area is None else area, ignored))
            self.counts[-1] += 1

    def finish(self) -> BoxSet:
        """Return the set, unless entries are wrong, images are missing or there is none."""
        for kind, found in ((ValueError, self.wrong), (FileNotFoundError, self.missing)):
            if found:
                raise kind(
                    "; ".join([*found[:_LISTED], *[f"and {len(found) - _LISTED} more"] * (len(found) > _LISTED)])
                )
        if not self.photos:
            raise ValueError(f"{self.name} has no image")
        if self.rows and max(max(box) for box, *_ in self.rows) <= 1:
            raise ValueError(f"{self.name} must have boxes in pixels, and none of its {len(self.rows)} ends beyond 1")
        clipped = f"that left their image by at most {TOLERANCE:g} px clipped"
        mended = {"without an area left out": self.empty, clipped: self.clipped}
        notes = tuple(f"{self.name}: {count} boxes {what}" for what, count in mended.items() if count)
        notes += (f"{self.name}: {self.unused}",) if self.unused else ()
        boxes, names, areas, ignored = zip(*self.rows, strict=True) if self.rows else ((), (), (), ())
        classes = tuple(sorted(set(names))) if self.classes is None else self.classes
        labels = {name: label for label, name in enumerate(classes, 1)}
        objects = Objects(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor([labels[name] for name in names], dtype=torch.int64),
            torch.tensor(areas, dtype=torch.float32),
            torch.tensor(ignored, dtype=torch.bool),
        )
        return BoxSet(self.name, self.rule, classes, tuple(self.photos), objects, torch.tensor(self.counts), notes)


def _bounded(box: Sequence[float], photo: Photo) -> list[float]:
    """Return a box with what is at most ``TOLERANCE`` outside of its image cut off."""
    left, top, right, bottom = box
    said = f"(left, top, right, bottom) = ({', '.join(f'{edge:g}' for edge in box)})"
    if not all(map(math.isfinite, box)) or right < left or bottom < top:
        raise ValueError(f"{said} is no box")
    if min(left, top) < -TOLERANCE or right > photo.width + TOLERANCE or bottom > photo.height + TOLERANCE:
        raise ValueError(f"{said} is outside the image of {photo.width} x {photo.height} px")
    limit = (photo.width, photo.height) * 2
    return [min(max(edge, 0), most) for edge, most in zip(box, limit, strict=True)]


@dataclass(frozen=True)
class BoxBatch:
    """Images of any sizes and their objects."""

    images: list[Tensor]
    """Each float32 (c, h, w) in [0, 1]."""
    objects: list[Objects]
    """Those of each image."""


@dataclass(eq=False)
class BoxBatches(EpochBatches[BoxBatch]):
    """Serves a set in mini-batches; a ValueError if a setting is out of its range or there is not even one batch.

    The order is drawn from (seed, epoch) and the flip of an image from (seed, epoch, index), so neither the number of
    workers nor the batch an iteration starts from changes what comes out.
    """

    dataset: BoxSet
    """The images and their objects."""
    _: KW_ONLY
    shuffle: bool = False
    """Draw a new order each epoch."""
    flip: bool = False
    """Mirror half of the images."""
    channels: int = 3
    """3 for colour, 1 for grey."""

    ORDER: ClassVar[str] = "boxes"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, but the backbone was trained on images of {self.channels}")

    def _served(self, epoch: int, start: int, chunks: tuple[Tensor, ...]) -> Iterator[BoxBatch]:
        def mirrored(index: int) -> bool:
            return self.flip and bool(seed_of("mirror", self.seed, epoch, index) & 1)

        def objects(index: int) -> Objects:
            found = self.dataset.of(index)
            return (found.flipped(self.dataset.photos[index].width) if mirrored(index) else found).to(self.device)

        jobs = [[(self.dataset.photos[index], mirrored(index)) for index in chunk.tolist()] for chunk in chunks]
        decode = partial(_images, "RGB" if self.channels == 3 else "L")
        for chunk, made in zip(chunks, decoded(decode, jobs, workers=self.workers), strict=True):
            images = [image.to(self.device, non_blocking=True).float().div_(255) for image in made]
            yield BoxBatch(images, [objects(index) for index in chunk.tolist()])


def _of_another_size(photo: Photo, width: int, height: int) -> str:
    return f"{photo.path} is {width} x {height} px, its annotations say {photo.width} x {photo.height}"


def _images(mode: str, job: list[tuple[Photo, bool]]) -> list[Tensor]:
    """Return images, mirrored or not, each uint8 (c, h, w)."""
    made = []
    for photo, mirrored in job:
        size = (photo.width, photo.height)
        image = read_image(photo.path, upright=False)
        if image.size != size:  # boxes are then those of the upright image
            image = read_image(photo.path)
        if image.size != size:
            raise UnreadableError(_of_another_size(photo, *image.size))
        image = image.convert(mode)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
        made.append(torch.from_numpy(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1).copy()))
    return made
