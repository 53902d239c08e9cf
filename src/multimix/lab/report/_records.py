"""Flat records: one number each, with everything needed to know where it came from."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multimix.lab.about import metrics_of
from multimix.lab.report._runs import Run, check_types, read_lines
from multimix.lab.report._words import clean, unknown

Record = dict[str, Any]

MAIN = ("accuracy", "cost")
"""The suites whose metrics go by their names alone; those of any other carry its name in front."""
_FIELDS: dict[str, Any] = {
    "metric": str,
    "value": int | float,
    "seed": int,
    "label": str,
    "data": str,
    "model": str,
    "epochs": int,
    "config": str,
    "settings": dict | None,
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
    for where, row in read_lines(path):
        check_types(row, _FIELDS, f"{where}: ")
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


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def method_name(method: Any) -> str:
    """Return a nested method as its types: ``SelfDistilled(DenseMultiMix)``, ``Alternate(MultiMix, Mixup)``."""
    if not isinstance(method, dict):
        return ""
    values = [item for value in method.values() for item in (value if isinstance(value, list) else [value])]
    inner = [method_name(value) for value in values if isinstance(value, dict) and "type" in value]
    return str(method.get("type", "method")) + (f"({', '.join(inner)})" if inner else "")


def _of(run: Run) -> list[Record]:
    found: dict[str, Record] = {}
    for event in run.tests:
        if event.get("epoch", run.config["epochs"]) == run.config["epochs"]:
            prefix = _prefix(event)
            for name, value in metrics_of(event).items():
                found[prefix + name] = _record(run, prefix + name, value, event)
    end = {"event": "end", "suite": "cost", **(run.end or {})}
    found |= {name: _record(run, name, value, end) for name, value in metrics_of(end, "seconds").items()}
    return list(found.values())


def _prefix(event: dict[str, Any]) -> str:
    """Return what tells a test event's metrics from those of others: suite, network and split."""
    words = [event.get("network"), event.get("split", "test")]
    prefix = "".join(f"{word}_" for word in words if word not in (None, "test", "student", "model"))
    return prefix if suite_of(event) in MAIN else f"{suite_of(event)}/{prefix}"


def _record(run: Run, name: str, value: float, event: dict[str, Any]) -> Record:
    about = {**run.environment, **{key: kept for key, kept in event.items() if kept is not None}}
    return {
        "metric": name,
        "value": value,
        "seed": run.config["seed"],
        "label": run.label,
        "method": method_name(run.config["method"]),
        **{key: run.config[key] for key in ("data", "model", "epochs")},
        "config": run.settings_hash,
        **{key: about.get(key) for key in ("commit", "device", "torch", "date", "examples", "suite")},
        "settings": event.get("settings"),
    }


def kind_of(row: Record) -> tuple[str, str]:
    """Return label and settings, which make the kind of a run."""
    return row["label"], row["config"]


def suite_of(row: Record) -> str:
    """Return what measured."""
    return str(row.get("suite") or "accuracy")


def variant(settings: Mapping[str, Any] | None) -> str:
    """Return a suite's settings as text that is the same for the same settings; what is None counts as not there."""
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    return json.dumps(given, sort_keys=True, default=str)


def variants(rows: Sequence[Record]) -> list[str]:
    """Return for every record which rows of a table it may share.

    That is the empty text where all records of its label, configuration and suite were measured alike. What has no
    settings, as the cost of training, goes with what else the same run has.
    """
    groups = [(kind_of(row), row.get("suite")) for row in rows]
    texts = [variant(row.get("settings")) for row in rows]
    counts = Counter(group for group, _ in set(zip(groups, texts, strict=True)))
    found = [text if counts[group] > 1 else "" for group, text in zip(groups, texts, strict=True)]
    runs = {
        (kind, row["seed"]): text
        for row, text, (kind, suite) in zip(rows, found, groups, strict=True)
        if suite in MAIN and text
    }
    return [
        runs.get((kind, row["seed"]), "") if suite == "cost" and not text else text
        for row, text, (kind, suite) in zip(rows, found, groups, strict=True)
    ]


def unequal(rows: Iterable[Record]) -> tuple[str, ...]:
    """Return the names of settings that are not the same for all records of one suite."""
    suites: dict[Any, list[str]] = {}
    for row in rows:
        if row.get("suite") != "cost":
            suites.setdefault(row.get("suite"), []).append(variant(row.get("settings")))
    return tuple(sorted({name for texts in suites.values() for name in _differing(texts)}))


def difference(text: str, others: Iterable[str]) -> str:
    """Return in words what a variant has of its own: ``steps 40``."""
    own = {name: json.loads(text or "{}").get(name) for name in _differing(others)}
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in own.items()}
    return clean(", ".join(f"{name} {value.replace('null', 'none')}" for name, value in words.items()))


def _differing(variants: Iterable[str]) -> list[str]:
    settings = [json.loads(text or "{}") for text in dict.fromkeys(variants)]
    names = sorted({name for given in settings for name in given})
    return [name for name in names if any(given.get(name) != settings[0].get(name) for given in settings)]
