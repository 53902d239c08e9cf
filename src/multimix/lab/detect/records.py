"""Flat records of a detection run: one number each, in the form that reports read."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multimix.lab.detect.folder import DetectFolder
from multimix.lab.runs.codec import to_json
from multimix.lab.runs.folder import write_json_lines

_ABOUT = frozenset(
    {"event", "when", "split", "rule", "classes", "step", "seed", "seconds", "weights", "examples"}
    | {"detections", "objects", "ignored"}
)
_NOT_SETTINGS = frozenset({"seed", "label", "recipe", "workers", "checkpoint_steps"})
_COST = ("seconds", "step_seconds", "peak_mib")


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
