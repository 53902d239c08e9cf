"""Tables: which metric stands where, what the cells say, and the formats that people paste."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from multimix._declared import check
from multimix.lab.about.kinds import Table
from multimix.lab.report._records import Cell, Comparison, Row, Summary
from multimix.lab.report._words import capital, clean, counted, decimals, in_words, listed, metric, suite_named

Format = Literal["markdown", "html", "csv", "latex", "plain"]

_WIDEST = 10  # columns that a table of a suite which nobody described may have side by side
_UNDESCRIBED = Table(r"((?P<line>.*)/)?(?P<metric>[^/]*)", key="Measure")
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])")
_LATEX = r"""\begin{table}
\centering
\caption{%s}
\begin{tabular}{%s}
\toprule
%s
\midrule
%s
\bottomrule
\end{tabular}
\end{table}
"""
_LATEX_LETTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "Δ": r"$\Delta$",
    "▼": r"$\bigtriangledown$",  # of plain LaTeX; the filled one needs a package
    "†": r"$\dagger$",
    **{letter: "\\" + letter for letter in "{}$&#_%"},
}


@dataclass(frozen=True)
class Text:
    """One cell as text."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table before it has a format; the first columns are names, which tell lines apart."""

    heading: str  # what the numbers are
    note: str  # how to read them
    titles: list[str]
    rows: list[list[Text]]
    names: int = 1
    title: str = ""  # what its neighbours have not

    @property
    def words(self) -> str:
        """Heading and note."""
        return f"{self.heading}. {self.note}".rstrip()

    def written(self, escaped: Callable[[str], str], best: str, other: str = "{}") -> list[list[str]]:
        """Return titles and rows as a format writes them, the best cells as ``best`` says."""
        titles = [other.format(escaped(title)) for title in self.titles]
        return [titles, *([(best if c.best else other).format(escaped(c.text)) for c in row] for row in self.rows)]

    def sides(self, left: Any, right: Any) -> list[Any]:
        """Return ``left`` for every column of words and ``right`` for every other."""
        return [left] * self.names + [right] * (len(self.titles) - self.names)


def table(summary: Summary, fmt: Format = "markdown", *, whole: bool = False) -> str:
    """Return a summary as text: one table for every data set, model and length of training.

    A suite with many metrics has several tables, of which those that most ask for are returned.

    The heading says n; cells read ``97.1 ± 0.3`` (mean and sample standard deviation over seeds; without ± where there
    is one seed); the best mean of a column is marked where there is more than one row. ``csv`` is one table for
    machines: full precision, in the records' units, with mean, standard deviation and n in columns of their own.

    Args:
        summary: What ``summarise`` returned.
        fmt: ``markdown``, ``html``, ``csv``, ``latex`` (booktabs) or ``plain``.
        whole: Return all tables of a suite, so that no metric is left out; ``csv`` never leaves one out.

    Raises:
        ValueError: ``fmt`` is none of these, or the summary is empty.
    """
    check(Format, fmt=fmt)
    if not summary.comparisons:
        raise ValueError("nothing to tabulate: no finished run has a record")
    if fmt == "csv":
        return _csv(summary)
    pairs = map(grids, summary.comparisons)
    return rendered(chain.from_iterable((*main, *more) if whole else main for main, more in pairs), fmt)


@dataclass(frozen=True)
class Plan:
    """One table: headings of its columns, and of every line its words and the metric of each column."""

    title: str
    key: str  # heading of the words; empty where there is one line a method
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str | None, ...]], ...]
    more: bool = False


def plans(suite: str | None, names: Sequence[str]) -> list[Plan]:
    """Return the tables of a suite: together they hold every metric."""
    paths = {name: name.removeprefix(f"{suite}/" if suite else "") for name in names}
    default = Table(".*") if suite is None or len(paths) <= _WIDEST else _UNDESCRIBED
    tables = (suite_named(suite).tables if suite else ()) or (default,)
    found = []
    for one in (*tables, Table(".*", more=True)):
        chosen = {name: path for name, path in paths.items() if re.fullmatch(one.pattern, path, re.DOTALL)}
        if chosen:
            plan = _plan(one, chosen)
            shown = {name for _, line in plan.lines for name in line}
            paths = {name: path for name, path in paths.items() if name not in shown}
            found.append(plan)
    return found


def _plan(table: Table, paths: dict[str, str]) -> Plan:
    places: dict[tuple[str, str], str] = {}
    for name, path in paths.items():
        groups = re.fullmatch(table.pattern, path, re.DOTALL).groupdict()  # type: ignore[union-attr]
        places[groups.get("line") or "", groups.get("metric", groups.get("column", path)) or ""] = name
    title = table.title.format(metric=metric(next(iter(paths.values())).rpartition("/")[2]).heading)
    lines, columns = _in_order(line for line, _ in places), _in_order((column for _, column in places), table.first)
    if "<column>" in table.pattern:
        headings = [table.column.format(capital(in_words(column))) for column in columns]
    elif "<metric>" in table.pattern and len(lines) > 1:
        headings = [metric(column).heading for column in columns]
    else:
        flat = tuple(metric(path).heading for path in paths.values())
        return Plan(title, "", flat, (("", tuple(paths)),), table.more)
    cells = [(in_words(line) or table.bare, tuple(places.get((line, column)) for column in columns)) for line in lines]
    return Plan(title, table.key, tuple(headings), tuple(cells), table.more)


def _in_order(words: Iterable[str], first: str | None = None) -> list[str]:
    """Return words once each: numbers ascending, others as they come but for the one that stands first."""
    found = sorted(dict.fromkeys(words), key=lambda word: word != first)
    return sorted(found, key=float) if all(re.fullmatch(r"[0-9]+(\.[0-9]+)?", word) for word in found) else found


def grids(comparison: Comparison) -> tuple[list[Grid], list[Grid]]:
    """Return the main tables and the others; where all are for those who want everything, they are the main ones."""
    found = plans(comparison.suite, comparison.metrics)
    main, more = ([_grid(comparison, plan) for plan in found if plan.more is which] for which in (False, True))
    return (main, more) if main else (more, [])


def _grid(comparison: Comparison, plan: Plan) -> Grid:
    lines = [
        (row, words, [row.cells.get(name or "") for name in names])
        for words, names in plan.lines
        for row in comparison.rows
        if not plan.key or any(name in row.cells for name in names)
    ]
    shown = [
        next(name for name in names if name is not None)
        for names in zip(*(line for _, line in plan.lines), strict=True)
    ]
    columns = [_column(lines, index, name) for index, name in enumerate(shown)]
    rows = []
    for at, (row, words, _) in enumerate(lines):
        names = [clean(row.name), *[words] * bool(plan.key), str(len(row.seeds))]
        rows.append([*map(Text, names), *(one[at] for one in columns)])
    counts = sorted({len(row.seeds) for row in comparison.rows})
    spread = "mean ± sample standard deviation over" if counts[-1] > 1 else "no spread,"
    seeds = f"{f'{counts[0]} to ' if len(counts) > 1 else ''}{counted(counts[-1], 'seed')}"
    when = f"{plan.title}; last epoch" if plan.title else "last epoch"
    among = f" among lines of equal {plan.key.lower()}" if plan.key else ""
    best = f"Bold: best mean of its column{among}, which says nothing about significance."
    return Grid(
        heading=f"{named(comparison)}: {when}, {spread} n = {seeds}",
        note=" ".join(filter(None, (best if len(comparison.rows) > 1 else "", unlike(comparison)))),
        titles=["Method", *[plan.key] * bool(plan.key), "n", *plan.columns],
        rows=rows,
        names=2 if plan.key else 1,
        title=capital(plan.title),
    )


def named(comparison: Comparison) -> str:
    """Return data, model, epochs and suite, as captions begin."""
    return ", ".join(clean(words) for words in (comparison.title, comparison.suite) if words)


def unlike(comparison: Comparison) -> str:
    """Return the warning under a table whose rows were measured with different settings; else nothing."""
    names = [clean(name) for name in comparison.unequal]
    return f"Not measured alike: rows differ in {listed(names)}." if names else ""


def _column(lines: Sequence[tuple[Row, str, list[Cell | None]]], index: int, name: str) -> list[Text]:
    """Return a column as text; lines of different words do not compete for the best mean."""
    shown = metric(name)
    means: dict[str, list[float]] = {words: [] for _, words, _ in lines}
    for _, words, cells in lines:
        if cell := cells[index]:
            means[words].append(cell.mean * shown.factor)
    digits = decimals(shown, chain.from_iterable(means.values()))
    best = {words: _best(values, shown.better, digits) for words, values in means.items()}
    return [_cell_text(row, cells[index], shown.factor, digits, best[words]) for row, words, cells in lines]


def _best(means: list[float], better: str | None, digits: int) -> str | None:
    """Return the best mean as shown; where all round to the same, none is best."""
    finite = [mean for mean in means if math.isfinite(mean)]
    if better is None or len({number(mean, digits) for mean in finite}) < 2:
        return None
    return number(max(finite) if better == "higher" else min(finite), digits)


def _cell_text(row: Row, cell: Cell | None, factor: float, digits: int, best: str | None) -> Text:
    if cell is None:
        return Text("–")
    mean = number(cell.mean * factor, digits)
    spread = "" if cell.std is None else f" ± {number(cell.std * factor, digits)}"
    fewer = "" if cell.n == len(row.seeds) else f" (n = {cell.n})"
    return Text(mean + spread + fewer, best=mean == best)


def number(value: float, digits: int, sign: str = "") -> str:
    """Return a number as text; 0 and NaN have no sign."""
    text = f"{value:{sign}.{digits}f}" if not abs(value) >= 1e15 else f"{value:{sign}.3g}"
    return text.lstrip("+-") if float(text) == 0 or math.isnan(value) else text


def _csv(summary: Summary) -> str:
    variants = any(row.variant for comparison in summary.comparisons for row in comparison.rows)
    lines: list[tuple[list[Any], dict[str, Cell]]] = []
    for comparison in summary.comparisons:
        for row in comparison.rows:
            about = [*comparison.setting, row.label, row.config, *[row.variant] * variants, len(row.seeds)]
            lines.append((about, {name: row.cells.get(name, Cell()) for name in comparison.metrics}))
    titles = ["data", "model", "epochs", "label", "config", *["settings"] * variants, "n"]
    return csv_text(titles, ("mean", "std", "n"), lines)


def rendered(grids: Iterable[Grid], fmt: Format) -> str:
    """Return tables one below the other, in any format but ``csv``."""
    if fmt == "html":
        return "\n".join(map(str, map(template("table.html").module.table, grids)))
    renderers = {"markdown": _markdown, "latex": _latex, "plain": _plain}
    return "\n".join(map(renderers[fmt], grids))


def csv_text(titles: list[str], parts: Sequence[str], lines: Sequence[tuple[list[Any], Mapping[str, Any]]]) -> str:
    """Return lines as CSV, each what it is about and the parts of what it has by name; no spreadsheet runs a text."""
    names = dict.fromkeys(name for _, found in lines for name in found)
    rows = [[*titles, *(f"{name}_{part}" for name in names for part in parts)]]
    for about, found in lines:
        cells = [found.get(name, Cell()) for name in names]
        rows.append(
            [*about, *(getattr(cell, part) if cell.n or part == "n" else "" for cell in cells for part in parts)]
        )

    def inert(value: Any) -> Any:
        formula = ("=", "+", "-", "@", "\t", "\r")
        return "'" * value.startswith(formula) + clean(value) if isinstance(value, str) else value

    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(inert, row) for row in rows)
    return out.getvalue()


def template(name: str) -> Any:
    """Return a template of the page, which shows every text as text, in which only line ends may act."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    def harmless(value: Any) -> Any:
        plain = isinstance(value, str) and not hasattr(value, "__html__")
        return "\n".join(map(clean, value.splitlines())) if plain else value

    environment = Environment(
        loader=PackageLoader("multimix.lab.report", "_templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=harmless,
    )
    environment.filters |= {"counted": counted, "listed": listed}
    return environment.get_template(name)


def _markdown(grid: Grid) -> str:
    def escaped(text: str) -> str:
        return _MARKDOWN.sub(lambda found: "\\" + found.group(), text)

    titles, *rows = grid.written(escaped, "**{}**")
    title = f"**{escaped(grid.heading)}.** {grid.note}".rstrip()
    lines = [f"| {' | '.join(line)} |\n" for line in (titles, grid.sides(":---", "---:"), *rows)]
    return f"{title}\n\n{''.join(lines)}"


def _latex(grid: Grid) -> str:
    def escaped(text: str) -> str:
        return "".join(_LATEX_LETTERS.get(letter, letter) for letter in text)

    head, *lines = (f"{' & '.join(line)} \\\\" for line in grid.written(escaped, "\\textbf{{{}}}"))
    return _LATEX % (escaped(grid.words), "".join(grid.sides("l", "r")), head, "\n".join(lines))


def _plain(grid: Grid) -> str:
    """Return a table for a terminal."""
    lines = grid.written(str, "{}*", "{} ")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * (width - 1) + " " for width in widths])
    sides = grid.sides(str.ljust, str.rjust)
    aligned = [
        "  ".join(side(text, width) for side, text, width in zip(sides, line, widths, strict=True)).rstrip()
        for line in lines
    ]
    note = f"\n{grid.note.replace('Bold', '*')}" if grid.note else ""
    return "\n".join([grid.heading, "", *aligned]) + note + "\n"
