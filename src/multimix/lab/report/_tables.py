"""Tables of a summary, in the formats people paste them into."""

import csv
import io
import math
from collections.abc import Callable, Iterable
from typing import Literal, get_args

from markupsafe import Markup

from multimix.lab.report import _formats
from multimix.lab.report._formats import Grid, Text
from multimix.lab.report._layout import Plan, plans
from multimix.lab.report._metrics import capital, decimals, metric
from multimix.lab.report._summary import Cell, Comparison, Row, Summary
from multimix.lab.report._text import clean, counted, listed

Format = Literal["markdown", "html", "csv", "latex", "plain"]
BEST = "Bold: best mean of its column, which says nothing about significance."
_BEST_OF_KEY = "Bold: best mean of its column among lines of equal {key}, which says nothing about significance."


def table(summary: Summary, fmt: Format = "markdown", *, whole: bool = False) -> str:
    """Return a summary as text: one table for every data set, model and length of training.

    A suite with many metrics has several tables, of which those that most ask for are returned.

    The heading says n; cells read ``97.1 ± 0.3`` (mean and sample standard deviation over seeds; without ± where there
    is one seed); the best mean of a column is marked where there is more than one row. ``csv`` is one table for
    machines instead: full precision, in the records' units, with mean, standard deviation and n in columns
    of their own.

    Args:
        summary: What ``summarise`` returned.
        fmt: ``markdown``, ``html``, ``csv``, ``latex`` (booktabs) or ``plain``.
        whole: Return all tables of a suite, so that no metric is left out; ``csv`` never leaves one out.

    Raises:
        ValueError: ``fmt`` is none of these, or the summary is empty.
    """
    check_format(fmt)
    if not summary.comparisons:
        raise ValueError("nothing to tabulate: no finished run has a record")
    if fmt == "csv":
        return _csv(summary)
    render: Callable[[Grid], str] = getattr(_formats, fmt)
    grids = [grid for one in summary.comparisons for grid in (*_grids(one), *(_grids(one, more=True) if whole else ()))]
    return "\n".join(render(grid) for grid in grids)


def check_format(fmt: str) -> None:
    """Raise ValueError if there is no such format."""
    if fmt not in get_args(Format):
        raise ValueError(f"fmt: expected one of {', '.join(get_args(Format))}, got {fmt!r}")


def html_tables(comparison: Comparison, *, more: bool = False) -> list[Markup]:
    """Return one comparison's tables, ready to stand in a page: the main ones, or those with all the rest."""
    return [Markup(_formats.html(grid)) for grid in _grids(comparison, more=more)]


def _grids(comparison: Comparison, *, more: bool = False) -> list[Grid]:
    """Return the tables; where a suite's metrics are all for those who want everything, they are the main ones."""
    all_plans = plans(comparison.suite, comparison.metrics)
    main = [plan for plan in all_plans if not plan.more] or all_plans
    rest = [plan for plan in all_plans if plan not in main]
    return [_grid(comparison, plan) for plan in (rest if more else main)]


def _seeds(rows: Iterable[Row]) -> str:
    """Return how many seeds the rows have: ``n = 3 seeds``, or ``n = 2 to 3 seeds`` where they differ."""
    counts = sorted({len(row.seeds) for row in rows})
    return f"n = {f'{counts[0]} to ' if len(counts) > 1 else ''}{counted(counts[-1], 'seed')}"


def _grid(comparison: Comparison, plan: Plan) -> Grid:
    lines = [
        (row, key, names)
        for key, names in plan.lines
        for row in comparison.rows
        if not plan.key or any(name in row.cells for name in names)
    ]
    columns = [_column(lines, index) for index in range(len(plan.columns))]
    rows = [
        [Text(clean(row.name)), *[Text(key)] * bool(plan.key), Text(str(len(row.seeds))), *(one[at] for one in columns)]
        for at, (row, key, _) in enumerate(lines)
    ]
    return Grid(
        heading=_heading(comparison, plan),
        note=_note(comparison, plan),
        titles=["Method", *[plan.key] * bool(plan.key), "n", *plan.columns],
        rows=rows,
        names=2 if plan.key else 1,
        title=capital(plan.title),
    )


def _heading(comparison: Comparison, plan: Plan) -> str:
    several = max(len(row.seeds) for row in comparison.rows) > 1
    spread = "mean ± sample standard deviation over" if several else "no spread,"
    what = [clean(comparison.title), *([clean(comparison.suite)] if comparison.suite else [])]
    when = f"{plan.title}; last epoch" if plan.title else "last epoch"
    return f"{', '.join(what)}: {when}, {spread} {_seeds(comparison.rows)}"


def _note(comparison: Comparison, plan: Plan) -> str:
    best = _BEST_OF_KEY.format(key=plan.key.lower()) if plan.key else BEST
    return " ".join(words for words in (best if len(comparison.rows) > 1 else "", unlike(comparison)) if words)


def unlike(comparison: Comparison) -> str:
    """Return the warning under a table whose rows were measured with different settings; else nothing."""
    names = [clean(name) for name in comparison.unequal]
    return f"Not measured alike: rows differ in {listed(names)}." if names else ""


def _column(lines: list[tuple[Row, str, tuple[str | None, ...]]], index: int) -> list[Text]:
    """Return a column as text; lines of different keys do not compete for the best mean."""
    cells = [row.cells.get(names[index] or "") for row, _, names in lines]
    shown = metric(next(names[index] for _, _, names in lines if names[index]) or "")
    digits = decimals(shown, (cell.mean * shown.factor for cell in cells if cell))
    best = {
        key: _best(
            [cell.mean * shown.factor for cell, line in zip(cells, lines, strict=True) if cell and line[1] == key],
            shown.better,
            digits,
        )
        for key in dict.fromkeys(key for _, key, _ in lines)
    }
    return [
        _cell_text(row, cell, shown.factor, digits, best[key]) for (row, key, _), cell in zip(lines, cells, strict=True)
    ]


def _best(means: list[float], better: str | None, digits: int) -> str | None:
    """Return the best mean as shown: what rounds to the same is equally good, and where all do, none is best."""
    finite = [mean for mean in means if math.isfinite(mean)]
    if better is None or len({_number(mean, digits) for mean in finite}) < 2:
        return None
    return _number(max(finite) if better == "higher" else min(finite), digits)


def _cell_text(row: Row, cell: Cell | None, factor: float, digits: int, best: str | None) -> Text:
    if cell is None:
        return Text("–")
    mean = _number(cell.mean * factor, digits)
    spread = "" if cell.std is None else f" ± {_number(cell.std * factor, digits)}"
    fewer = "" if cell.n == len(row.seeds) else f" (n = {cell.n})"
    return Text(mean + spread + fewer, best=mean == best)


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _csv(summary: Summary) -> str:
    names = list(dict.fromkeys(name for comparison in summary.comparisons for name in comparison.metrics))
    variants = any(row.variant for comparison in summary.comparisons for row in comparison.rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["data", "model", "epochs", "label", "config", *["settings"] * variants, "n"]
        + [inert(f"{name}_{part}") for name in names for part in ("mean", "std", "n")]
    )
    for comparison in summary.comparisons:
        for row in comparison.rows:
            about = [
                inert(comparison.data),
                inert(comparison.model),
                comparison.epochs,
                inert(row.label),
                row.config,
            ]
            about += [inert(row.variant)] * variants
            writer.writerow([*about, len(row.seeds), *(part for name in names for part in _parts(row.cells.get(name)))])
    return out.getvalue()


def _parts(cell: Cell | None) -> list[str]:
    if cell is None:
        return ["", "", "0"]
    return [repr(cell.mean), "" if cell.std is None else repr(cell.std), str(cell.n)]


def inert(text: str) -> str:
    """Return text that a spreadsheet will not take for a formula."""
    return f"'{clean(text)}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else clean(text)
