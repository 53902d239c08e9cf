"""Average precision of detected boxes, by COCO's rules and by those of the PASCAL VOC challenge."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimix._declared import Count, Interval, check
from multimix.lab.data.boxes import Objects

__all__ = ["Detections", "coco_metrics", "require_coco", "voc_average_precision", "voc_metrics"]

Form = Literal["area", "11_point"]

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))  # overlaps over which AP is a mean
_SIZES = ("small", "medium", "large")
_NAMES = {
    **{"map": "ap", "map_50": "ap50", "map_75": "ap75"},
    **{f"map_{size}": f"{size}/ap" for size in _SIZES},
    **{f"mar_{most}": f"ar{most}" for most in (1, 10, 100)},
    **{f"mar_{size}": f"{size}/ar100" for size in _SIZES},
}


@dataclass(frozen=True)
class Detections:
    """The objects that a detector sees in one image."""

    boxes: Float[Tensor, "detections 4"]
    """Left, top, right, bottom in pixels."""
    scores: Float[Tensor, " detections"]
    """How sure it is, higher for surer."""
    labels: Int[Tensor, " detections"]
    """Classes, from 1."""


def require_coco() -> None:
    """Raise ValueError if faster-coco-eval is not installed."""
    if find_spec("faster_coco_eval") is None:
        raise ValueError("COCO's average precision needs faster-coco-eval: pip install faster-coco-eval")


def coco_metrics(
    detections: Sequence[Detections], truths: Sequence[Objects], classes: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return metrics over all classes, and those of each class by its name, all fractions.

    ``ap`` is the mean over overlaps 0.5, 0.55, ..., 0.95 of the average precision at 101 recalls, ``ap50`` and ``ap75``
    that at one overlap, ``ar1``, ``ar10`` and ``ar100`` the recall with so many detections an image; ``small/``,
    ``medium/`` and ``large/`` take objects of less than 32², up to 96² and more square pixels. Crowds are ignored.
    What no object counts for is left out.

    Source: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014, and its evaluation code.

    Raises:
        ValueError: If faster-coco-eval is not installed, something is no box, no score or of no class, or no object
            counts.
    """
    require_coco()
    _check(detections, truths, len(classes))
    from torchmetrics.detection import MeanAveragePrecision  # slow to import

    metric: Any = MeanAveragePrecision(
        backend="faster_coco_eval",
        extended_summary=True,
        # COCO's own, in double precision: torchmetrics' default rounds 0.3 up in single, which a recall of 0.3 misses.
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    metric.warn_on_many_detections = False  # as in COCO, the surest 100 of a class in an image count
    metric.update(
        [{"boxes": d.boxes.float(), "scores": d.scores.float(), "labels": d.labels} for d in detections],
        [{"boxes": t.boxes, "labels": t.labels, "area": t.areas, "iscrowd": t.ignored.long()} for t in truths],
    )
    found = metric.compute()
    metrics = {name: float(found[key]) for key, name in _NAMES.items() if float(found[key]) >= 0}
    if "ap" not in metrics:
        raise ValueError("there is no object to be found that is not a crowd")
    # Precisions are (overlaps, recalls, classes, sizes, limits), -1 where undefined.
    precision = found["precision"][:, :, :, 0, -1].double().mean(1)
    each = {
        classes[label - 1]: {"ap": float(column.mean()), "ap50": float(column[0])}
        for label, column in zip(found["classes"].reshape(-1).tolist(), precision.T, strict=True)
        if column[0] >= 0
    }
    return metrics, each


def voc_average_precision(
    detections: Sequence[Detections],
    truths: Sequence[Objects],
    *,
    label: int,
    overlap: float = 0.5,
    form: Form = "area",
) -> float | None:
    """Return the average precision of one class by VOC's rules, a fraction; None if no object of it counts.

    In the order of their scores, each detection is matched to the object of its class in its image that it overlaps
    most. With an overlap (intersection over union) of at least ``overlap`` it is a true positive, or a false one if an
    earlier detection has that object; matched to a difficult object it counts as neither. All others are false.

    ``area`` is the area under precision made monotone over recall (VOC2010 and later), ``11_point`` the mean over
    recalls 0, 0.1, ..., 1 of the best precision at that recall or a higher one (VOC2007).

    Source: Everingham et al., "The PASCAL visual object classes challenge", IJCV 2010, section 4.2, and its development
    kit. The kit's boxes hold their last pixel; with boxes that end where it ends, as here, overlaps are the same.

    Raises:
        ValueError: If an argument is out of its range, or something is no box, no score or of no class.
    """
    check(Count, label=label)
    check(Annotated[float, Interval(gt=0, le=1)], overlap=overlap)
    check(Form, form=form)
    _check(detections, truths)
    hits, positives = _Matches(detections, truths).hits(label, overlap)
    return _average(hits, positives, form) if positives else None


def voc_metrics(
    detections: Sequence[Detections], truths: Sequence[Objects], classes: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return metrics over all classes, and those of each class by its name, all fractions.

    ``ap50`` and ``ap75`` are means over classes of the area form at overlaps 0.5 and 0.75, ``ap`` the mean over 0.5,
    0.55, ..., 0.95, and ``11_point/ap50`` VOC2007's. Classes without an object that counts are left out.

    Raises:
        ValueError: If something is no box, no score or of no class, or no object counts.
    """
    _check(detections, truths, len(classes))
    matches = _Matches(detections, truths)
    each = {}
    for label, name in enumerate(classes, 1):
        hits = {overlap: matches.hits(label, overlap) for overlap in THRESHOLDS}
        if not hits[0.5][1]:
            continue
        area = {overlap: _average(*found, "area") for overlap, found in hits.items()}
        old = _average(*hits[0.5], "11_point")
        each[name] = {"ap": sum(area.values()) / len(area), "ap50": area[0.5], "ap75": area[0.75], "11_point/ap50": old}
    if not each:
        raise ValueError("there is no object to be found that is not difficult")
    names = next(iter(each.values()))
    return {name: sum(found[name] for found in each.values()) / len(each) for name in names}, each


def _check(detections: Sequence[Detections], truths: Sequence[Objects], classes: int | None = None) -> None:
    """Raise ValueError unless these are detections and objects of the same images that can be told apart."""
    if len(detections) != len(truths) or not truths:
        raise ValueError(
            f"detections and truths must be of the same images, at least one, got {len(detections)} and {len(truths)}"
        )
    for name, images in (("detections", detections), ("truths", truths)):
        for number, image in enumerate(cast("Sequence[Any]", images)):
            scores = image.scores if name == "detections" else image.areas
            if image.boxes.shape != (len(image.labels), 4) or scores.shape != image.labels.shape:
                shapes = [tuple(part.shape) for part in (image.boxes, image.labels, scores)]
                raise ValueError(f"{name}[{number}] must hold boxes (n, 4) and n of all else, got {shapes}")
            low, high = image.boxes[:, :2], image.boxes[:, 2:]
            proper = image.boxes.isfinite().all(1) & (low <= high if name == "detections" else low < high).all(1)
            known = (image.labels >= 1) & (image.labels <= (classes or torch.inf))
            for what, right in {"box": proper, "score or area": scores.isfinite(), "class": known}.items():
                if not right.all():
                    at = int(right.int().argmin())
                    got = f"{image.boxes[at].tolist()}, class {int(image.labels[at])}, {float(scores[at]):g}"
                    raise ValueError(f"{name}[{number}]: number {at} has no {what} that counts: {got}")


class _Matches:
    """Every detection of a data set beside the object of its class that it overlaps most."""

    def __init__(self, detections: Sequence[Detections], truths: Sequence[Objects]) -> None:
        best = [_best(found, truth) for found, truth in zip(detections, truths, strict=True)]
        self._scores = torch.cat([found.scores for found in detections])
        self._labels = torch.cat([found.labels for found in detections])
        self._overlaps = torch.cat([overlaps for overlaps, _ in best])
        # Objects are numbered through; after those of each image comes a place for the detections that have none.
        counts = torch.tensor([0, *(len(truth) + 1 for truth in truths)]).cumsum(0)
        self._objects = torch.cat([which + first for (_, which), first in zip(best, counts, strict=False)])
        self._ignored = torch.cat([torch.cat([truth.ignored, torch.zeros(1).bool()]) for truth in truths])
        self._truths = truths

    def hits(self, label: int, overlap: float) -> tuple[Bool[Tensor, " detections"], int]:
        """Return whether each detection of a class, surest first, is a true positive, and how many there could be."""
        positives = sum(int(((truth.labels == label) & ~truth.ignored).sum()) for truth in self._truths)
        chosen = (self._labels == label).nonzero().squeeze(1)
        chosen = chosen[self._scores[chosen].sort(descending=True, stable=True).indices]
        near = self._overlaps[chosen] >= overlap
        chosen = chosen[~(near & self._ignored[self._objects[chosen]])]
        near = self._overlaps[chosen] >= overlap
        first = torch.zeros_like(near)
        first[np.unique(self._objects[chosen].where(near, -1).numpy(), return_index=True)[1]] = True
        return near & first, positives


def _best(found: Detections, truth: Objects) -> tuple[Tensor, Tensor]:
    """Return the largest overlap of each detection with an object of its class, -1 if none, and the first such."""
    from torchvision.ops import box_iou

    if len(truth) == 0:
        return torch.full((len(found.scores),), -1.0, dtype=torch.float64), torch.zeros_like(found.labels)
    overlaps = box_iou(found.boxes.double(), truth.boxes.double())
    best = overlaps.where(found.labels[:, None] == truth.labels, -1.0).max(1)
    return best.values, best.indices


def _average(hits: Bool[Tensor, " detections"], positives: int, form: Form) -> float:
    true = hits.long().cumsum(0)
    precision = true.double() / torch.arange(1, len(hits) + 1, dtype=torch.float64)
    best = precision.flip(0).cummax(0).values.flip(0) if len(hits) else precision
    if form == "area":
        return float(best[hits].sum() / positives)  # recall rises by 1 / positives at each hit and nowhere else
    # In whole numbers, as 0.3 is not 3 * 0.1: recall reaches tenths / 10 at the first such place.
    reached = [(10 * true >= tenths * positives).nonzero() for tenths in range(11)]
    return float(sum(best[places[0, 0]] for places in reached if len(places))) / 11
