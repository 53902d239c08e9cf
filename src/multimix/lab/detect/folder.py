"""The folder of a detection run, and flat records of its numbers."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimix.lab.detect.config import DetectConfig
from multimix.lab.runs.codec import from_json, to_json
from multimix.lab.runs.folder import Folder, write_json_lines
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import Facts

_METRIC = re.compile(r"(\w+/)?a[pr]\d*")
_NOT_SETTINGS = frozenset({"seed", "label", "recipe", "workers", "checkpoint_steps"})


@dataclass(frozen=True)
class Origin:
    """The training run that a backbone is from, as far as building it again takes."""

    config: TrainConfig
    facts: Facts
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
            trained = from_json(given["config"])
            if not isinstance(trained, TrainConfig):
                raise ValueError("its backbone has no training configuration")
            facts = Facts(**{name: tuple(value) for name, value in given["trained_on"].items()})
            return config, Origin(trained, facts, str(given["weights"])), tuple(whole["classes"])


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
    kind, _, paths = config.data.partition(":")  # where folders lie is one machine's business
    about: dict[str, Any] = {
        "seed": config.seed,
        "label": config.title,
        "method": origin.config.title,
        "data": f"{kind}:{','.join(Path(path).name for path in paths.split(','))}",
        "model": origin.config.model,
        "epochs": config.epochs,
        "config": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10],
        "backbone": origin.weights,
        **{name: environment.get(name) for name in ("commit", "device", "device_name", "threads", "torch", "date")},
    }
    for event in run.metrics.read():
        suite, numbers = "cost", {}
        if event["event"] == "end":
            numbers = {name: event[name] for name in ("seconds", "step_seconds", "peak_mib")}
        elif event["event"] == "detection":
            suite, start = "detection", f"detection/{event['split']}/{event['when']}"
            numbers = {f"{start}/{name}": value for name, value in event.items() if _METRIC.fullmatch(name)}
        more: dict[str, Any] = {name: event[name] for name in ("commit", "date", "examples") if name in event}
        for name, value in numbers.items():
            yield {"metric": name, "value": value, **about, **more, "suite": suite}


def write_detection_records(path: Path, run: DetectFolder) -> None:
    """Write the records of a run as JSON lines, whole or not at all.

    Raises:
        ValueError: If the run has not ended.
    """
    write_json_lines(path, list(detection_records(run)))
