"""Weakly supervised localisation by attention."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from typing_extensions import Self

from multimix.lab.data import first_of
from multimix.lab.evaluate.localisation._boxes import read_boxes
from multimix.lab.evaluate.localisation._maps import Query, box_above, overlap, score_maps
from multimix.lab.evaluate.localisation._places import files_of, places_in
from multimix.lab.evaluate.predict import LabelledBatches, evaluating
from multimix.lab.evaluate.suite import Source, SuiteSettings
from multimix.protocols import SILENT, Monitor, Network

OVERLAPS = (0.5, 0.3, 0.7)
"""Intersections over union from which on a box counts as right; the first is the usual one."""


@dataclass(frozen=True, kw_only=True)
class LocalisationSettings(SuiteSettings):
    """What can be set of the localisation suite."""

    boxes: str | None = None
    """File of boxes: .json, .csv or TinyImageNet's val_annotations.txt, which is also looked for beside its images."""
    query: str = "gap"
    """What attention compares positions with: gap, the pooled embedding; cam, the classifier's weights of the true
    class."""
    threshold: float = 0.2
    """Where the map is cut for the fixed/ metrics, between its least value, 0, and its largest, 1."""
    thresholds: int = 20
    """Thresholds 0, 1/n, 2/n and so on that best/ metrics choose from."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if self.query not in ("gap", "cam"):
            raise ValueError(f"query must be gap or cam, got {self.query!r}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {self.threshold}")
        if not 1 <= self.thresholds <= 200:
            raise ValueError(f"thresholds must be between 1 and 200, got {self.thresholds}")


@dataclass(frozen=True)
class Localisation:
    """How often the box around a network's attention is right; all metrics are fractions of the images with a box.

    ``fixed/localisation_accuracy``: the box around the largest part of the map above one threshold has an intersection
    over union of at least 0.5 with a true one. ``best/localisation_accuracy``: the same at the threshold that is best
    on these very images (MaxBoxAcc), which flatters. ``fixed/iou30/``, ``fixed/iou70/``, ``best/iou30/`` and
    ``best/iou70/``: with 0.3 and 0.7 for 0.5. ``best/mean/``: the mean of the best for 0.3, 0.5 and 0.7 (MaxBoxAccV2).
    ``whole/``: the whole image as the box, at 0.5, for scale. ``pointing_accuracy``: the map's largest value lies in a
    true box. ``measured``: the share of the test images that have a box.

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
        """Return the suite over those images of a run's test set that have a box.

        Raises:
            ValueError: If the images have no files or no boxes, or a box does not fit its image.
        """
        files = first_of(files_of(source), settings.examples, what="examples")
        test = source.test(settings.examples)
        boxes = read_boxes(_file_of_boxes(source, settings))
        places = places_in(test, cast("Any", files), boxes)
        kept = [i for i, place in enumerate(places) if len(place)]
        if not kept:
            raise ValueError(
                f"boxes: none of the {len(test)} test images has a box in sight; the file names {next(iter(boxes))}, "
                f"an image is called {Path(cast('Any', files).paths[0]).name}"
            )
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

    def _measure(
        self, network: Network, thresholds: np.ndarray, monitor: Monitor
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return each image's overlap at each threshold, whether it is pointed at, and the whole image's overlap."""
        overlaps, pointed, whole = [], [], []
        left = iter(self.boxes)
        with evaluating(network), torch.no_grad():
            for inputs, labels in monitor.track("test", self.batches):
                maps = score_maps(network, inputs, labels, cast("Query", self.settings.query)).cpu().numpy()
                for scores, boxes in zip(maps, left, strict=False):
                    overlaps.append([overlap(box_above(scores, threshold), boxes) for threshold in thresholds])
                    pointed.append(_points_at(scores, boxes))
                    whole.append(overlap(np.array([0, 0, *scores.shape[::-1]], dtype=float), boxes))
        return np.array(overlaps), np.array(pointed), np.array(whole)


def _points_at(scores: np.ndarray, boxes: np.ndarray) -> bool:
    """Return whether the centre of the map's largest pixel, the first if there are several, lies in a box."""
    y, x = np.unravel_index(scores.argmax(), scores.shape)
    centre = np.array([x + 0.5, y + 0.5])
    return bool(((boxes[:, :2] <= centre) & (centre <= boxes[:, 2:])).all(1).any())


def _file_of_boxes(source: Source, settings: LocalisationSettings) -> str:
    if settings.boxes is not None:
        return settings.boxes
    annotations = Path(source.root).expanduser() / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    if source.splits.name == "tiny-imagenet" and annotations.is_file():
        return str(annotations)
    raise ValueError(
        f"localisation needs boxes, and {source.splits.name} brings none: give boxes=FILE (.json or .csv with a box "
        "for each test image, or TinyImageNet's val_annotations.txt)"
    )
