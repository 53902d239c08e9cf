"""The formats of tables: from a grid of texts to what people paste."""

import csv
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from multimix.lab.report._words import clean, counted, listed

Format = Literal["markdown", "html", "csv", "latex", "plain"]

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
    **{letter: "\\" + letter for letter in "{}$&#_%"},
}


@dataclass(frozen=True)
class Text:
    """One cell as text."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table before it has a format.

    The heading says what the numbers are, the note how to read them, the title what its neighbours have not; the first
    columns are names, which tell lines apart.
    """

    heading: str
    note: str
    titles: list[str]
    rows: list[list[Text]]
    names: int = 1
    title: str = ""

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


def check_format(fmt: str) -> None:
    """Raise ValueError if there is no such format."""
    if fmt not in get_args(Format):
        raise ValueError(f"fmt: expected one of {', '.join(get_args(Format))}, got {fmt!r}")


def rendered(grids: Iterable[Grid], fmt: Format) -> str:
    """Return tables one below the other, in any format but ``csv``."""
    renderers = {"markdown": _markdown, "html": _html, "latex": _latex, "plain": _plain}
    return "\n".join(renderers[fmt](grid) for grid in grids)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as CSV; no text in it is taken for a formula by a spreadsheet."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_inert(value) for value in row] for row in rows)
    return out.getvalue()


def _inert(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{clean(value)}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else clean(value)


def template(name: str) -> Any:
    """Return a template of the page, which shows every text as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("multimix.lab.report", "_templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_harmless,
    )
    environment.filters |= {"counted": counted, "listed": listed}
    return environment.get_template(name)


def _harmless(value: Any) -> Any:
    """Return what a template shows; of text, only line ends may act."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return "\n".join(map(clean, value.splitlines()))
    return value


def _html(grid: Grid) -> str:
    return str(template("table.html").module.table(grid))


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
