"""Figures of training, drawn with matplotlib into SVG for inside a page: no shared ids, no fetches, the page's ink."""

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

from multimix.lab.about import is_number
from multimix.lab.report._records import Cell, Comparison, row_names
from multimix.lab.report._runs import Run
from multimix.lab.report._words import clean, counted, decimals, metric, shortened, spanned

Axes = Any  # matplotlib's, which loads only when something is drawn

INK = "#010203"  # shown in the page's text colour: figures follow the reader's light or dark page
PAPER = "#fdfcfb"  # likewise in the colour of what the figure stands on
THIN = {"markersize": 4.5, "linewidth": 1.6}
COLORS = ("#3b7dd8", "#d9771e", "#2e9e6b", "#c8435a", "#8b6fd6", "#94733f", "#1b98aa", "#7a8594")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LARGEST = 1e100  # axes have no room for what is larger, and show it as not finite
_WHOLE = {"integer": True, "min_n_ticks": 1}
_LETTERS = 38  # what a line of the legend holds
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "multimix",
    "text.parse_math": False,
    "font.size": 11.5,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "legend.columnspacing": 1.4,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    **{f"{what}color": INK for what in ("axes.edge", "axes.label", "grid.", "text.", "xtick.", "ytick.")},
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
class Shot:
    """One picture, and its words."""

    source: str  # a data URI
    width: int
    height: int
    alt: str
    words: str
    name: str


@dataclass(frozen=True)
class Shots:
    """Pictures side by side, and their words."""

    pictures: tuple[Shot, ...]
    caption: str


@dataclass(frozen=True)
class Line:
    """One method's values at the ascending places that all of its seeds have, one value a seed."""

    name: str
    index: int
    places: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    whole: bool = True  # whether no seed has more places

    @property
    def mean(self) -> list[float]:
        """The mean over seeds at every place."""
        return [fmean(values) for values in self.values]


@dataclass(frozen=True)
class Drawn:
    """One row of a suite's table with its data by ascending seeds; the index gives its look."""

    name: str
    index: int
    seeds: list[tuple[int, dict[str, Any]]]

    @property
    def data(self) -> list[dict[str, Any]]:
        """The data of every seed."""
        return [data for _, data in self.seeds]

    @property
    def one_of(self) -> str:
        """Say in a caption that the lowest seed is shown, where there are several."""
        return f" Seed {self.seeds[0][0]} of {len(self.seeds)} seeds." if len(self.seeds) > 1 else ""

    def pooled(self, seeds: int) -> str:
        """Say in a caption how many seeds are drawn as one, where there are several."""
        return f", {counted(seeds, 'seed')} pooled{self.of_all(seeds)}" if len(self.seeds) > 1 else ""

    def of_all(self, seeds: int) -> str:
        """Say behind a number of seeds that others are left out, where they are."""
        return f" of {len(self.seeds)}, as the others were measured otherwise" if seeds < len(self.seeds) else ""


def learning_curves(runs: Sequence[Run], metric_name: str = "validation_accuracy") -> Figure | None:
    """Draw a metric over epochs: a line for each method's mean over seeds, a band from its lowest to its highest seed.

    Args:
        runs: Runs on one data set, with one model, of one length.
        metric_name: A field of the epoch events.

    Returns:
        The figure; None where no epoch has the metric.

    Raises:
        ValueError: The runs differ in data, model or length.
    """
    settings = {run.setting for run in runs}
    if len(settings) > 1:
        raise ValueError(f"runs: expected one data set, model and number of epochs, got {sorted(settings)}")
    shown = metric(metric_name)
    lines = []
    for index, (kind, label) in enumerate(row_names(run.kind for run in runs).items()):
        series = [_series(run, metric_name, shown.factor) for run in runs if run.kind == kind]
        lines += line_of(clean(label), index, list(filter(None, series)))
    if not lines:
        return None
    ends = [line.mean[-1] for line in lines]
    digits = decimals(shown, ends)
    listing = "; ".join(f"{line.name} {end:.{digits}f}" for line, end in zip(lines, ends, strict=True))
    alt = f"Line chart: {shown.quantity} over epochs, one line a method. Mean at the last epoch drawn: {listing}."
    caption = f"{shown.title} over epochs{seeds_in_words(lines)}."
    limits = None
    if metric_name == "train_loss":
        caption += " Each method minimises a loss of its own: compare shapes, not levels."
    elif limits := _focus(lines):
        caption += " The axis spans the last two thirds; earlier values may lie beyond it."
    return draw_lines(lines, "Epoch", shown.quantity, alt=alt, caption=caption, limits=limits, ticks=_WHOLE)


def seed_dots(comparison: Comparison, metric_name: str = "accuracy") -> Figure | None:
    """Draw where every seed of every method ended: a dot a seed, the mean, and one standard deviation to either side.

    Returns:
        The figure; None where no method has a finite value of the metric.
    """
    shown = metric(metric_name)
    rows = []
    for row in comparison.rows:
        cell = row.cells.get(metric_name, Cell())
        rows.append((clean(row.name), Cell(cell.seeds, tuple(value * shown.factor for value in cell.values))))
    cells = [(name, cell) for name, cell in rows if math.isfinite(cell.mean)]
    if not cells:
        return None
    digits = decimals(shown, (cell.mean for _, cell in cells))
    words = []
    for name, cell in cells:
        spread = "" if cell.std is None else f" ± {cell.std:.{digits}f}"
        words.append(f"{name} {cell.mean:.{digits}f}{spread} (n = {cell.n})")
    several = any(cell.n > 1 for _, cell in cells)
    reading = "a dot a seed" + (", the bar at their mean, the line one standard deviation to either side" * several)
    beside_curves = legend_height([name for name, _ in rows])
    return draw(
        lambda axes: _paint_dots(axes, rows, shown.quantity),
        height=max(0.9 + 0.36 * len(rows), min(beside_curves, 0.9 + 0.75 * len(rows))),
        alt=f"Dot plot: {shown.quantity} of every seed, one line a method. Means: {'; '.join(words)}.",
        caption=f"{shown.title} on the test split at the last epoch: {reading}.",
    )


def _series(run: Run, name: str, factor: float) -> dict[float, float]:
    return {
        event["epoch"]: value * factor if abs(value) < _LARGEST else math.nan
        for event in run.epochs
        if is_number(value := event.get(name))
    }


def _focus(lines: Sequence[Line]) -> tuple[float, float] | None:
    """Return limits that show the last two thirds of training well, where its beginning would press them flat."""
    length = max(line.places[-1] for line in lines)
    places = [(epoch, values) for line in lines for epoch, values in zip(line.places, line.values, strict=True)]
    whole = [value for _, values in places for value in values if math.isfinite(value)]
    late = [value for epoch, values in places if epoch > length / 3 for value in values if math.isfinite(value)]
    if length < 6 or not late or max(late) - min(late) > 0.6 * (max(whole) - min(whole)):
        return None
    margin = 0.06 * (max(late) - min(late)) or 0.01 * abs(late[0]) or 1.0
    return min(late) - margin, max(late) + margin


def _paint_dots(axes: Axes, rows: Sequence[tuple[str, Cell]], quantity: str) -> None:
    edge = {"markeredgecolor": INK, "markeredgewidth": 0.4}
    for index, (_, cell) in enumerate(rows):
        if not math.isfinite(cell.mean):
            continue
        style = look(index)
        if cell.std is not None:
            ends = [cell.mean - cell.std, cell.mean + cell.std]
            axes.plot(ends, [index, index], color=style["color"], linewidth=2.2, alpha=0.75)
        axes.plot([cell.mean], [index], color=INK, marker="|", markersize=13, markeredgewidth=1.8, linestyle="none")
        dots = {**style, "linestyle": "none", "markersize": 5.5, "alpha": 0.85}
        axes.plot(cell.values, [index] * cell.n, **dots, **edge)
    axes.grid(visible=False, axis="y")
    name_lines(axes, [name for name, _ in rows], quantity)


def name_lines(axes: Axes, names: Sequence[str], quantity: str, letters: int = 24) -> None:
    """Let every line from the top have a name, and values lie along it."""
    shown = [shortened(name, letters) for name in names]
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=shortened(quantity, 40))
    axes.locator_params(axis="x", nbins=5 if max(map(len, shown)) <= 24 else 2)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_yticks(range(len(names)), shown)


def look(index: int) -> dict[str, Any]:
    """Return how the method at this place is drawn; lists of coprime lengths keep the first 280 apart."""
    kinds = {"color": COLORS, "linestyle": _DASHES, "marker": _MARKERS}
    return {name: several[index % len(several)] for name, several in kinds.items()}


def draw(paint: Callable[[Axes], None], *, height: float, alt: str, caption: str, panels: Any = None) -> Figure:
    """Return as a figure what ``paint`` draws on fresh axes or panels; the same drawing gives the same text."""
    import matplotlib
    from matplotlib.figure import Figure as Blank

    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The reader's browser has fonts for letters that the one that measures the text lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas = Blank(figsize=(4.8, height), layout="constrained")
        paint(canvas.subplots(**panels or {}))
        canvas.savefig(out, format="svg", transparent=True, metadata=nothing)
    return Figure(_inline(out.getvalue(), alt), alt, caption)


def line_of(name: str, index: int, series: Sequence[Mapping[float, float]]) -> list[Line]:
    """Return one method's line from every seed's values by place; none where no place is in all of them."""
    common = sorted(set.intersection(*(set(one) for one in series))) if series else []
    values = tuple(tuple(one[place] for one in series) for place in common)
    return [Line(name, index, tuple(common), values, all(len(one) == len(common) for one in series))] if common else []


def seeds_in_words(lines: Sequence[Line]) -> str:
    """Return how many seeds the lines are means of, and what the band is."""
    counts = {len(line.values[0]) for line in lines}
    if counts == {1}:
        return ", one seed"
    partly = "" if all(line.whole for line in lines) else "; drawn as far as all of its seeds have a value"
    return f": mean of {spanned(counts)} seeds; the band spans the lowest to the highest seed{partly}"


def legend_height(names: Sequence[str]) -> float:
    """Return the inches that lines with a legend of these names need."""
    return 3.2 + 0.22 * legend_lines(names)


def legend_lines(names: Sequence[str]) -> int:
    """Return how many lines a legend of names takes."""
    return math.ceil(len(names) / _columns(names))


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
            style, ends = {**look(line.index), **THIN}, [(min(values), max(values)) for values in line.values]
            if len(line.values[0]) > 1:
                axes.fill_between(line.places, *zip(*ends, strict=True), color=style["color"], alpha=0.1, linewidth=0)
            step = max(len(line.places) // 6, 1)
            handles += axes.plot(line.places, line.mean, markevery=(line.index % step, step), **style)
        axes.set(xlabel=shortened(across, 40), ylabel=shortened(quantity, 40))
        if limits:
            axes.set_ylim(*limits)
        if ticks:
            axes.locator_params(axis="x", **ticks)
        add_legend(axes, handles, names)

    return draw(paint, height=legend_height(names), alt=alt, caption=caption)


def add_legend(axes: Axes, handles: Sequence[Any], names: Sequence[str], columns: int | None = None) -> None:
    """Put a legend below, by default in one column or two."""
    places = [f"place {index}" for index in range(len(handles))]
    legend = axes.figure.legend(handles, places, loc="outside lower center", ncols=columns or _columns(names))
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(shortened(name, _LETTERS))


def _inline(svg: str, alt: str) -> str:
    """Return an SVG whose ids and references to them have names of their own, so that several stand in one page."""
    prefix = "f" + hashlib.sha256((svg + alt).encode()).hexdigest()[:8] + "-"
    root = ElementTree.fromstring(svg.encode())
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    ids = {element.get("id", ""): f"{prefix}{number}" for number, element in enumerate(root.iter())}
    for element in root.iter():
        _lighten(element)
        given = element.attrib
        if "id" in given:
            given["id"] = ids[given["id"]]
        if _HREF in given:
            given["href"] = "#" + ids[given.pop(_HREF).removeprefix("#")]
        for name in {"clip-path", "style"} & given.keys():
            found = re.sub(r"url\(#([^)]*)\)", lambda match: f"url(#{ids[match[1]]})", given[name])
            given[name] = found.replace(INK, "currentColor").replace(PAPER, "var(--card, #fff)")
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": alt, "style": "stroke-linejoin:round;stroke-linecap:butt"}
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _lighten(element: ElementTree.Element) -> None:
    """Write places to a hundredth of a point, and what many marks share once: thousands of them stay light."""
    for name in {"x", "y", "d", "points"} & element.attrib.keys():
        element.attrib[name] = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", element.attrib[name])
    marks = list(element)
    styles = {mark.get("style") for mark in marks}
    if len(marks) > 1 and len(styles) == 1 and all(mark.tag == f"{{{_SVG}}}use" for mark in marks):
        element.attrib["style"] = ";".join(filter(None, (element.get("style"), marks[0].get("style"))))
        for mark in marks:
            mark.attrib.pop("style", None)
