"""The formats of tables: from a grid of texts to what people paste."""

import re
from dataclasses import dataclass

from markupsafe import Markup, escape

_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])")
_HTML = Markup(
    '<figure class="table">\n{title}<div class="scroll" role="region" aria-label="{heading}" tabindex="0">'
    '<table class="{kind}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n'
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
    """A table before it has a format."""

    heading: str
    """What the numbers are."""
    note: str
    """How to read them."""
    titles: list[str]
    """Of the columns."""
    rows: list[list[Text]]
    """Lines of cells."""
    names: int = 1
    """How many columns at the left are words, which name the line."""
    title: str = ""
    """What this table has that its neighbours have not."""


def html(grid: Grid) -> str:
    """Return a table with its caption, ready to stand in a page."""
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(title) for title in grid.titles)
    body = Markup("\n").join(Markup("<tr>{}</tr>").format(Markup("").join(_html_cells(row))) for row in grid.rows)
    words = f"{grid.heading}. {grid.note}".rstrip()
    title = Markup('<p class="what">{}</p>\n').format(grid.title) if grid.title else ""
    kind = "results keyed" if grid.names > 1 else "results"
    return str(_HTML.format(title=title, heading=grid.heading, words=words, kind=kind, head=head, body=body))


def _html_cells(row: list[Text]) -> list[Markup]:
    cells = [Markup('<th scope="row">{}</th>').format(row[0].text)]
    for cell in row[1:]:
        inner = Markup("<strong>{}</strong>").format(cell.text) if cell.best else escape(cell.text)
        cells.append(Markup("<td>{}</td>").format(inner))
    return cells


def markdown(grid: Grid) -> str:
    """Return a table as GitHub and the like take it."""

    def escaped(text: str) -> str:
        return _MARKDOWN.sub(lambda found: "\\" + found.group(), text)

    def line(texts: list[str]) -> str:
        return f"| {' | '.join(texts)} |"

    body = [
        line([f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text) for cell in row]) for row in grid.rows
    ]
    rule = line([":---"] * grid.names + ["---:"] * (len(grid.titles) - grid.names))
    title = f"**{escaped(grid.heading)}.** {grid.note}".rstrip()
    return "\n".join([title, "", line([escaped(text) for text in grid.titles]), rule, *body]) + "\n"


def latex(grid: Grid) -> str:
    """Return a floating table with booktabs' rules."""

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
            f"\\begin{{tabular}}{{{'l' * grid.names + 'r' * (len(grid.titles) - grid.names)}}}",
            "\\toprule",
            line([escaped(text) for text in grid.titles]),
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}\n",
        ]
    )


def plain(grid: Grid) -> str:
    """Return a table for a terminal."""
    head = [title + " " for title in grid.titles]
    body = [[cell.text + ("*" if cell.best else " ") for cell in row] for row in grid.rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    sides = [str.ljust] * grid.names + [str.rjust] * (len(widths) - grid.names)
    lines = [
        "  ".join(side(text, width) for side, text, width in zip(sides, row, widths, strict=True)).rstrip()
        for row in [head, *body]
    ]
    rule = "  ".join("-" * (width - 1) + " " for width in widths).rstrip()
    note = f"\n{grid.note.replace('Bold', '*')}" if grid.note else ""
    return "\n".join([grid.heading, "", lines[0], rule, *lines[1:]]) + note + "\n"
