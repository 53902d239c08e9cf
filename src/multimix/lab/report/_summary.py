"""Records averaged over seeds: one comparison for every data set, model and length of training."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NoReturn

from multimix.lab.about import SUITES
from multimix.lab.report._records import MAIN, Record, difference, kind_of, suite_of, unequal, variants
from multimix.lab.report._words import counted, in_order, listed

Setting = tuple[str, str, int]
Kind = tuple[str, str]


@dataclass(frozen=True)
class Cell:
    """One metric of one method."""

    seeds: tuple[int, ...]
    """The seeds, ascending."""
    values: tuple[float, ...]
    """One value a seed, in the record's unit."""

    @property
    def n(self) -> int:
        """How many seeds there are."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean over seeds; NaN where a value is not finite."""
        return fmean(self.values) if all(map(math.isfinite, self.values)) else math.nan

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds (n - 1 below the line); None of a single seed."""
        if self.n < 2:
            return None
        if math.isnan(self.mean):
            return math.nan
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
        lengths = f"{'' if self.shortest is None else f'{self.shortest} to '}{counted(self.epochs, 'epoch')}"
        return f"{self.data}, {self.model}, {lengths}"


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
        rows = [row for row in rows if suite_of(row) == suite] or _none_of(suite, rows)
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
    return {
        (label, config): label if labels.count(label) == 1 else f"{label} [{config[:6]}]" for label, config in kinds
    }


def _none_of(suite: str, rows: list[Record]) -> NoReturn:
    there = listed(suites(rows)) or "none with a table of its own"
    raise ValueError(f"suite: no record of {suite!r}; there are {there}")


def _compare(group: list[Record], metrics: Sequence[str] | None, suite: str | None) -> Comparison:
    present = dict.fromkeys(row["metric"] for row in group)
    if metrics is None:
        columns = tuple(present) if suite else in_order(present)
    else:
        columns = tuple(dict.fromkeys(name for name in metrics if name in present))
    names = row_names(map(kind_of, group))
    lengths = {kind_of(row): row["epochs"] for row in group}
    longest, shortest = max(lengths.values()), min(lengths.values())
    if longest != shortest:
        names = {kind: f"{name} ({counted(lengths[kind], 'epoch')})" for kind, name in names.items()}
    members: dict[Kind, dict[str, list[Record]]] = {kind: {} for kind in names}
    for row, text in zip(group, variants(group), strict=True):
        members[kind_of(row)].setdefault(text, []).append(row)
    rows = [
        Row(
            f"{names[kind]} ({difference(text, found)})" if len(found) > 1 else names[kind],
            *kind,
            _cells(own, columns),
            text,
        )
        for kind, found in members.items()
        for text, own in found.items()
    ]
    return Comparison(
        data=group[0]["data"],
        model=group[0]["model"],
        epochs=longest,
        metrics=columns,
        rows=tuple(rows),
        suite=suite,
        unequal=unequal(group),
        shortest=shortest if shortest != longest else None,
    )


def _cells(rows: list[Record], columns: Sequence[str]) -> dict[str, Cell]:
    """Return the cells of one row, each seed's latest value."""
    latest: dict[str, dict[int, Record]] = {name: {} for name in columns}
    for row in rows:
        before = latest[row["metric"]].get(row["seed"])
        if before is None or str(row.get("date") or "") >= str(before.get("date") or ""):
            latest[row["metric"]][row["seed"]] = row
    return {
        name: Cell(tuple(sorted(found)), tuple(float(found[seed]["value"]) for seed in sorted(found)))
        for name, found in latest.items()
        if found
    }
