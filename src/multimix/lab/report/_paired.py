"""Differences between methods seed by seed: what two runs share, as first weights and order of images, cancels."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multimix._declared import check
from multimix.lab.about import judged_by
from multimix.lab.about.kinds import Metric
from multimix.lab.report._records import Cell, Comparison, Row, Setting, Summary
from multimix.lab.report._tables import Format, Grid, Text, csv_text, named, number, rendered, unlike
from multimix.lab.report._words import QUALITY, clean, counted, decimals, listed, unknown
from multimix.lab.report._words import metric as described

_USUAL = tuple(known.name for known in QUALITY)
_NOTE = (
    "Bold: the interval lies on the better side of 0; ▼: on the worse side; "
    "†: so it does after Holm's correction for the comparisons of its column."
)


@dataclass(frozen=True)
class Difference:
    """One metric of one method less the same metric of another, over the seeds that both have."""

    label: str
    """The row's name: its label, with what tells it from others of that label behind it."""
    n: int
    """How many seeds both have."""
    mean: float
    """The mean difference, in the record's unit; NaN where a value is not finite or no seed is shared."""
    std: float | None
    """The sample standard deviation of the differences; None with fewer than two."""
    low: float | None
    """Lower end of the 95 % confidence interval of the mean (Student's t, n - 1 degrees of freedom)."""
    high: float | None
    """Its upper end; both are None with fewer than two seeds, and NaN where a value is not finite."""
    seeds: tuple[int, ...]
    """The seeds that both have, ascending."""
    values: tuple[float, ...]
    """One difference a seed."""

    @property
    def p(self) -> float:
        """Probability of a mean as far from 0 by chance alone (Student's t, two sides); NaN without a spread."""
        from scipy.special import stdtr  # not above: most reports compare nothing, and SciPy takes its time

        if self.std is None or not self.std > 1e-9:
            return math.nan
        return 2 * float(stdtr(self.n - 1, -abs(self.mean) / self.std * math.sqrt(self.n)))


def paired(comparison: Comparison, metric: str, against: str) -> tuple[Difference, ...]:
    """Return how every other method differs from ``against`` in a metric, seed by seed.

    Args:
        comparison: Methods that trained alike.
        metric: Its name in the records.
        against: The label of the method to compare with, or its name as tables show it.

    Returns:
        One difference for every other row, in the order of the rows; its ``n`` is 0 where no seed is shared.

    Raises:
        ValueError: Nothing has ``metric``, or ``against`` names no row, or several.
    """
    if metric not in comparison.metrics:
        raise ValueError(unknown("metric", metric, comparison.metrics))
    base = _row(comparison, against)
    return tuple(_difference(row, base, metric) for row in comparison.rows if row is not base)


def stands(column: Sequence[Difference]) -> tuple[bool, ...]:
    """Return which differences are told apart from 0 at 5 % after Holm's step-down correction for all of them.

    Reference:
        Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
    """
    known = sorted((one.p, place) for place, one in enumerate(column) if not math.isnan(one.p))
    found = [False] * len(column)
    for rank, (p, place) in enumerate(known):
        if p > 0.05 / (len(known) - rank):
            break
        found[place] = True
    return tuple(found)


def paired_table(
    summary: Summary, against: str, *, metrics: Sequence[str] | None = None, fmt: Format = "markdown"
) -> str:
    """Return the differences to one method as text: a table for every data set, model and length of training.

    Cells read ``+0.62 [+0.21, +1.03]`` (mean difference and its 95 % interval; no interval of one seed), with a decimal
    more than means have. Comparisons without ``against``, without another row, or without one of the metrics have no
    table. ``csv`` is one table for machines: full precision, in the records' units.

    Args:
        summary: What ``summarise`` returned; ``summarise(records, metrics)`` brings in metrics of any suite.
        against: The label of the method to compare with, or its name as tables show it.
        metrics: The columns; accuracy, NLL and ECE by default, as far as they were measured.
        fmt: ``markdown``, ``html``, ``csv``, ``latex`` (booktabs) or ``plain``.

    Raises:
        ValueError: ``fmt`` is none of these, nothing has one of ``metrics``, ``against`` names no row or several, or
            there is nothing to compare with it.
    """
    check(Format, fmt=fmt)
    if fmt == "csv":
        return _csv(summary, against, metrics)
    return rendered(paired_grids(summary, against, metrics).values(), fmt)


def verdict(comparison: Comparison, against: str | None = None) -> list[str]:
    """Return in words how every method differs from one in what they are judged by, and what that rests on.

    Args:
        comparison: Methods that trained alike.
        against: The label of the method to compare with; by default ``erm`` if it is one row, else the first.

    Returns:
        A sentence a method, and what holds for all of them last; nothing where there is nothing to compare. A method is
        said to be above or below only where the 95 % interval of ``paired`` leaves 0 out.
    """
    shown = next(iter(judged_by(comparison.metrics)), None)
    if shown is None or len(comparison.rows) < 2:
        return []
    if comparison.unequal:
        return [f"No verdict, as methods were not measured alike: rows differ in {listed(comparison.unequal)}."]
    bases = [row for label in (against, "erm") for row in comparison.rows if label in (row.name, row.label)]
    base = (bases or comparison.rows)[0]
    found = paired(comparison, shown.name, base.name)
    judged = [one for one in found if one.n > 1]
    if not judged:
        if max(len(row.seeds) for row in comparison.rows) < 2:
            return ["No verdict: one seed a method says nothing of how much results vary from seed to seed."]
        return [f"No verdict: no other method shares two seeds with {clean(base.name)}."]
    uncorrected = f", not corrected for the {len(judged)} comparisons" if len(judged) > 1 else ""
    return [
        *(_in_words(one, clean(base.name), shown) for one in found),
        f"{shown.title} on the test split, seed by seed; intervals are Student's t{uncorrected}, and speak of other "
        "seeds, not of other images or settings.",
    ]


def _in_words(one: Difference, base: str, shown: Metric) -> str:
    name, unit = clean(one.label), _unit(shown)
    if one.low is None or one.high is None or not math.isfinite(one.mean):
        why = "a value is not finite" if one.n > 1 else f"they share {counted(one.n, 'seed')}"
        return f"{name} cannot be compared with {base}: {why}."
    digits = decimals(shown, [one.mean * shown.factor]) + (shown.digits is not None)
    mean, low, high = (number(value * shown.factor, digits, "+") for value in (one.mean, one.low, one.high))
    if one.high - one.low < 1e-9:
        return f"{name} differs from {base} by {mean}{unit} in each of {one.n} seeds alike, which makes no interval."
    interval = f"95 % interval {low} to {high} over {one.n} paired seeds"
    if one.low <= 0 <= one.high:
        return f"{name} is not told apart from {base} ({mean}{unit}, {interval})."
    return f"{name} is {mean[1:]}{unit} {'above' if one.low > 0 else 'below'} {base} ({interval})."


def _row(comparison: Comparison, against: str) -> Row:
    found = [row for row in comparison.rows if against in (row.name, row.label)]
    if not found:
        raise ValueError(unknown("against", against, (row.name for row in comparison.rows)))
    if len(found) > 1:
        names = clean(", ".join(row.name for row in found))
        raise ValueError(
            f"against: expected the name of one row, got {clean(against)!r}, which in {clean(comparison.title)} names"
            f" {len(found)} that differ in their settings: {names}"
        )
    return found[0]


def _difference(row: Row, base: Row, metric: str) -> Difference:
    ours, theirs = (one.cells.get(metric, Cell()) for one in (row, base))
    known = dict(zip(theirs.seeds, theirs.values, strict=True))
    values = {seed: value - known[seed] for seed, value in zip(ours.seeds, ours.values, strict=True) if seed in known}
    cell = Cell(tuple(values), tuple(values.values()))
    low = high = None
    if cell.std is not None:
        from scipy.special import stdtrit  # not above: most reports compare nothing, and SciPy takes its time

        half = float(stdtrit(cell.n - 1, 0.975)) * cell.std / math.sqrt(cell.n)
        low, high = cell.mean - half, cell.mean + half
    return Difference(row.name, cell.n, cell.mean, cell.std, low, high, cell.seeds, cell.values)


Differences = dict[str, tuple[Difference, ...]]
Compared = list[tuple[Comparison, Row, Differences]]


def _compared(summary: Summary, against: str, metrics: Sequence[str] | None) -> Compared:
    """Return the comparisons that have a table, with the row compared with and the differences by metric."""
    if not summary.comparisons:
        raise ValueError("nothing to compare: no finished run has a record")
    there = [one for one in summary.comparisons if any(against in (row.name, row.label) for row in one.rows)]
    if not there:
        raise ValueError(unknown("against", against, (row.name for one in summary.comparisons for row in one.rows)))
    found = [one for one in there if len(one.rows) > 1]
    if not found:
        raise ValueError(f"against: expected a method that another can be compared with, got {clean(against)!r} alone")
    measured = list(dict.fromkeys(name for one in found for name in one.metrics))
    for name in metrics or ():
        if name not in measured:
            raise ValueError(unknown("metrics", name, measured))
    chosen = list(dict.fromkeys(name for name in (_USUAL if metrics is None else metrics) if name in measured))
    if not chosen:
        usual = "" if metrics is not None else f", and {listed(_USUAL)} are not among them"
        raise ValueError(f"metrics: expected some of {clean(', '.join(measured))}, got none{usual}")
    found = [one for one in found if set(chosen) & set(one.metrics)]
    if without := [clean(one.title) for one in summary.comparisons if one not in found]:
        missing = f"{clean(against)} beside another method, or the metrics that are compared"
        warnings.warn(f"no differences are given of {'; '.join(without)}: there is not {missing}", stacklevel=4)
    return [
        (one, _row(one, against), {name: paired(one, name, against) for name in chosen if name in one.metrics})
        for one in found
    ]


def paired_grids(summary: Summary, against: str, metrics: Sequence[str] | None) -> dict[Setting, Grid]:
    """Return the tables of ``paired_table`` by data, model and epochs."""
    found = _compared(summary, against, metrics)
    return {comparison.setting: _grid(comparison, base, columns) for comparison, base, columns in found}


def _grid(comparison: Comparison, base: Row, columns: Differences) -> Grid:
    lines = list(zip(*columns.values(), strict=True))
    shared = [max(one.n for one in line) for line in lines]
    texts = [_column(described(name), column, shared) for name, column in columns.items()]
    names = [(Text(clean(line[0].label)), Text(str(n))) for line, n in zip(lines, shared, strict=True)]
    several = max(shared) > 1
    spread = "mean [95 % interval]" if several else "no interval, since no two seeds are shared"
    return Grid(
        heading=f"{named(comparison)}: difference to {clean(base.name)} with the same seed, {spread}",
        note=" ".join(filter(None, (_NOTE if several else "", unlike(comparison)))),
        titles=["Method", "n", *(_title(described(name)) for name in columns)],
        rows=[[*own, *cells] for own, *cells in zip(names, *texts, strict=True)],
    )


def _title(shown: Metric) -> str:
    """Return a column's heading; a difference of percentages is one of points, not a percentage of anything."""
    unit, arrow = _unit(shown), shown.heading.removeprefix(shown.quantity)
    return f"Δ {shown.spoken}{f' ({unit[1:]})' if unit else ''}{arrow}"


def _unit(shown: Metric) -> str:
    """Return the unit of a difference with a space in front."""
    unit = "points" if shown.unit == "%" else shown.unit
    return f" {unit}" if unit else ""


def _column(shown: Metric, column: Sequence[Difference], shared: Sequence[int]) -> list[Text]:
    digits = decimals(shown, (one.mean * shown.factor for one in column)) + (shown.digits is not None)
    marks = [" †" * found for found in stands(column)]
    return [_text(*cell, shown, digits) for cell in zip(column, shared, marks, strict=True)]


def _text(one: Difference, shared: int, mark: str, shown: Metric, digits: int) -> Text:
    """Return a cell; it is marked where the whole interval is better than 0, or worse."""
    if one.n == 0:
        return Text("–")
    values = (one.mean, one.low, one.high)
    mean, *ends = (number(value * shown.factor, digits, "+") for value in values if value is not None)
    interval = f" [{', '.join(ends)}]" if ends else ""
    fewer = "" if one.n == shared else f" (n = {one.n})"
    above, below = one.low is not None and one.low > 0, one.high is not None and one.high < 0
    better, worse = (above, below) if shown.better == "higher" else (below, above)
    directed = shown.better is not None
    marks = " ▼" * worse + mark if directed else ""
    return Text(f"{mean}{interval}{fewer}{marks}", best=better and directed)


def _csv(summary: Summary, against: str, metrics: Sequence[str] | None) -> str:
    lines: list[tuple[list[Any], dict[str, Difference]]] = []
    for comparison, base, columns in _compared(summary, against, metrics):
        for ours in zip(*columns.values(), strict=True):
            found = {f"{name}_difference": one for name, one in zip(columns, ours, strict=True)}
            lines.append(([*comparison.setting, ours[0].label, base.name], found))
    return csv_text(["data", "model", "epochs", "label", "against"], ("mean", "std", "low", "high", "n"), lines)
