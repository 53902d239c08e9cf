"""Drawing with matplotlib into SVG that can stand inside a page: no shared ids, no fetches, the page's ink."""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

from multimix.lab.report._words import shortened

Axes = Any  # matplotlib's, which loads only when something is drawn

WIDTH = 4.8
"""Inches of every figure."""
INK = "#010203"
"""Drawn in this colour, shown in the page's text colour: figures follow the reader's light or dark page."""
PAPER = "#fdfcfb"
"""Likewise in the colour of what the figure stands on."""
DASHED = (0, (5, 3))
"""The line that others are compared with."""
COLORS = ("#3b7dd8", "#d9771e", "#2e9e6b", "#c8435a", "#8b6fd6", "#94733f", "#1b98aa", "#7a8594")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LETTERS = 38  # what a line of the legend holds
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_PLACES = frozenset({"x", "y", "d", "points"})
_LONG = re.compile(r"-?\d+\.\d{3,}")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "multimix",
    "font.size": 11.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
}


@dataclass(frozen=True)
class Figure:
    """A figure, and its words."""

    svg: str
    """One ``<svg>`` element that fetches nothing."""
    alt: str
    """What is to be seen, for those who do not see it; also the element's ``aria-label``."""
    caption: str
    """What the figure shows and how to read it."""

    @property
    def inline(self) -> str:
        """The element for inside HTML, which needs no namespace."""
        return self.svg.replace(f' xmlns="{_SVG}"', "")


@dataclass(frozen=True)
class Look:
    """How one method is drawn, told apart by more than its colour."""

    color: str
    dashes: Any
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """What matplotlib takes for a line."""
        style = {"color": self.color, "linestyle": self.dashes, "marker": self.marker}
        return {**style, "markersize": 4.5, "linewidth": 1.6}


def look(index: int) -> Look:
    """Return the look of the method at this place; lists of coprime lengths keep the first 280 apart."""
    return Look(COLORS[index % len(COLORS)], _DASHES[index % len(_DASHES)], _MARKERS[index % len(_MARKERS)])


def draw(
    paint: Callable[[Axes], None], *, height: float, alt: str, caption: str, panels: Mapping[str, Any] | None = None
) -> Figure:
    """Return as a figure what ``paint`` draws on fresh axes or panels; the same drawing gives the same text."""
    import matplotlib
    from matplotlib.figure import Figure as Blank

    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The reader's browser has fonts for letters that the one that measures the text lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas = Blank(figsize=(WIDTH, height), layout="constrained")
        paint(canvas.subplots(**panels or {}))
        canvas.savefig(out, format="svg", transparent=True, metadata=nothing)
    return Figure(_inline(out.getvalue(), alt), alt, caption)


def write(text: Any, words: str, limit: int = 40) -> None:
    """Set a text's words literally: no formulas, and no longer than fits."""
    text.set_parse_math(False)
    text.set_text(shortened(words, limit))


def name_ticks(axis: Any, places: Any, names: Sequence[str], limit: int = 40) -> None:
    """Put names at the places of an axis, to the letter."""
    axis.set_ticks(places, [shortened(name, limit) for name in names])
    for text in axis.get_ticklabels():
        text.set_parse_math(False)


@dataclass(frozen=True)
class Line:
    """One method's values at the ascending places that all of its seeds have, one value a seed."""

    name: str
    index: int
    places: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> list[float]:
        """The mean over seeds at every place."""
        return [fmean(values) for values in self.values]


def line_of(name: str, index: int, series: Sequence[Mapping[float, float]]) -> Line | None:
    """Return one method's line from every seed's values by place; None where no place is in all of them."""
    common = sorted(set.intersection(*(set(one) for one in series))) if series else []
    if not common:
        return None
    return Line(name, index, tuple(common), tuple(tuple(one[place] for one in series) for place in common))


def seeds_in_words(lines: Sequence[Line]) -> str:
    """Return how many seeds the lines are means of, and what the band is."""
    counts = sorted({len(line.values[0]) for line in lines})
    if counts == [1]:
        return ", one seed"
    number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f": mean of {number} seeds; the band spans the lowest to the highest seed"


def legend_height(names: Sequence[str]) -> float:
    """Return the inches that lines with a legend of these names need."""
    return 3.2 + 0.22 * math.ceil(len(names) / _columns(names))


def _columns(names: Sequence[str]) -> int:
    """Return in how many columns, one or two, a legend of names fits."""
    lengths = [min(len(name), _LETTERS) for name in names]
    half = math.ceil(len(lengths) / 2)
    return 2 if max(lengths[:half], default=0) + max(lengths[half:], default=0) <= _LETTERS else 1


def draw_lines(
    lines: Sequence[Line],
    across: str,
    quantity: str,
    *,
    alt: str,
    caption: str,
    limits: tuple[float, float] | None = None,
    ticks: Mapping[str, Any] | None = None,
) -> Figure:
    """Draw every line's mean with its band, told apart by more than colour, over ``across``."""
    names = [line.name for line in lines]

    def paint(axes: Axes) -> None:
        handles = []
        for line in lines:
            style, ends = look(line.index), [(min(values), max(values)) for values in line.values]
            if len(line.values[0]) > 1:
                axes.fill_between(line.places, *zip(*ends, strict=True), color=style.color, alpha=0.1, linewidth=0)
            step = max(len(line.places) // 6, 1)
            handles += axes.plot(line.places, line.mean, markevery=(line.index % step, step), **style.line)
        write(axes.xaxis.label, across)
        write(axes.yaxis.label, quantity)
        if limits:
            axes.set_ylim(*limits)
        if ticks:
            axes.locator_params(axis="x", **ticks)
        add_legend(axes, handles, names)

    return draw(paint, height=legend_height(names), alt=alt, caption=caption)


def add_legend(axes: Axes, handles: Sequence[Any], names: Sequence[str], columns: int | None = None) -> None:
    """Put a legend below, its names to the letter; by default in one column or two."""
    places = [f"place {index}" for index in range(len(handles))]
    legend = axes.figure.legend(
        handles,
        places,
        loc="outside lower center",
        ncols=columns or _columns(names),
        handlelength=3.2,
        columnspacing=1.4,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        write(text, name, _LETTERS)


def _inline(svg: str, alt: str) -> str:
    prefix = "f" + hashlib.sha256((svg + alt).encode()).hexdigest()[:8] + "-"
    root = ElementTree.fromstring(svg.encode())
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    named = [(number, element) for number, element in enumerate(root.iter()) if "id" in element.attrib]
    ids = {element.attrib["id"]: f"{prefix}{number}" for number, element in named}
    for element in root.iter():
        _localise(element.attrib, ids)
    for element in root.iter():
        _lighten(element)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": alt, "style": "stroke-linejoin:round;stroke-linecap:butt"}
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _localise(attributes: dict[str, str], ids: dict[str, str]) -> None:
    """Give ids and references to them new names, so that several drawings can stand in one page."""
    if "id" in attributes:
        attributes["id"] = ids[attributes["id"]]
    if _HREF in attributes:
        attributes["href"] = "#" + ids[attributes.pop(_HREF).removeprefix("#")]
    for name in ("clip-path", "style"):
        if name in attributes:
            found = re.sub(r"url\(#([^)]*)\)", lambda match: f"url(#{ids[match[1]]})", attributes[name])
            attributes[name] = found.replace(INK, "currentColor").replace(PAPER, "var(--card, #fff)")


def _lighten(element: ElementTree.Element) -> None:
    """Write places to a hundredth of a point, and what many marks share once: thousands of them stay light."""
    for name in _PLACES & element.attrib.keys():
        element.attrib[name] = _LONG.sub(lambda found: f"{float(found[0]):.2f}", element.attrib[name])
    marks = list(element)
    styles = {mark.get("style") for mark in marks}
    if len(marks) > 1 and len(styles) == 1 and all(mark.tag == f"{{{_SVG}}}use" for mark in marks):
        element.attrib["style"] = ";".join(filter(None, (element.get("style"), marks[0].get("style"))))
        for mark in marks:
            mark.attrib.pop("style", None)
