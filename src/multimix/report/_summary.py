"""Records averaged over seeds: one comparison for every data set, model and length of training."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from multimix.report._metrics import in_order
from multimix.report._records import Record
from multimix.report._text import counted

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
        return math.fsum(self.values) / self.n if all(map(math.isfinite, self.values)) else math.nan

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
    """The label; where one label stands for several settings, with their hash behind it."""
    label: str
    """The label as recorded."""
    config: str
    """Hash of all settings but the seed."""
    cells: dict[str, Cell]
    """What was measured, by metric."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that any metric has."""
        return tuple(sorted({seed for cell in self.cells.values() for seed in cell.seeds}))


@dataclass(frozen=True)
class Comparison:
    """Methods that trained on the same data with the same model for the same number of epochs."""

    data: str
    """The data set."""
    model: str
    """The model."""
    epochs: int
    """Length of training."""
    metrics: tuple[str, ...]
    """What was measured, in the order of the columns."""
    rows: tuple[Row, ...]
    """The methods, in the order in which they first appear in the records."""

    @property
    def title(self) -> str:
        """Data, model and epochs in words."""
        return f"{self.data}, {self.model}, {counted(self.epochs, 'epoch')}"


@dataclass(frozen=True)
class Summary:
    """All comparisons that a set of records holds."""

    comparisons: tuple[Comparison, ...]
    """In the order in which they first appear in the records."""


def summarise(records: Iterable[Record], metrics: Sequence[str] | None = None) -> Summary:
    """Average records over seeds.

    Only runs that differ in nothing but the seed are averaged: one label with two different settings gives two rows. Of
    two runs with the same settings and the same seed, the later (by date, then by position) counts, so that no seed
    weighs twice.

    Args:
        records: What ``records`` or ``read_records`` returned.
        metrics: Which metrics to keep, in this order; all of them by default.

    Raises:
        ValueError: No record has one of ``metrics``.
    """
    rows = list(records)
    known = {row["metric"] for row in rows}
    for name in metrics or ():
        if name not in known:
            raise ValueError(f"metrics: no record of {name!r}; there are {', '.join(sorted(known)) or 'no records'}")
    groups: dict[Setting, list[Record]] = {}
    for row in rows:
        if metrics is None or row["metric"] in metrics:
            groups.setdefault((row["data"], row["model"], row["epochs"]), []).append(row)
    return Summary(tuple(_compare(setting, group, metrics) for setting, group in groups.items()))


def row_names(kinds: Iterable[Kind]) -> dict[Kind, str]:
    """Return how to call each (label, settings hash): by its label alone where that tells it from the others."""
    kinds = list(dict.fromkeys(kinds))
    labels = [label for label, _ in kinds]
    return {
        (label, config): label if labels.count(label) == 1 else f"{label} [{config[:6]}]" for label, config in kinds
    }


def _compare(setting: Setting, group: list[Record], metrics: Sequence[str] | None) -> Comparison:
    names = row_names((row["label"], row["config"]) for row in group)
    present = {row["metric"] for row in group}
    columns = (
        in_order(present) if metrics is None else tuple(dict.fromkeys(name for name in metrics if name in present))
    )
    rows = tuple(
        Row(
            name,
            label,
            config,
            _cells([row for row in group if (row["label"], row["config"]) == (label, config)], columns),
        )
        for (label, config), name in names.items()
    )
    return Comparison(*setting, columns, rows)


def _cells(rows: list[Record], columns: Sequence[str]) -> dict[str, Cell]:
    cells = {}
    for name in columns:
        latest = _latest([row for row in rows if row["metric"] == name])
        if latest:
            seeds = sorted(latest)
            cells[name] = Cell(tuple(seeds), tuple(float(latest[seed]["value"]) for seed in seeds))
    return cells


def _latest(rows: list[Record]) -> dict[int, Any]:
    latest: dict[int, Any] = {}
    for row in rows:
        before = latest.get(row["seed"])
        if before is None or str(row.get("date") or "") >= str(before.get("date") or ""):
            latest[row["seed"]] = row
    return latest
