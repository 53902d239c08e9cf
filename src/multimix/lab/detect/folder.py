"""The folder of a detection run, the images that it is about, and flat records of its numbers."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from multimix.lab.data.boxes import BoxBatches, BoxSet, load_boxes
from multimix.lab.detect.config import DetectConfig
from multimix.lab.evaluate.detection import require_coco
from multimix.lab.runs.codec import from_json, to_json
from multimix.lab.runs.folder import Folder, write_json_lines
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import Facts

_ABOUT = frozenset(
    {"event", "when", "split", "rule", "classes", "step", "seed", "seconds", "weights", "examples"}
    | {"detections", "objects", "ignored"}
)
_NOT_SETTINGS = frozenset({"seed", "label", "recipe", "workers", "checkpoint_steps"})
_COST = ("seconds", "step_seconds", "peak_mib")


@dataclass(frozen=True)
class Origin:
    """The training run that a backbone is from, as far as building it again takes."""

    config: TrainConfig
    """How it was trained."""
    facts: Facts
    """What its network knows of its data."""
    weights: str
    """Digest of its weights."""

    def described(self) -> dict[str, Any]:
        """Return this as JSON."""
        return {"config": to_json(self.config), "trained_on": vars(self.facts), "weights": self.weights}


class DetectFolder(Folder):
    """The files of one detection run."""

    def read_detection(self) -> tuple[DetectConfig, Origin, tuple[str, ...]]:
        """Return configuration, origin of the backbone and names of the classes."""
        config = self.read_as(DetectConfig)
        with self.reading() as whole:
            given = whole["backbone"]
            facts = Facts(**{name: tuple(value) for name, value in given["trained_on"].items()})
            return config, Origin(_trained(given["config"]), facts, str(given["weights"])), tuple(whole["classes"])


def _trained(given: Any) -> TrainConfig:
    config = from_json(given)
    if not isinstance(config, TrainConfig):
        raise ValueError("its backbone has no training configuration")
    return config


@dataclass(frozen=True)
class BoxSplits:
    """What a run trains and is measured on."""

    train: BoxSet
    """All training images and all their objects."""
    test: BoxSet
    """The images to measure on."""

    @property
    def notes(self) -> list[str]:
        """Return what was left out or mended."""
        return list(dict.fromkeys([*self.train.trainable().notes, *self.test.notes]))


def load_splits(config: DetectConfig) -> BoxSplits:
    """Return the configured images."""
    train = load_boxes(config.data, config.train_split)
    test = load_boxes(config.test_data or config.data, config.test_split, classes=train.classes)
    if "coco" in (train.rule, test.rule):
        require_coco()
    return BoxSplits(train, test)


def batches_of(
    config: DetectConfig, boxes: BoxSet, *, channels: int, device: torch.device, train: bool = False
) -> BoxBatches:
    """Return the batches to train on, or those to measure on."""
    return BoxBatches(
        boxes,
        batch_size=config.batch_size,
        channels=channels,
        seed=config.seed,
        shuffle=train,
        flip=train and config.flip,
        device=device,
        workers=config.workers,
    )


def detection_records(run: DetectFolder) -> Iterator[dict[str, Any]]:
    """Yield a record for each number over all classes: ``detection/train/after/ap`` and the like, and the cost.

    Raises:
        ValueError: If the run has not ended.
    """
    if not run.finished:
        raise ValueError(f"{run.path} has not ended; finish it with: multimix detect --resume {run.path}")
    config, origin, _ = run.read_detection()
    settings = {name: value for name, value in to_json(config).items() if name not in _NOT_SETTINGS}
    environment = json.loads(run.environment_file.read_text(encoding="utf-8"))
    about: dict[str, Any] = {
        "seed": config.seed,
        "label": config.title,
        "method": origin.config.title,
        "data": _named(config.data),
        "model": origin.config.model,
        "epochs": config.epochs,
        "config": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10],
        "backbone": origin.weights,
        **{name: environment.get(name) for name in ("commit", "device", "device_name", "threads", "torch", "date")},
    }
    for event in run.metrics.read():
        for name, value in _numbers(event).items():
            more: dict[str, Any] = {key: event[key] for key in ("commit", "date", "examples") if key in event}
            suite = "detection" if event["event"] == "detection" else "cost"
            yield {"metric": name, "value": value, **about, **more, "suite": suite}


def _named(data: str) -> str:
    """Return where data is by its folders' own names: where those lie is one machine's business."""
    kind, _, paths = data.partition(":")
    return f"{kind}:{','.join(Path(path).name for path in paths.split(','))}"


def write_detection_records(path: Path, run: DetectFolder) -> None:
    """Write the records of a run as JSON lines, whole or not at all.

    Raises:
        ValueError: If the run has not ended.
    """
    write_json_lines(path, list(detection_records(run)))


def _numbers(event: dict[str, Any]) -> dict[str, float]:
    if event["event"] == "end":
        return {name: event[name] for name in _COST}
    if event["event"] != "detection":
        return {}
    kept = {name: value for name, value in event.items() if name not in _ABOUT and isinstance(value, (int, float))}
    return {f"detection/{event['split']}/{event['when']}/{name}": value for name, value in kept.items()}
