"""Flat records: one number each, with everything needed to know where it came from; and their means over seeds."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from multimix.lab._paths import expanded
from multimix.lab.about import SUITES, is_number, metrics_of
from multimix.lab.report._runs import Run, check_types
from multimix.lab.report._words import clean, counted, in_order, listed, unknown
from multimix.lab.runs.files import json_lines, replacing

Record = dict[str, Any]
Setting = tuple[str, str, int]  # data, model and epochs
Kind = tuple[str, str]  # label and hash of the settings: runs of one kind differ in the seed alone

MAIN = ("accuracy", "cost")  # suites whose metrics go by their names alone, without that of the suite in front
_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("metric", "label", "data", "model", "config"), str),
    **dict.fromkeys(("seed", "epochs"), int),
    "value": int | float,
    **dict.fromkeys(("settings", "images"), dict | None),
    **dict.fromkeys(("suite", "date"), str | None),
}


def records(runs: Iterable[Run]) -> list[Record]:
    """Return one flat record for every metric of every finished run.

    A record holds ``metric`` (its name, which carries the unit), ``value``, ``seed``, ``label``, ``method``, ``data``,
    ``model``, ``epochs``, ``config`` (a hash of all settings but the seed), ``commit``, ``device``, ``torch``,
    ``date``, ``examples``, ``suite`` and its ``settings``, and what identifies the ``images`` of each split. Unfinished
    runs give none, and a test of any epoch but the last is left out: numbers are the last epoch's. Where a run was
    evaluated twice, the later evaluation counts.
    Metrics of another suite than ``accuracy`` and ``cost`` carry its name in front (``ood/digits/msp/auroc``), as do
    those of a split other than ``test``, or of another network than the trained one (``teacher_accuracy``).
    """
    return [record for run in runs if run.finished for record in _of(run)]


def write_records(path: str | Path, runs: Iterable[Run]) -> None:
    """Write the records of runs as JSON lines, whole or not at all."""
    write_whole(expanded(path), as_lines(records(runs)))


def as_lines(rows: Iterable[Record]) -> str:
    """Return records as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_records(path: str | Path) -> list[Record]:
    """Read what ``write_records`` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is no record; the message names file, line and field.
    """
    path = expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"records file {str(path)!r} does not exist")
    lines, cut = json_lines(path)
    if cut:
        raise ValueError(cut)
    for where, row in lines:
        check_types(row, _FIELDS, f"{where}: ")
        if not is_number(row["value"]):
            raise ValueError(f"{where}: value: expected a number that a float holds, got {row['value']!r:.60}")
    return [row for _, row in lines]


def with_labels(records: Iterable[Record], labels: Sequence[str]) -> list[Record]:
    """Return the records of these labels, in the order of the labels, which is that of a table's rows.

    Args:
        records: What ``records`` or ``read_records`` returned.
        labels: Which methods to keep, by their labels as recorded.

    Raises:
        ValueError: No record has one of ``labels``.
    """
    rows = list(records)
    known = [row["label"] for row in rows]
    for label in labels:
        if label not in known:
            raise ValueError(unknown("labels", label, known))
    return [row for label in dict.fromkeys(labels) for row in rows if row["label"] == label]


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())


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
            words = [event.get("network"), event.get("split", "test")]
            prefix = "".join(f"{word}_" for word in words if word not in (None, "test", "student", "model"))
            prefix = prefix if suite_of(event) in MAIN else f"{suite_of(event)}/{prefix}"
            named = {prefix + name: value for name, value in metrics_of(event).items()}
            found |= {name: _record(run, name, value, event) for name, value in named.items()}
    end = {"event": "end", "suite": "cost", **(run.end or {})}
    found |= {name: _record(run, name, value, end) for name, value in metrics_of(end, "seconds").items()}
    return list(found.values())


def _record(run: Run, name: str, value: float, event: dict[str, Any]) -> Record:
    about = run.environment | {key: kept for key, kept in event.items() if kept is not None}
    return {
        "metric": name,
        "value": value,
        "seed": run.config["seed"],
        "label": run.label,
        "method": method_name(run.config["method"]),
        **{key: run.config[key] for key in ("data", "model", "epochs")},
        "config": run.settings_hash,
        **{key: about.get(key) for key in ("commit", "device", "torch", "date", "examples", "suite")},
        "images": run.data or None,
        "settings": event.get("settings"),
    }


def kind_of(row: Record) -> Kind:
    """Return label and settings."""
    return row["label"], row["config"]


def suite_of(row: Record) -> str:
    """Return what measured."""
    return str(row.get("suite") or "accuracy")


@dataclass(frozen=True)
class Cell:
    """One metric of one method."""

    seeds: tuple[int, ...] = ()
    """The seeds, ascending."""
    values: tuple[float, ...] = ()
    """One value a seed, in the record's unit."""

    @property
    def n(self) -> int:
        """How many seeds there are."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean over seeds; NaN where a value is not finite or there is none."""
        return fmean(self.values) if self.values and all(map(math.isfinite, self.values)) else math.nan

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds (n - 1 below the line); None of a single seed."""
        if self.n < 2:
            return None
        return math.sqrt(math.fsum((value - self.mean) ** 2 for value in self.values) / (self.n - 1))


@dataclass(frozen=True)
class Row:
    """One method with one set of settings."""

    name: str
    """The label; where one label stands for several settings, with their hash or the suite's own behind it."""
    label: str
    """The label as recorded."""
    config: str
    """Hash of all settings but the seed."""
    cells: dict[str, Cell]
    """What was measured, by metric."""
    variant: str = ""
    """The suite's settings as JSON, where runs of this label and configuration were measured under several."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that any metric has."""
        return tuple(sorted({seed for cell in self.cells.values() for seed in cell.seeds}))


@dataclass(frozen=True)
class Comparison:
    """Methods that trained on the same data with the same model, for the same number of epochs unless it says so."""

    data: str
    """The data set."""
    model: str
    """The model."""
    epochs: int
    """Length of training, the longest where lengths differ."""
    metrics: tuple[str, ...]
    """What was measured, in the order of the columns."""
    rows: tuple[Row, ...]
    """The methods, in the order in which they first appear in the records."""
    suite: str | None = None
    """What measured; None of clean accuracy and cost."""
    unequal: tuple[str, ...] = ()
    """Names of the suite's settings that are not the same for all rows."""
    shortest: int | None = None
    """The shortest length of training, where lengths differ."""

    @property
    def setting(self) -> Setting:
        """Data, model and epochs."""
        return self.data, self.model, self.epochs

    @property
    def title(self) -> str:
        """Data, model and epochs in words."""
        shortest = "" if self.shortest is None else f"{self.shortest} to "
        return f"{self.data}, {self.model}, {shortest}{counted(self.epochs, 'epoch')}"


@dataclass(frozen=True)
class Summary:
    """All comparisons that a set of records holds."""

    comparisons: tuple[Comparison, ...]
    """In the order in which they first appear in the records."""


def suites(records: Iterable[Record]) -> tuple[str, ...]:
    """Return the suites that have tables of their own: the known ones in the page's order, then any other."""
    found = dict.fromkeys(suite for row in records if (suite := suite_of(row)) not in MAIN)
    return (*(suite for suite in SUITES if suite in found), *(suite for suite in found if suite not in SUITES))


def summarise(
    records: Iterable[Record],
    metrics: Sequence[str] | None = None,
    *,
    suite: str | None = None,
    any_length: bool = False,
) -> Summary:
    """Average records over seeds.

    Only runs that differ in nothing but the seed are averaged: one label with two different settings gives two rows,
    and so do two different settings of the suite that measured. Of two runs with the same settings and the same seed,
    the later (by date, then by position) counts, so that no seed weighs twice.

    Args:
        records: What ``records`` or ``read_records`` returned.
        metrics: Which metrics to keep, in this order; by default all of the suite.
        suite: What measured; by default clean accuracy and cost, which share a table, and whatever else ``metrics``
            names.
        any_length: Compare runs of different length, as those of equal seconds are; a row's name then says its own.

    Raises:
        ValueError: No record is of ``suite``, or has one of ``metrics``.
    """
    rows = list(records)
    if suite is not None:
        there = listed(suites(rows)) or "none with a table of its own"
        rows = [row for row in rows if suite_of(row) == suite]
        if not rows:
            raise ValueError(f"suite: no record of {suite!r}; there are {there}")
    elif metrics is None:
        rows = [row for row in rows if suite_of(row) in MAIN]
    known = {row["metric"] for row in rows}
    for name in metrics or ():
        if name not in known:
            raise ValueError(f"metrics: no record of {name!r}; there are {', '.join(sorted(known)) or 'no records'}")
    groups: dict[tuple[str, str, int | None], list[Record]] = {}
    for row in rows:
        if metrics is None or row["metric"] in metrics:
            groups.setdefault((row["data"], row["model"], None if any_length else row["epochs"]), []).append(row)
    return Summary(tuple(_compare(group, metrics, suite) for group in groups.values()))


def row_names(kinds: Iterable[Kind]) -> dict[Kind, str]:
    """Return how to call each (label, settings hash): by its label alone where that tells it from the others."""
    kinds = list(dict.fromkeys(kinds))
    labels = [label for label, _ in kinds]
    return {kind: kind[0] if labels.count(kind[0]) == 1 else f"{kind[0]} [{kind[1][:6]}]" for kind in kinds}


def _compare(group: list[Record], metrics: Sequence[str] | None, suite: str | None) -> Comparison:
    present = dict.fromkeys(row["metric"] for row in group)
    usual = tuple(present) if suite else in_order(present)
    columns = usual if metrics is None else tuple(dict.fromkeys(name for name in metrics if name in present))
    names = row_names(map(kind_of, group))
    lengths = {kind_of(row): row["epochs"] for row in group}
    longest, shortest = max(lengths.values()), min(lengths.values())
    if longest != shortest:
        names = {kind: f"{name} ({counted(lengths[kind], 'epoch')})" for kind, name in names.items()}
    members: dict[Kind, dict[str, list[Record]]] = {kind: {} for kind in names}
    for row, text in zip(group, _variants(group), strict=True):
        members[kind_of(row)].setdefault(text, []).append(row)
    rows = []
    for kind, found in members.items():
        for text, own in found.items():
            name = f"{names[kind]} ({_difference(text, found)})" if len(found) > 1 else names[kind]
            rows.append(Row(name, *kind, _cells(own, columns), text))
    about = (group[0]["data"], group[0]["model"], longest)
    different = shortest if shortest != longest else None
    return Comparison(*about, columns, tuple(rows), suite, unequal=_unequal(group), shortest=different)


def _cells(rows: list[Record], columns: Sequence[str]) -> dict[str, Cell]:
    """Return the cells of one row, each seed's latest value."""
    latest: dict[str, dict[int, float]] = {name: {} for name in columns}
    for row in sorted(rows, key=lambda row: str(row.get("date") or "")):
        latest[row["metric"]][row["seed"]] = float(row["value"])
    return {name: Cell(*zip(*sorted(found.items()), strict=True)) for name, found in latest.items() if found}


def variant(settings: Mapping[str, Any] | None) -> str:
    """Return a suite's settings as text that is the same for the same settings; what is None counts as not there."""
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    return json.dumps(given, sort_keys=True, default=str)


def _variants(rows: Sequence[Record]) -> list[str]:
    """Return each record's settings where its kind has several; the cost of a run goes with what else the run has."""
    groups = [(kind_of(row), row.get("suite")) for row in rows]
    texts = [variant(row.get("settings")) for row in rows]
    counts = Counter(group for group, _ in set(zip(groups, texts, strict=True)))
    found = [text if counts[group] > 1 else "" for group, text in zip(groups, texts, strict=True)]
    runs = [(*kind_of(row), row["seed"]) for row in rows]
    of_run = {run: text for run, (_, suite), text in zip(runs, groups, found, strict=True) if suite in MAIN and text}
    costs = [suite == "cost" and not text for (_, suite), text in zip(groups, found, strict=True)]
    return [of_run.get(run, "") if cost else text for run, cost, text in zip(runs, costs, found, strict=True)]


_OF_SEEDS = ("train images", "validation images")


def _unequal(rows: Iterable[Record]) -> tuple[str, ...]:
    """Return the names of settings that are not the same for all records of one suite, and of images likewise.

    Seeds may have images of their own to train on, if each has the same ones in every row.
    """
    suites: dict[Any, list[str]] = {}
    measured: dict[tuple[str, str], dict[Kind, dict[int, str]]] = {}
    for row in rows:
        if row.get("suite") != "cost":
            suites.setdefault(row.get("suite"), []).append(variant(row.get("settings")))
            images = {f"{split} images": known for split, known in (row.get("images") or {}).items()}
            for name, value in {**images, "examples": row.get("examples")}.items():
                if value is not None:
                    seeds = measured.setdefault((row["metric"], name), {}).setdefault(kind_of(row), {})
                    seeds[row["seed"]] = str(value)
    apart = {
        name
        for (_, name), found in measured.items()
        if len({value for seeds in found.values() for value in seeds.values()}) > 1
        and not (name in _OF_SEEDS and _alike_by_seed(list(found.values())))
    }
    return tuple(sorted(apart.union(*map(_differing, suites.values()))))


def _alike_by_seed(rows: Sequence[Mapping[int, str]]) -> bool:
    """Return whether rows have a seed in common, and the same value wherever they share one."""
    values: dict[int, set[str]] = {}
    for row in rows:
        for seed, value in row.items():
            values.setdefault(seed, set()).add(value)
    return all(len(own) == 1 for own in values.values()) and bool(set(rows[0]).intersection(*rows[1:]))


def _difference(text: str, others: Iterable[str]) -> str:
    """Return in words what a variant has of its own: ``steps 40``."""
    own = {name: json.loads(text or "{}").get(name) for name in _differing(others)}
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in own.items()}
    return clean(", ".join(f"{name} {value.replace('null', 'none')}" for name, value in words.items()))


def _differing(variants: Iterable[str]) -> list[str]:
    settings = [json.loads(text or "{}") for text in dict.fromkeys(variants)]
    names = sorted({name for given in settings for name in given})
    return [name for name in names if any(given.get(name) != settings[0].get(name) for given in settings)]
