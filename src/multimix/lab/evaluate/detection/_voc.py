"""Average precision as the development kit of the PASCAL VOC challenge defines it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimix.lab.data.boxes import Objects
from multimix.lab.evaluate.detection._detections import Detections

__all__ = ["THRESHOLDS", "voc_average_precision", "voc_metrics"]

Form = Literal["area", "11_point"]

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""The overlaps 0.50, 0.55, ..., 0.95 over which AP is a mean."""


@dataclass(frozen=True)
class _Matched:
    """Every detection of a data set beside the object of its class that it overlaps most."""

    scores: Float[Tensor, " detections"]
    labels: Int[Tensor, " detections"]
    overlaps: Float[Tensor, " detections"]
    """Intersection over union with that object; -1 where the image has none of the class."""
    objects: Int[Tensor, " detections"]
    """The number of that object in the data set."""
    difficult: Bool[Tensor, " detections"]
    """Whether that object is difficult."""


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
    most. Is the overlap (intersection over union) at least ``overlap``, it is a true positive, or a false one if an
    earlier detection has that object already; matched to a difficult object it counts as neither. Every other detection
    is a false positive. Detections of equal score keep the order in which they are given.

    ``area`` is the area under precision made monotone over recall (VOC2010 and later), ``11_point`` the mean over
    recalls 0, 0.1, ..., 1 of the best precision at that recall or a higher one (VOC2007).

    Source: Everingham et al., "The PASCAL visual object classes challenge", IJCV 2010, section 4.2, and its development
    kit. The kit's boxes hold their last pixel; with boxes that end where it ends, as here, overlaps are the same.
    """
    hits, positives = _hits(_matched(detections, truths), truths, label, overlap)
    return _average(hits, positives, form) if positives else None


def voc_metrics(
    detections: Sequence[Detections], truths: Sequence[Objects], classes: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return metrics over all classes, and those of each class by its name, all fractions.

    ``ap50`` and ``ap75`` are means over classes of the area form at overlaps 0.5 and 0.75, ``ap`` the mean over 0.5,
    0.55, ..., 0.95, and ``11_point/ap50`` VOC2007's. Classes without an object that counts are left out.

    Raises:
        ValueError: If no object counts.
    """
    matched = _matched(detections, truths)
    each = {name: found for label, name in enumerate(classes, 1) if (found := _of_class(matched, truths, label))}
    if not each:
        raise ValueError("there is no object to be found that is not difficult")
    names = next(iter(each.values()))
    return {name: sum(found[name] for found in each.values()) / len(each) for name in names}, each


def _of_class(matched: _Matched, truths: Sequence[Objects], label: int) -> dict[str, float]:
    found = {}
    for overlap in THRESHOLDS:
        hits, positives = _hits(matched, truths, label, overlap)
        if not positives:
            return {}
        found[overlap] = _average(hits, positives, "area")
        if overlap == 0.5:
            old = _average(hits, positives, "11_point")
    return {"ap": sum(found.values()) / len(found), "ap50": found[0.5], "ap75": found[0.75], "11_point/ap50": old}


def _matched(detections: Sequence[Detections], truths: Sequence[Objects]) -> _Matched:
    overlaps, objects, difficult = [], [], []
    before = 0
    for found, truth in zip(detections, truths, strict=True):
        best, which = _best(found, truth)
        overlaps.append(best)
        objects.append(which + before)
        ignored = torch.cat([truth.ignored, torch.zeros(1, dtype=torch.bool)])  # for the images without an object
        difficult.append(ignored[which])
        before += len(truth)
    return _Matched(
        torch.cat([found.scores for found in detections]),
        torch.cat([found.labels for found in detections]),
        torch.cat(overlaps),
        torch.cat(objects),
        torch.cat(difficult),
    )


def _best(found: Detections, truth: Objects) -> tuple[Tensor, Tensor]:
    """Return the largest overlap of each detection with an object of its class, and the first such object."""
    if len(truth) == 0:
        return torch.full((len(found.scores),), -1.0, dtype=torch.float64), torch.zeros_like(found.labels)
    overlaps = _overlaps(found.boxes.double(), truth.boxes.double())
    best = overlaps.where(found.labels[:, None] == truth.labels, -1.0).max(1)
    return best.values, best.indices


def _overlaps(first: Float[Tensor, "some 4"], second: Float[Tensor, "others 4"]) -> Float[Tensor, "some others"]:
    """Return intersections over unions."""
    least = torch.minimum(first[:, None, 2:], second[:, 2:])
    common = (least - torch.maximum(first[:, None, :2], second[:, :2])).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return common / (areas[0][:, None] + areas[1] - common)


def _hits(matched: _Matched, truths: Sequence[Objects], label: int, overlap: float) -> tuple[Tensor, int]:
    """Return whether each detection of a class, surest first, is a true positive, and how many there could be."""
    positives = sum(int(((truth.labels == label) & ~truth.ignored).sum()) for truth in truths)
    chosen = (matched.labels == label).nonzero().squeeze(1)
    chosen = chosen[matched.scores[chosen].sort(descending=True, stable=True).indices]
    near = matched.overlaps[chosen] >= overlap
    counted = ~(near & matched.difficult[chosen])
    near, objects = near[counted], matched.objects[chosen][counted]
    return near & _first(objects.where(near, -1)), positives


def _first(values: Int[Tensor, " detections"]) -> Bool[Tensor, " detections"]:
    """Return where each value occurs for the first time."""
    order = values.sort(stable=True)
    fresh = torch.ones_like(order.values, dtype=torch.bool)
    fresh[1:] = order.values[1:] != order.values[:-1]
    return torch.empty_like(fresh).scatter_(0, order.indices, fresh)


def _average(hits: Bool[Tensor, " detections"], positives: int, form: Form) -> float:
    """Return the average precision of detections in the order of their scores."""
    true = hits.long().cumsum(0)
    precision = true.double() / torch.arange(1, len(hits) + 1, dtype=torch.float64)
    best = precision.flip(0).cummax(0).values.flip(0) if len(hits) else precision
    if form == "area":
        return float(best[hits].sum() / positives)  # recall rises by 1 / positives at each hit and nowhere else
    # In whole numbers, as 0.3 is not 3 * 0.1: recall reaches tenths / 10 at the first such place.
    reached = [(10 * true >= tenths * positives).nonzero() for tenths in range(11)]
    return float(sum(best[places[0, 0]] for places in reached if len(places))) / 11
