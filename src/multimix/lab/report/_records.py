"""Flat records: one number each, with everything needed to know where it came from."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from multimix.lab.report._files import read_lines, write_whole
from multimix.lab.report._known import KNOWN
from multimix.lab.report._runs import Run
from multimix.lab.report._text import unknown

Record = dict[str, Any]

_ABOUT = frozenset(
    {"event", "suite", "split", "network", "epoch", "step", "examples", "seed", "label", "device", "torch", "multimix"}
    | {"python", "commit", "date", "seconds", "batch_size", "threads", "settings", "weights"}
)
MAIN = ("accuracy", "cost")
"""The suites whose metrics go by their names alone; those of any other carry its name in front."""
_FIELDS: dict[str, tuple[type, ...]] = {
    "metric": (str,),
    "value": (int, float),
    "seed": (int,),
    "label": (str,),
    "data": (str,),
    "model": (str,),
    "epochs": (int,),
    "config": (str,),
}


def records(runs: Iterable[Run]) -> list[Record]:
    """Return one flat record for every metric of every finished run.

    A record holds ``metric`` (its name, which carries the unit), ``value``, ``seed``, ``label``, ``method``, ``data``,
    ``model``, ``epochs``, ``config`` (a hash of all settings but the seed), ``commit``, ``device``, ``torch``,
    ``date``, ``examples``, ``suite`` and its ``settings``. Unfinished runs give none, and a test of any epoch but the
    last is left out: numbers are the last epoch's. Where a run was evaluated twice, the later evaluation counts.
    Metrics of another suite than ``accuracy`` and ``cost`` carry its name in front (``ood/digits/msp/auroc``), as do
    those of a split other than ``test``, or of another network than the trained one (``teacher_accuracy``).
    """
    return [record for run in runs if run.finished for record in _of(run)]


def write_records(path: str | Path, runs: Iterable[Run]) -> None:
    """Write the records of runs as JSON lines, whole or not at all."""
    write_whole(Path(path), as_lines(records(runs)))


def as_lines(rows: Iterable[Record]) -> str:
    """Return records as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_records(path: str | Path) -> list[Record]:
    """Read what ``write_records`` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is no record; the message names file, line and field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"records file {str(path)!r} does not exist")
    rows = []
    for number, row in read_lines(path):
        _check(row, f"{path}, line {number}")
        rows.append(row)
    return rows


def with_labels(records: Iterable[Record], labels: Sequence[str]) -> list[Record]:
    """Return the records of these labels, in the order of the labels, which is that of a table's rows.

    Args:
        records: What ``records`` or ``read_records`` returned.
        labels: Which methods to keep, by their labels as recorded.

    Raises:
        ValueError: No record has one of ``labels``.
    """
    found: dict[str, list[Record]] = {}
    for row in records:
        found.setdefault(row["label"], []).append(row)
    for label in labels:
        if label not in found:
            raise ValueError(unknown("labels", label, found))
    return [row for label in dict.fromkeys(labels) for row in found[label]]


def method_name(method: Any) -> str:
    """Return a nested method as its types: ``SelfDistilled(DenseMultiMix)``, ``Alternate(MultiMix, Mixup)``."""
    if not isinstance(method, dict):
        return ""
    inner = [name for value in method.values() for name in _inner_names(value)]
    return str(method.get("type", "method")) + (f"({', '.join(inner)})" if inner else "")


def _inner_names(value: Any) -> list[str]:
    items: Sequence[Any] = value if isinstance(value, list) else [value]
    return [method_name(item) for item in items if isinstance(item, dict) and "type" in item]


def _check(row: Record, where: str) -> None:
    for name, kinds in _FIELDS.items():
        value = row.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{where}: {name}: expected {' or '.join(kind.__name__ for kind in kinds)}, got {value!r}")
    if not isinstance(row.get("settings"), dict | None):
        raise ValueError(f"{where}: settings: expected an object, got {row['settings']!r}")


def _of(run: Run) -> list[Record]:
    found: dict[str, Record] = {}
    for event in run.tests:
        if event.get("epoch", run.config["epochs"]) == run.config["epochs"]:
            found |= {name: _record(run, name, value, event) for name, value in _measured(event).items()}
    cost = {"event": "end", "suite": "cost", **(run.end or {})}
    costs = {name: value for name, value in cost.items() if _is_number(value) and (name in KNOWN or name not in _ABOUT)}
    found |= {name: _record(run, name, value, cost) for name, value in costs.items()}
    return list(found.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _measured(event: dict[str, Any]) -> dict[str, int | float]:
    """Return the metrics of a test event under names that cannot be mistaken for each other."""
    suite = str(event.get("suite") or "accuracy")
    words = [event.get("network"), event.get("split", "test")]
    prefix = "".join(f"{word}_" for word in words if word not in (None, "test", "student", "model"))
    if suite not in MAIN:
        prefix = f"{suite}/{prefix}"
    return {prefix + name: value for name, value in event.items() if name not in _ABOUT and _is_number(value)}


def _record(run: Run, name: str, value: int | float, event: dict[str, Any]) -> Record:
    about = {**run.environment, **{key: kept for key, kept in event.items() if kept is not None}}
    return {
        "metric": name,
        "value": value,
        "seed": run.config["seed"],
        "label": run.label,
        "method": method_name(run.config["method"]),
        "data": run.config["data"],
        "model": run.config["model"],
        "epochs": run.config["epochs"],
        "config": run.settings_hash,
        **{key: about.get(key) for key in ("commit", "device", "torch", "date", "examples", "suite")},
        "settings": event.get("settings"),
    }
