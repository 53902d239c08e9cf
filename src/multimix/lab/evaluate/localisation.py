"""Weakly supervised localisation: whether a network's attention finds an object whose place it was never told."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate
from typing_extensions import Self

from multimix._declared import Fraction, Interval
from multimix.lab._paths import expanded
from multimix.lab.data import Files, ImageSet, first_of
from multimix.lab.data._files import EVALUATION_RATIO, pixels_of
from multimix.lab.data._folder import named
from multimix.lab.data._load import parts_of
from multimix.lab.data._pixels import upright_size
from multimix.lab.evaluate.passes import LabelledBatches, check_finite, each_position, evaluating
from multimix.lab.evaluate.suite import Source, SuiteSettings, warn
from multimix.ops import attention
from multimix.protocols import SILENT, Monitor, Network, encode

Query = Literal["gap", "cam"]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the file; (0, 0, 1, 1) is its upper left one
Boxes = dict[str, list[Box]]  # those of each image, by what the file calls the image
OVERLAPS = (0.5, 0.3, 0.7)  # intersections over union from which on a box counts as right; the first is the usual one


@dataclass(frozen=True, kw_only=True)
class LocalisationSettings(SuiteSettings):
    """What can be set of the localisation suite."""

    boxes: str | None = None
    """File of boxes: .json, .csv or TinyImageNet's val_annotations.txt, which is also looked for beside its images."""
    query: Query = "gap"
    """What attention compares positions with: gap, the pooled embedding; cam, the classifier's weights of the true
    class."""
    threshold: Fraction = 0.2
    """Where the map is cut for the fixed/ metrics, between its least value, 0, and its largest, 1."""
    thresholds: Annotated[int, Interval(ge=1, le=200)] = 20
    """Thresholds 0, 1/n, 2/n and so on that best/ metrics choose from."""


@dataclass(frozen=True)
class Localisation:
    """How often the box around a network's attention is right; all metrics are fractions of the images with a box.

    ``fixed/localisation_accuracy``: the box around the largest part of the map above one threshold has an intersection
    over union of at least 0.5 with a true one; ``best/``: the same at the threshold that is best on these very images
    (MaxBoxAcc), which flatters; ``iou30/`` and ``iou70/``: with 0.3 and 0.7 for 0.5; ``best/mean/``: the mean of all
    three (MaxBoxAccV2); ``whole/``: the whole image as the box, at 0.5. ``pointing_accuracy``: the map's largest value
    lies in a true box. ``measured``: the share of the test images that have a box.

    Reference:
        Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020, arXiv 2007.04178;
        pointing: Zhang et al., "Top-down neural attention by excitation backprop", arXiv 1608.00507, without its
        tolerance of 15 pixels.
    """

    name: ClassVar[str] = "localisation"
    Settings: ClassVar[type[SuiteSettings]] = LocalisationSettings

    batches: LabelledBatches
    """Inputs and class indices of the images with a box, in any number of batches."""
    boxes: tuple[np.ndarray, ...]
    """The true boxes (count, 4) of each image, in pixels of the inputs."""
    measured: float = 1.0
    """Share of the test images that are in the batches."""
    settings: LocalisationSettings = field(default_factory=LocalisationSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over those images of a run's test set that have a box."""
        found = files_of(source)
        files = cast("Files", first_of(found, settings.examples, what="examples"))
        test = source.test(settings.examples)
        boxes = read_boxes(_annotations(source) if settings.boxes is None else settings.boxes)
        places = places_in(test, files, boxes)
        kept = [i for i, place in enumerate(places) if len(place)]
        if not kept:
            raise ValueError(
                f"boxes: none of the {len(test)} test images has a box in sight; the file names {next(iter(boxes))}, "
                f"an image is called {Path(files.paths[0]).name}"
            )
        own = {name for path in found.paths for name in _names_of(path)}
        if unknown := [name for name in boxes if name not in own]:
            warn("localisation", f"of {len(boxes)} names in the file of boxes no test image has {named(unknown)}")
        served = source.batches(test.subset(kept))
        return cls(served, tuple(places[i] for i in kept), len(kept) / len(test), settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the metrics, and keep accuracy by threshold."""
        thresholds = np.union1d(np.arange(self.settings.thresholds) / self.settings.thresholds, self.settings.threshold)
        overlaps, pointed, whole = self._measure(network, thresholds, monitor)
        fixed = int(np.searchsorted(thresholds, self.settings.threshold))
        best = []
        for least in OVERLAPS:
            accuracy = (overlaps >= least).mean(0)
            words = "" if least == OVERLAPS[0] else f"iou{least * 100:.0f}/"
            best.append(float(accuracy.max()))
            yield f"fixed/{words}localisation_accuracy", float(accuracy[fixed])
            yield f"best/{words}localisation_accuracy", best[-1]
        yield "best/mean/localisation_accuracy", sum(best) / len(best)
        yield "whole/localisation_accuracy", float((whole >= OVERLAPS[0]).mean())
        yield "pointing_accuracy", float(pointed.mean())
        yield "measured", self.measured
        curve = (overlaps >= OVERLAPS[0]).mean(0).tolist()
        about = {"iou": OVERLAPS[0], "examples": len(overlaps), "fixed": self.settings.threshold}
        monitor.record("localisation", {"threshold": thresholds.tolist(), "accuracy": curve, **about})

    def _measure(self, network: Network, thresholds: np.ndarray, monitor: Monitor) -> tuple[np.ndarray, ...]:
        """Return each image's overlap at each threshold, whether it is pointed at, and the whole image's overlap."""
        overlaps, pointed, whole, left = [], [], [], iter((*self.boxes, None))
        with evaluating(network), torch.no_grad():
            for inputs, labels in monitor.track("test", self.batches):
                maps = score_maps(network, inputs, labels, self.settings.query).cpu().numpy()
                for scores, boxes in zip(maps, left, strict=False):
                    if boxes is None:
                        raise ValueError(f"boxes must be those of every image, got those of {len(self.boxes)} only")
                    overlaps.append(overlap(boxes_above(scores, thresholds), boxes))
                    whole.append(overlap(np.array([0, 0, *scores.shape[::-1]], dtype=float), boxes))
                    y, x = np.unravel_index(scores.argmax(), scores.shape)
                    centre = np.array([x + 0.5, y + 0.5])  # of the largest pixel, the first if there are several
                    pointed.append(((boxes[:, :2] <= centre) & (centre <= boxes[:, 2:])).all(1).any())
        if len(overlaps) < max(len(self.boxes), 1):
            raise ValueError(f"batches must hold the {len(self.boxes)} images of the boxes, got {len(overlaps)}")
        return np.array(overlaps), np.array(pointed), np.array(whole)


def _annotations(source: Source) -> str:
    """Return TinyImageNet's own file of boxes."""
    annotations = expanded(source.root) / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    if source.splits.name == "tiny-imagenet" and annotations.is_file():
        return str(annotations)
    raise ValueError(
        f"boxes=FILE is needed, as {source.splits.name} brings none: .json or .csv with a box for each test image, or "
        "TinyImageNet's val_annotations.txt"
    )


def score_maps(
    network: Network, inputs: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"], query: Query = "gap"
) -> Float[Tensor, "b h w"]:
    """Return each image's attention over its pixels, from 0 where it is least to 1; 1 everywhere if it is flat."""
    features = each_position(network, encode(network, inputs))
    check_finite(features, "embeds as")
    height, width = inputs.shape[-2:]
    prefix, rows, columns = grid_of(features.shape[1], height, width)
    weights = None
    if query == "cam":
        if network.head is None:
            raise ValueError("query=cam needs a network with an affine head, whose weights are the class queries")
        weights = cast("Tensor", network.head.weight).flatten(1)[labels]
    over_positions = attention(features[:, prefix:], query=query, class_weights=weights)
    small = over_positions.unflatten(1, (1, rows, columns))
    maps = interpolate(small, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    varies = high - low > 1e-6 * high
    return torch.where(varies, (maps - low) / torch.where(varies, high - low, 1), 1)


def grid_of(positions: int, height: int, width: int) -> tuple[int, int, int]:
    """Return how many positions come before the map (class tokens and the like), and the map's rows and columns."""
    for prefix in range(9):
        cells = positions - prefix
        rows = round(max(cells, 0) ** 0.5 * (height / width) ** 0.5)
        columns = cells // rows if rows else 0
        if cells > 1 and rows * columns == cells and rows * width == columns * height:
            return prefix, rows, columns
    raise ValueError(
        f"localisation needs a map of positions: this network embeds images of {height}x{width} at {positions}, which "
        "is no map of those proportions"
    )


def boxes_above(scores: Float[np.ndarray, "h w"], thresholds: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 4"]:
    """Return the box around the largest part, the first of several, of a map at or above each threshold; 0 if none."""
    from scipy import ndimage

    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True  # pixels that touch at a corner are connected; those at different thresholds are not
    above = scores >= thresholds[:, None, None]
    parts, _ = ndimage.label(above, touching)  # numbered threshold by threshold
    found, before = np.zeros((len(thresholds), 4)), 0
    for box, part, pixels in zip(found, parts, above, strict=True):
        last = int(part.max())
        if last > before + 1:
            pixels = part == before + 1 + np.bincount(part.ravel())[before + 1 :].argmax()
        if last:
            rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            before = last
    return found


def overlap(box: Float[np.ndarray, "*any 4"], boxes: Float[np.ndarray, "count 4"]) -> Float[np.ndarray, "*any"]:
    """Return the largest intersection over union of a box with any of several, in [0, 1]."""
    box = box[..., None, :]
    low, high = np.maximum(box[..., :2], boxes[:, :2]), np.minimum(box[..., 2:], boxes[:, 2:])
    shared = (high - low).clip(0).prod(-1)
    both = (box[..., 2:] - box[..., :2]).prod(-1) + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared
    return (shared / both).max(-1)


def read_boxes(path: str) -> Boxes:
    """Return the boxes of a file."""
    file = expanded(path)
    reader = _READERS.get(file.suffix)
    if reader is None:
        raise ValueError(f"boxes must be a file that ends in {', '.join(_READERS)}, got {path}")
    if not file.is_file():
        raise ValueError(f"boxes: there is no file {path}")
    found: Boxes = {}
    try:
        for name, values in reader(file):
            found.setdefault(name, []).append(_checked(values, f"{path}, {name}"))
    except (UnicodeDecodeError, RecursionError, csv.Error) as error:
        raise ValueError(f"boxes: {path} is damaged: {error}") from error
    if not found:
        raise ValueError(f"boxes: there is no box in {path}")
    if max(max(box) for several in found.values() for box in several) <= 1:
        raise ValueError(f"boxes: those of {path} must be in pixels, and none of them ends beyond 1")
    return found


def _of_json(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield from an object with a box, or a list of boxes, for each image."""
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
    except ValueError as error:
        raise ValueError(f"boxes: {file} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"boxes: {file} must hold an object with a box for each image, got {type(data).__name__}")
    for name, value in data.items():
        several = isinstance(value, list) and value and isinstance(value[0], list)
        yield from ((name, box) for box in (value if several else [value]))


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"{Counter(name for name, _ in pairs).most_common(1)[0][0]} comes twice")
    return found


def _of_csv(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield from a header and a line for each box."""
    with file.open(newline="", encoding="utf-8-sig") as lines:  # spreadsheets write the mark in front
        rows = csv.reader(lines)
        if (header := ",".join(next(rows, []))) != "file,x0,y0,x1,y1":
            raise ValueError(f"boxes: {file} must begin with file,x0,y0,x1,y1, got {header}")
        yield from ((row[0], row[1:]) for row in rows if row)


def _of_annotations(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield from TinyImageNet's file, whose boxes name their first and last pixels."""
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        name, *box = line.split("\t")
        x0, y0, x1, y1 = _checked(box[1:], f"{file}, {name}", least=0)
        yield name, (x0, y0, x1 + 1, y1 + 1)


_READERS = {".json": _of_json, ".csv": _of_csv, ".txt": _of_annotations}


def _checked(values: Any, where: str, *, least: float = 1e-9) -> Box:
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
        if isinstance(values, str) or bool in map(type, values):
            raise ValueError
        if not (x0 >= 0 and y0 >= 0 and x1 - x0 >= least and y1 - y0 >= least):  # NaN lands here too
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"boxes: {where} must have x0, y0, x1, y1 with 0 <= x0 < x1, 0 <= y0 < y1, got {values}"
        ) from None
    return x0, y0, x1, y1


def files_of(source: Source) -> Files:
    """Return the files that the test images come from, in their order."""
    test, name = source.splits.test, source.splits.name
    if isinstance(test, Files):
        return test
    if not (name.startswith("folder:") or name == "tiny-imagenet"):
        raise ValueError(
            "localisation needs images from files, with a box for each: runs on tiny-imagenet, imagenet or "
            f"folder:PATH have them, {name} has none: give them with --data"
        )
    found = parts_of(name, source.root, skip_unreadable=True).test
    if not isinstance(found, Files) or not _same(found, test):
        raise ValueError(
            f"the test images of {name} are not the files found there now: the files have changed since, or the test "
            "set was split off with another split_seed than 0; put it into a folder test/ beside train/"
        )
    return found


def _same(files: Files, test: ImageSet) -> bool:
    """Return whether labels agree, and so do the pixels of eight images."""
    if isinstance(test, Files) or not torch.equal(files.labels, test.labels.cpu()):
        return False
    for i in np.linspace(0, len(files) - 1, min(8, len(files))).round().astype(int).tolist():
        pixels = pixels_of(files.paths[i], None)
        pixels = pixels if pixels.shape == test.shape else pixels_of(files.paths[i], test.shape[-1])
        if not np.array_equal(pixels, test.images[i].cpu()):
            return False
    return True


def places_in(test: ImageSet, files: Files, boxes: Boxes) -> list[Float[np.ndarray, "count 4"]]:
    """Return the boxes of every test image as the network sees it, by the file's ``name`` or ``class/name``."""
    names = [Path(path) for path in files.paths]
    counts = Counter(name.name for name in names)
    if several := [name for name in boxes if counts[name] > 1]:
        raise ValueError(
            f"boxes: {several[0]} is the name of {counts[several[0]]} test images; give it with its class, "
            f"CLASS/{several[0]}"
        )
    found = []
    for path in names:
        own = [box for name in _names_of(path) for box in boxes.get(name, ())]
        found.append(_seen(path, own, test) if own else np.empty((0, 4)))
    return found


def _names_of(path: str | Path) -> tuple[str, str]:
    """Return what a file of boxes may call an image."""
    return f"{Path(path).parent.name}/{Path(path).name}", Path(path).name


def _seen(path: Path, boxes: Sequence[Box], test: ImageSet) -> np.ndarray:
    width, height = upright_size(str(path))
    if outside := [box for box in boxes if box[2] > width or box[3] > height]:
        raise ValueError(f"boxes: {path.name} is upright of {width}x{height} pixels, its box {outside[0]} lies outside")
    values = torch.tensor(boxes, dtype=torch.float64)
    rows, columns = test.shape[1:]
    if isinstance(test, Files) or (height, width) != (rows, columns):
        values = fitted_boxes(values, (height, width), rows, in_memory=not isinstance(test, Files))
    return values[(values[:, 2] > values[:, 0]) & (values[:, 3] > values[:, 1])].numpy()


def fitted_boxes(
    boxes: Float[Tensor, "count 4"], shape: tuple[int, int], size: int, *, in_memory: bool
) -> Float[Tensor, "count 4"]:
    """Return boxes in an image of ``shape`` (h, w) as they are once it is scaled and cut to ``size`` squared."""
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    shorter = round(size * (1.0 if in_memory else EVALUATION_RATIO))
    given = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=shape)
    cut = functional.center_crop(functional.resize(given, [shorter]), [size, size])
    return torch.Tensor(cut.as_subclass(torch.Tensor)).clamp(0, size)
