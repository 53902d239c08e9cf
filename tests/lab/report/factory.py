"""Run folders as the engine writes them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from multimix.lab.report import Run
from report.suites import Suite, all_suites


def epoch(number: int, **metrics: float) -> dict[str, Any]:
    about = {"event": "epoch", "epoch": number, "step": 12 * number, "train_loss": 2.0 / number, "seconds": 1.5}
    return about | metrics


def outcome(accuracy: float, **more: Any) -> dict[str, Any]:
    where = {"device": "cpu", "torch": "2.14.1", "commit": "abc123", "date": "2025-05-01T10:00:00", "examples": 360}
    return {"event": "test", "suite": "accuracy", "split": "test", "accuracy": accuracy, **where, **more}


def ended(**more: Any) -> dict[str, Any]:
    return {"event": "end", "seconds": 12.0, "step_seconds": 0.03, "peak_mib": 700, **more}


def seeds_of(make_run: Callable[..., Run], label: str, *values: float, **options: Any) -> list[Run]:
    """Return runs of one label that end with these accuracies, a seed each."""
    curve = [epoch(1, validation_accuracy=0.5), epoch(2, validation_accuracy=0.8, validation_nll=0.3)]
    tests = [outcome(value, nll=1 - value, ece=0.02, epoch=2) for value in values]
    return [
        make_run(label=label, seed=seed, events=[*curve, test, ended()], **options) for seed, test in enumerate(tests)
    ]


def measured(
    make_run: Callable[..., Run],
    *names: str,
    labels: Sequence[str] = ("erm", "multimix"),
    seeds: int = 2,
    change: Callable[[Suite], None] = lambda _: None,
) -> list[Run]:
    """Return runs that some suites, by default all, measured; ``change`` is made to what each of them leaves."""
    found = []
    for place, label in enumerate(labels):
        for seed in range(seeds):
            every = all_suites(seed, better=0.04 * place)
            kept = {name: every[name] for name in names or every}
            for suite in kept.values():
                change(suite)
            found.append(make_run(label=label, seed=seed, evaluations=kept))
    return found


def write_run(
    folder: Path,
    *,
    events: list[dict[str, Any]] | None = None,
    tail: str = "",
    environment: dict[str, Any] | None = None,
    pictures: dict[str, str] | None = None,
    evaluations: dict[str, Suite] | None = None,
    **settings: Any,
) -> Path:
    """Write a run folder as the engine does; without ``events``, a finished one of accuracy 0.9."""
    folder.mkdir(parents=True)
    config = {"label": "mixup", "data": "digits", "model": "preact_resnet18", "seed": 0, "epochs": 2, "batch_size": 128}
    config |= {"method": {"type": "Mixup", "alpha": 1.0}, **settings}
    (folder / "config.json").write_text(json.dumps({"multimix": "0.1.0", "recipe": "digits", "config": config}))
    about = {"python": "3.11.7", "torch": "2.14.1", "device": "cpu", "threads": 2, "date": "2025-05-01T09:00:00"}
    about |= {"command": "multimix compare digits --seeds 3", "commit": "abc123", **(environment or {})}
    (folder / "environment.json").write_text(json.dumps(about))
    measured = evaluations or {}
    if events is None:
        epochs = int(config["epochs"])
        curve = [epoch(1, validation_accuracy=0.5), epoch(2, validation_accuracy=0.8)]
        tests = [suite.event(name, epochs) for name, suite in measured.items()]
        events = [*curve, outcome(0.9, epoch=epochs), ended(), *tests]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + tail)
    for name, caption in (pictures or {}).items():
        (folder / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (24, 8), "teal").save(folder / "pictures" / name)
        (folder / "pictures" / "captions.json").write_text(json.dumps({name: caption}))
    for name, suite in measured.items():
        if suite.figures:
            (folder / "evaluation").mkdir(exist_ok=True)
            (folder / "evaluation" / f"{name}.json").write_text(json.dumps(suite.file(name)))
    return folder
