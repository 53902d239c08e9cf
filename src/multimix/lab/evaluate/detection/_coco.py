"""Average precision and recall as COCO defines them, computed by torchmetrics and faster-coco-eval."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import Tensor

from multimix.lab.data.boxes import Objects
from multimix.lab.evaluate.detection._detections import Detections

__all__ = ["coco_metrics", "require_coco"]

_NAMES = {
    "map": "ap",
    "map_50": "ap50",
    "map_75": "ap75",
    "map_small": "small/ap",
    "map_medium": "medium/ap",
    "map_large": "large/ap",
    "mar_1": "ar1",
    "mar_10": "ar10",
    "mar_100": "ar100",
    "mar_small": "small/ar100",
    "mar_medium": "medium/ar100",
    "mar_large": "large/ar100",
}


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
        ValueError: If faster-coco-eval is not installed, or no object counts.
    """
    require_coco()
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
    return metrics, _each_class(found["precision"], found["classes"].reshape(-1).tolist(), classes)


def _each_class(precision: Tensor, labels: list[int], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return AP and AP50 by class from precisions (overlaps, recalls, classes, sizes, limits), -1 where undefined."""
    whole = precision[:, :, :, 0, -1].double().mean(1)
    return {
        classes[label - 1]: {"ap": float(column.mean()), "ap50": float(column[0])}
        for label, column in zip(labels, whole.T, strict=True)
        if column[0] >= 0
    }
