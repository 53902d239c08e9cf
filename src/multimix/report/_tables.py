"""Tables of a summary, in the formats people paste them into."""

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from markupsafe import Markup, escape

from multimix.report._metrics import decimals, metric
from multimix.report._summary import Cell, Comparison, Row, Summary
from multimix.report._text import clean, counted

Format = Literal["markdown", "html", "csv", "latex", "plain"]
BEST = "Bold: best mean of its column, which says nothing about significance."
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])")
_HTML = Markup(
    '<figure class="table">\n<div class="scroll" role="region" aria-label="{heading}" tabindex="0">'
    '<table class="results">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n'
    "<figcaption>{words}</figcaption>\n</figure>\n"
)
_LATEX = {
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
    **{letter: "\\" + letter for letter in "{}$&#_%"},
}


@dataclass(frozen=True)
class _Text:
    """One cell as text."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class _Grid:
    """A table before it has a format: a heading, column titles, and rows whose first column names the method."""

    heading: str
    note: str
    titles: list[str]
    rows: list[list[_Text]]


def table(summary: Summary, fmt: Format = "markdown") -> str:
    """Return a summary as text: one table for every data set, model and length of training.

    The heading says n; cells read ``97.1 ± 0.3`` (mean and sample standard deviation over seeds; without ± where there
    is one seed); the best mean of a column is marked where there is more than one row. ``csv`` is one table for
    machines instead: full precision, in the records' units, with mean, standard deviation and n in columns
    of their own.

    Args:
        summary: What ``summarise`` returned.
        fmt: ``markdown``, ``html``, ``csv``, ``latex`` (booktabs) or ``plain``.

    Raises:
        ValueError: ``fmt`` is none of these, or the summary is empty.
    """
    if fmt not in get_args(Format):
        raise ValueError(f"fmt: expected one of {', '.join(get_args(Format))}, got {fmt!r}")
    if not summary.comparisons:
        raise ValueError("nothing to tabulate: no finished run has a record")
    if fmt == "csv":
        return _csv(summary)
    render: Callable[[_Grid], str] = {"markdown": _markdown, "html": _html, "latex": _latex, "plain": _plain}[fmt]
    return "\n".join(render(_grid(comparison)) for comparison in summary.comparisons)


def html_table(comparison: Comparison) -> Markup:
    """Return one comparison's table, ready to stand in a page."""
    return Markup(_html(_grid(comparison)))


def _seeds(rows: tuple[Row, ...]) -> str:
    """Return how many seeds the rows have: ``n = 3 seeds``, or ``n = 2 to 3 seeds`` where they differ."""
    counts = sorted({len(row.seeds) for row in rows})
    return f"n = {f'{counts[0]} to ' if len(counts) > 1 else ''}{counted(counts[-1], 'seed')}"


def _grid(comparison: Comparison) -> _Grid:
    columns = [_column(comparison, name) for name in comparison.metrics]
    rows = [
        [_Text(clean(row.name)), _Text(str(len(row.seeds))), *(column[index] for column in columns)]
        for index, row in enumerate(comparison.rows)
    ]
    several = max(len(row.seeds) for row in comparison.rows) > 1
    spread = "mean ± sample standard deviation over" if several else "no spread,"
    return _Grid(
        heading=f"{clean(comparison.title)}: last epoch, {spread} {_seeds(comparison.rows)}",
        note=BEST if len(comparison.rows) > 1 else "",
        titles=["Method", "n", *(metric(name).heading for name in comparison.metrics)],
        rows=rows,
    )


def _column(comparison: Comparison, name: str) -> list[_Text]:
    shown = metric(name)
    cells = [row.cells.get(name) for row in comparison.rows]
    digits = decimals(shown, (cell.mean * shown.factor for cell in cells if cell))
    best = _best([cell.mean * shown.factor for cell in cells if cell], shown.better, digits)
    return [_cell_text(row, cell, shown.factor, digits, best) for row, cell in zip(comparison.rows, cells, strict=True)]


def _best(means: list[float], better: str | None, digits: int) -> str | None:
    """Return the best mean as shown: what rounds to the same is equally good, and where all do, none is best."""
    finite = [mean for mean in means if math.isfinite(mean)]
    if better is None or len({_number(mean, digits) for mean in finite}) < 2:
        return None
    return _number(max(finite) if better == "higher" else min(finite), digits)


def _cell_text(row: Row, cell: Cell | None, factor: float, digits: int, best: str | None) -> _Text:
    if cell is None:
        return _Text("–")
    mean = _number(cell.mean * factor, digits)
    spread = "" if cell.std is None else f" ± {_number(cell.std * factor, digits)}"
    fewer = "" if cell.n == len(row.seeds) else f" (n = {cell.n})"
    return _Text(mean + spread + fewer, best=mean == best)


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _html(grid: _Grid) -> str:
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(title) for title in grid.titles)
    body = Markup("\n").join(Markup("<tr>{}</tr>").format(Markup("").join(_html_cells(row))) for row in grid.rows)
    words = f"{grid.heading}. {grid.note}".rstrip()
    return str(_HTML.format(heading=grid.heading, words=words, head=head, body=body))


def _html_cells(row: list[_Text]) -> list[Markup]:
    cells = [Markup('<th scope="row">{}</th>').format(row[0].text)]
    for cell in row[1:]:
        inner = Markup("<strong>{}</strong>").format(cell.text) if cell.best else escape(cell.text)
        cells.append(Markup("<td>{}</td>").format(inner))
    return cells


def _markdown(grid: _Grid) -> str:
    def escaped(text: str) -> str:
        return _MARKDOWN.sub(lambda found: "\\" + found.group(), text)

    def line(texts: list[str]) -> str:
        return f"| {' | '.join(texts)} |"

    body = [
        line([f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text) for cell in row]) for row in grid.rows
    ]
    rule = line([":---", *["---:"] * (len(grid.titles) - 1)])
    title = f"**{escaped(grid.heading)}.** {grid.note}".rstrip()
    return "\n".join([title, "", line([escaped(text) for text in grid.titles]), rule, *body]) + "\n"


def _latex(grid: _Grid) -> str:
    def escaped(text: str) -> str:
        return "".join(_LATEX.get(letter, letter) for letter in text)

    def line(texts: list[str]) -> str:
        return f"{' & '.join(texts)} \\\\"

    body = [
        line([f"\\textbf{{{escaped(cell.text)}}}" if cell.best else escaped(cell.text) for cell in row])
        for row in grid.rows
    ]
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{escaped(f'{grid.heading}. {grid.note}'.rstrip())}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(grid.titles) - 1)}}}",
            "\\toprule",
            line([escaped(text) for text in grid.titles]),
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}\n",
        ]
    )


def _plain(grid: _Grid) -> str:
    head = [title + " " for title in grid.titles]
    body = [[cell.text + ("*" if cell.best else " ") for cell in row] for row in grid.rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in [head, *body]
    ]
    rule = "  ".join("-" * (width - 1) + " " for width in widths).rstrip()
    note = f"\n{grid.note.replace('Bold', '*')}" if grid.note else ""
    return "\n".join([grid.heading, "", lines[0], rule, *lines[1:]]) + note + "\n"


def _csv(summary: Summary) -> str:
    names = list(dict.fromkeys(name for comparison in summary.comparisons for name in comparison.metrics))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["data", "model", "epochs", "label", "config", "n"]
        + [_inert(f"{name}_{part}") for name in names for part in ("mean", "std", "n")]
    )
    for comparison in summary.comparisons:
        for row in comparison.rows:
            about = [
                _inert(comparison.data),
                _inert(comparison.model),
                comparison.epochs,
                _inert(row.label),
                row.config,
            ]
            writer.writerow([*about, len(row.seeds), *(part for name in names for part in _parts(row.cells.get(name)))])
    return out.getvalue()


def _parts(cell: Cell | None) -> list[str]:
    if cell is None:
        return ["", "", "0"]
    return [repr(cell.mean), "" if cell.std is None else repr(cell.std), str(cell.n)]


def _inert(text: str) -> str:
    """Return text that a spreadsheet will not take for a formula."""
    return f"'{clean(text)}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else clean(text)
