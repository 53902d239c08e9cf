"""Measuring a detector."""

import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, TypeVar

import torch

from multimix.lab.data.boxes import BoxSet
from multimix.lab.detect.data import batches_of
from multimix.lab.detect.engine import DetectEngine
from multimix.lab.detect.model import detect_boxes
from multimix.lab.evaluate.detection import coco_metrics, voc_metrics
from multimix.lab.train.environment import commit
from multimix.lab.train.log import Display

T = TypeVar("T")


def detection_record(engine: DetectEngine, boxes: BoxSet, *, when: str, split: str, quiet: bool) -> dict[str, Any]:
    """Return what a detector finds in a set, by the rules of the set's kind, with all that it depends on.

    Args:
        engine: Holds the detector.
        boxes: The images and their objects.
        when: ``before`` or ``after`` training.
        split: What the run calls the set.
        quiet: Show no progress.
    """
    started = time.perf_counter()
    batches = batches_of(engine.config, boxes, channels=engine.channels, device=engine.device)
    with Display(f"{when}: {split}", steps=len(batches), quiet=quiet) as display:
        found, truths = detect_boxes(engine.detector, _shown(batches, display))
    rule = coco_metrics if boxes.rule == "coco" else voc_metrics
    metrics, each = rule(found, truths, boxes.classes)
    return {
        "when": when,
        "split": split,
        "rule": boxes.rule,
        **metrics,
        "classes": each,
        "detections": sum(len(image.scores) for image in found),
        "objects": int((~boxes.objects.ignored).sum()),
        "ignored": int(boxes.objects.ignored.sum()),
        "examples": len(boxes),
        "step": engine.at.step,
        "seed": engine.config.seed,
        "seconds": time.perf_counter() - started,
        "device": engine.device.type,
        "torch": torch.__version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _shown(batches: Any, display: Display) -> Iterator[Any]:
    """Yield batches and advance the progress bar."""
    started, images = time.perf_counter(), 0
    for batch in batches:
        yield batch
        images += len(batch.images)
        display.batch(loss=None, images_per_second=images / (time.perf_counter() - started))
