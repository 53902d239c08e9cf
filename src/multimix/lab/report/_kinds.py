"""One way of drawing for every kind of figure that a suite can describe; data of another version are read with care."""

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

import numpy as np

from multimix.lab.about import SUITES
from multimix.lab.about.kinds import (
    Confusion,
    Curve,
    Gallery,
    HeatMap,
    Histogram,
    PerClass,
    Reliability,
    Scatter,
    Scores,
)
from multimix.lab.about.kinds import Figure as Kind
from multimix.lab.report._classes import confusions, galleries, per_class
from multimix.lab.report._data import Data, alike, bins, class_numbers, counts, mean, numbers, shares, texts
from multimix.lab.report._figures import (
    COLORS,
    INK,
    PAPER,
    THIN,
    Axes,
    Drawn,
    Figure,
    Line,
    Shots,
    add_legend,
    draw,
    draw_lines,
    legend_height,
    line_of,
    look,
    seeds_in_words,
)
from multimix.lab.report._records import Comparison
from multimix.lab.report._words import capital, counted, in_words, listed, metric, shortened, suite_named

Drawings = tuple[list[Figure | Shots], list[Figure | Shots]]  # open and folded
_VISIBLE = 6  # figures of one kind that stand open
_MOST_POINTS = 1500  # more make the page heavy and the figure a stain
_MOST_NAMES = 10  # classes that a legend can tell apart
_DASHED = (0, (5, 3))  # the line that others are compared with
# Ten of each, so that classes differ by marker alone; filled and open in turn, the likest shapes far apart.
_CLASS_MARKERS = ("o", "x", "^", "s", "+", "v", "D", "*", "1", "P")
_CLASS_COLORS = (*COLORS, "#b3589a", "#6f8f1f")
_SIGN = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": INK, "linewidth": 0.6, "alpha": 0.85}


def figures(suite: str, name: str, rows: Sequence[Drawn], comparison: Comparison) -> Drawings:
    """Draw a figure as its suite describes it, else as any suite does that has data of this form: open and folded."""
    keys = set.intersection(*(set(data) for row in rows for data in row.data))
    for kind in chain(suite_named(suite).figures, *(described.figures for described in SUITES.values())):
        if kind.keys <= keys and fnmatchcase(name, kind.name):
            if isinstance(kind, Scores):
                return _scores(kind, name, rows, comparison)
            drawn = _RENDERERS[type(kind)](kind, rows)
            return list(drawn[:_VISIBLE]), list(drawn[_VISIBLE:])
    return [], []


def _curve(kind: Curve, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw accuracy over something that grows, one line a method."""
    every = [data for row in rows for data in row.data]
    said = dict(kind.words)
    for key in said:
        value = _common(every, key)
        said[key] = (in_words(value) if isinstance(value, str) else "") or said[key]
    levels = kind.levels is not None and all(data.get(kind.levels[0]) == kind.levels[1] for data in every)
    factor = 255.0 if levels else kind.factor
    axis, title = (" ".join(text.format_map(said).split()) for text in (kind.axis, kind.title))
    axis += " (1/255)" * levels
    lines = []
    for row in rows:
        series = []
        for data in row.data:
            places = numbers(data, kind.x)
            accuracy = 100 * numbers(data, "accuracy", len(places))
            series.append(dict(zip((places * factor).round(9).tolist(), accuracy.tolist(), strict=True)))
        lines += line_of(row.name, row.index, series)
    if not lines:
        return []
    ends = "; ".join(f"{line.name} {line.mean[0]:.1f} to {line.mean[-1]:.1f}" for line in lines)
    first, last = lines[0].places[0], lines[0].places[-1]
    count = _common(every, "examples")
    measured = f" Measured on {count} test images." if isinstance(count, int) else ""
    alt = f"Line chart: {title}, one line a method. {axis} from {first:.4g} to {last:.4g}: {ends}."
    caption = f"{title}{seeds_in_words(lines)}.{measured}"
    ticks = {"integer": True, "steps": [1, 2, 4, 8, 10]} if levels else None
    return [draw_lines(lines, axis, metric("accuracy").quantity, alt=alt, caption=caption, ticks=ticks)]


def _common(every: Sequence[Data], key: str) -> Any:
    """Return what all data have under a key; None where they differ."""
    first = every[0].get(key)
    return first if all(data.get(key) == first for data in every) else None


def _heat_maps(kind: HeatMap, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw accuracy by line and column, one figure a method, all with the same shades."""
    cells, used = [], []  # in percent, mean over the seeds that have the lines and columns of the lowest
    for row in rows:
        names = [(texts(data, kind.lines), texts(data, kind.columns)) for data in row.data]
        size = tuple(map(len, names[0]))
        same = [data for data, own in zip(row.data, names, strict=True) if own == names[0]]
        used.append(len(same))
        cells.append(100 * mean([numbers(data, "accuracy", *size) for data in same], axis=0))
    finite = [value for one in cells for value in one[np.isfinite(one)]]
    if not finite:
        return []
    limits = (10 * math.floor(min(finite) / 10), max(10 * math.ceil(max(finite) / 10), 10))
    return [_heat_map(kind, *of_row, limits) for of_row in zip(rows, cells, used, strict=True)]


def _heat_map(kind: HeatMap, row: Drawn, cells: np.ndarray, seeds: int, limits: tuple[float, float]) -> Figure:
    from matplotlib.colors import Normalize

    lines = [capital(in_words(name)) for name in texts(row.data[0], kind.lines)]
    columns = texts(row.data[0], kind.columns)
    over_lines, means = (mean(cells, axis=axis) for axis in (0, 1))
    steps = "; ".join(f"{kind.column} {name} {value:.1f}" for name, value in zip(columns, over_lines, strict=True))
    worst = int(np.nan_to_num(means, nan=np.inf).argmin())
    reference = 100 * mean([value for data in row.data if isinstance(value := data.get(kind.reference), float)])
    several = f", mean of {counted(seeds, 'seed')}{row.of_all(seeds)}" if len(row.seeds) > 1 else ""
    without = f" Without {kind.line} {reference:.1f} %." if math.isfinite(reference) else ""
    what = f"accuracy (%) by {kind.line} and {kind.column}"

    def paint(axes: Axes) -> None:
        norm = Normalize(*limits)
        axes.pcolormesh(cells, cmap="cividis", norm=norm, edgecolors="none")
        for (y, x), value in np.ndenumerate(cells):
            ink = "#000000" if norm(value) > 0.5 else "#ffffff"  # not the page's: the shades stay the same in the dark
            if math.isfinite(value):
                axes.text(x + 0.5, y + 0.5, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=10.5)
        axes.invert_yaxis()
        axes.tick_params(length=0)
        _bare(axes, xlabel=capital(kind.column))
        axes.set_xticks(np.arange(len(columns)) + 0.5, [shortened(name, 40) for name in columns])
        axes.set_yticks(np.arange(len(lines)) + 0.5, [shortened(name, 22) for name in lines])

    return draw(
        paint,
        height=0.75 + 0.29 * len(lines),
        alt=f"Heat map of {row.name}: {what}. Mean over {kind.lines}: {steps}. Hardest: {lines[worst]} "
        f"{means[worst]:.1f}.",
        caption=f"{row.name}: {what}{several}; the darker, the lower.{without}",
    )


def _bare(axes: Axes, **settings: Any) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(**settings)


def _reliability(kind: Reliability, row: Drawn) -> Figure:
    """Draw accuracy beside confidence in every bin, and how many examples it holds."""
    edges, same = alike(row)
    count = np.array([counts(data, "count", len(edges) - 1) for data in same])
    total = count.sum(0)
    means = np.array([[numbers(data, key, len(edges) - 1) for data in same] for key in ("confidence", "accuracy")])
    weighted = (np.where((count != 0) & np.isfinite(means), means, 0.0) * count).sum(1)
    sure, right = 100 * (weighted / np.where(total != 0, total, np.nan))
    gap = np.nansum(abs(sure - right) * total) / (total.sum() or 1.0)
    listing = "; ".join(f"{a:.0f} % sure, {b:.0f} % right" for a, b, n in zip(sure, right, total, strict=True) if n)
    return draw(
        lambda panels: _paint_bins(panels, 100 * edges, (sure, right, total), look(row.index)["color"]),
        height=4.6,
        panels={"nrows": 2, "sharex": True, "gridspec_kw": {"height_ratios": [3.2, 1]}},
        alt=f"Reliability diagram of {row.name}, {kind.when}: accuracy by confidence. {listing or 'No examples'}.",
        caption=f"{row.name}, {kind.when}{row.pooled(len(same))}: a bar is as high as the accuracy of the examples "
        "in its bin of confidence; hatched is its gap to their mean confidence, and on the dashed line there is none. "
        f"Mean gap {gap:.1f} %, bins weighted by their examples, whose shares stand below.",
    )


def _paint_bins(panels: Any, edges: np.ndarray, inside: tuple[np.ndarray, ...], color: str) -> None:
    above, below = panels
    lefts, widths, (sure, right, count) = edges[:-1], np.diff(edges), inside
    box = {"align": "edge", "edgecolor": INK, "linewidth": 0.8}
    for at in np.flatnonzero(count):
        above.bar(lefts[at], right[at], widths[at], color=color, alpha=0.65, **box)
        low, high = sorted((sure[at], right[at]))
        above.bar(lefts[at], high - low, widths[at], bottom=low, fill=False, hatch="////", **box)
    above.plot([0, 100], [0, 100], color=INK, linestyle=_DASHED, linewidth=1.2)
    above.set(xlim=(edges[0], edges[-1]), ylim=(0, 100), ylabel="Accuracy (%)")
    below.bar(lefts, shares(count), widths, color=color, **box)
    below.set(xlabel="Confidence (%)", ylabel="Examples (%)")


def _scatter(kind: Scatter, row: Drawn) -> Figure:
    """Draw the points of a method's lowest seed in the plane."""
    data = row.data[0]
    x = numbers(data, "x")
    y, label = numbers(data, "y", len(x)), class_numbers(data, "label", len(x))
    classes = texts(data, "classes") if "classes" in data else []
    kept = _of_every_class(label, _MOST_POINTS)
    points, labels = np.stack([x, y])[:, kept], label[kept]
    present, named = sorted(set(labels.tolist())), len(classes) <= _MOST_NAMES
    names = [classes[own] if own < len(classes) else str(own) for own in present]
    method = data.get("method")
    plane = in_words(method) if method in ("tsne", "umap", "pca") else "a plane"
    known = f": {listed(classes)}" if named and classes else ""
    telling = "names stand at the middle of their class" if named else "classes share markers and colours"
    examples = data.get("examples")
    whole = max(len(x), examples if isinstance(examples, int) else 0)
    fewer = f" {len(labels)} of {whole} test images are drawn, some of every class." if len(labels) < whole else ""

    def paint(axes: Axes) -> None:
        groups = [points[:, labels == own] for own in present]
        handles = []
        for own, group in zip(present, groups, strict=True):
            style = {"marker": _CLASS_MARKERS[own % 10], "color": _CLASS_COLORS[own % 10], "linestyle": "none"}
            handles += axes.plot(*group, markersize=3.6, markeredgewidth=0.9, alpha=0.8, **style)
        if named:
            for group, name in zip(groups, names, strict=True):
                place = {"ha": "center", "va": "center", "color": INK, "fontsize": 10.5, "bbox": _SIGN}
                axes.text(*np.median(group, axis=1), shortened(name, 10), **place)
            add_legend(axes, handles, names, _columns(names))
        axes.set_aspect("equal", adjustable="datalim")
        _bare(axes, xticks=[], yticks=[])

    images, kinds = counted(len(labels), "image"), counted(len(present), "class").replace("classs", "classes")
    return draw(
        paint,
        height=4.1 + (0.24 * -(-len(classes) // _columns(classes)) if named else 0),
        alt=f"Scatter plot of {row.name}'s {kind.what} in the plane ({plane}): {images} of {kinds}{known}.",
        caption=f"{row.name}: {kind.what} of test images in the plane ({plane}); {telling}. How far groups lie apart "
        f"and how large they are means little.{fewer}{row.one_of}",
    )


def _of_every_class(labels: np.ndarray, most: int) -> np.ndarray:
    """Return the places of about so many points, spread evenly over each class, and of every class at least one."""
    order = np.argsort(labels, kind="stable")
    firsts = np.unique(labels[order], return_index=True)[1]
    even = np.arange(min(most, len(labels))) * len(labels) // most if len(labels) > most else np.arange(len(labels))
    return np.sort(order[np.union1d(even, firsts)])


def _columns(names: Sequence[str]) -> int:
    """Return in how many columns a legend of names has room."""
    return max(1, min(5, 44 // (max(map(len, names), default=1) + 7)))


def _histogram(kind: Histogram, row: Drawn, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw how often values lie in bins as one line for every key but the edges, alike for all rows."""
    keys = list(dict.fromkeys(key for other in rows for key in other.data[0] if key != "edges"))
    edges, same = alike(row)
    size, middles = len(edges) - 1, tuple(((edges[:-1] + edges[1:]) / 2).tolist())
    lines = []
    for key, values in row.data[0].items():
        if key != "edges" and isinstance(values, list) and len(values) == size:
            pooled = np.mean([shares(counts(data, key, size)) for data in same if key in data], axis=0)
            lines.append(Line(in_words(key), keys.index(key), middles, tuple((part,) for part in pooled.tolist())))
    if not lines:
        return []
    listing = "; ".join(f"{line.name} {middles[line.mean.index(max(line.mean))]:.3g}" for line in lines)
    alt = f"Histogram of {row.name}: {kind.axis}. Most frequent: {listing}."
    caption = f"{row.name}{row.pooled(len(same))}: {kind.title}"
    return [draw_lines(lines, kind.axis, "Share (%)", alt=alt, caption=caption)]


def _scores(kind: Scores, name: str, rows: Sequence[Drawn], comparison: Comparison) -> Drawings:
    """Draw the ROC curve of every method for the best score on one set, and that score's histogram of each."""
    best = _best_score(kind, comparison)
    chosen: list[tuple[Drawn, str, Data]] = []
    for row in rows:
        given = row.data[0]["scores"]
        if not isinstance(given, dict):
            raise ValueError(f"scores: expected data by score, got {given!r:.60}")
        scores: dict[str, Data] = {score: data for score, data in given.items() if isinstance(data, dict)}
        if scores:
            score = best if best in scores else next(iter(scores))
            chosen.append((row, score, scores[score]))
    if not chosen:
        return [], []
    other = in_words(name.partition("/")[2] or name)
    why = f", which has the highest mean {metric(kind.by).title} here" if best else ""
    return [_roc(chosen, other, why)], [_overlap(*one, other) for one in chosen]


def _best_score(kind: Scores, comparison: Comparison) -> str | None:
    """Return the score with the best metric, mean over sets and methods; None where there is none."""
    found: dict[str, list[float]] = {}
    for row in comparison.rows:
        for name, cell in row.cells.items():
            path = name.removeprefix(f"{comparison.suite}/").split("/")
            if len(path) > 2 and path[-1] == kind.by and math.isfinite(cell.mean):
                found.setdefault(path[-2], []).append(cell.mean)
    return max(found, key=lambda score: mean(found[score]), default=None)


def _roc(chosen: Sequence[tuple[Drawn, str, Data]], other: str, why: str) -> Figure:
    lines = []
    for row, _, data in chosen:
        false = 100 * numbers(data, "fpr")
        lines.append((row, false, 100 * numbers(data, "tpr", len(false))))
    word = in_words(chosen[0][1])
    reached = [max(true[false <= 5], default=0.0) for _, false, true in lines]
    listing = "; ".join(f"{row.name} {share:.0f} %" for (row, _, _), share in zip(lines, reached, strict=True))
    names = [row.name for row, _, _ in lines]

    def paint(axes: Axes) -> None:
        handles = []
        for row, false, true in lines:
            handles += axes.plot(false, true, markevery=0.16, **look(row.index), **THIN)
        axes.plot([0, 100], [0, 100], color=INK, linestyle=_DASHED, linewidth=0.8)
        axes.set(xlim=(-1, 101), ylim=(-1, 101), ylabel="Test images that pass (%)")
        axes.set_xlabel(shortened(f"{capital(other)} that pass (%)", 40))
        add_legend(axes, handles, names)

    return draw(
        paint,
        height=legend_height(names) + 0.5,
        alt=f"ROC curves for {other} by {word}, one line a method. Share of test images that pass where 5 % of "
        f"{other} do: {listing}.",
        caption=f"{capital(other)}, score {word}{why}: share of "
        f"test images that pass a threshold over the share of {other} that pass it, too; the nearer to the upper left "
        f"corner, the better, and the thin dashed line is guessing.{chosen[0][0].one_of}",
    )


def _overlap(row: Drawn, score: str, data: Data, other: str) -> Figure:
    edges, word = bins(data), in_words(score)
    inside, outside = (shares(counts(data, key, len(edges) - 1)) for key in ("in", "out"))

    def paint(axes: Axes) -> None:
        fill = {"facecolor": COLORS[0], "alpha": 0.45, "edgecolor": INK, "linewidth": 0.7}
        filled = axes.stairs(inside, edges, fill=True, **fill)
        line = axes.stairs(outside, edges, color=COLORS[1], linestyle=(0, (4, 1.5)), linewidth=1.8)
        axes.set(xlabel=shortened(capital(word), 40), ylabel="Share of images (%)")
        add_legend(axes, [filled, line], ["test images", other])

    return draw(
        paint,
        height=3.1,
        alt=f"Histogram of {word} of {row.name}: test images around {_median(edges, inside):.3g}, {other} around "
        f"{_median(edges, outside):.3g}; {np.minimum(inside, outside).sum():.0f} % of the areas in common.",
        caption=f"{row.name}: {word} of test images (filled) and of {other} (dashed); the less they overlap, the "
        f"better. The outer bins hold what lies beyond them, too.{row.one_of}",
    )


def _median(edges: np.ndarray, parts: np.ndarray) -> float:
    """Return the middle of the bin that holds the median."""
    passed = np.flatnonzero(parts.cumsum() >= 50)
    return float(edges[passed[0] : passed[0] + 2].mean() if len(passed) else edges[-1])


_RENDERERS: dict[type[Kind], Callable[[Any, Sequence[Drawn]], Sequence[Figure | Shots]]] = {
    Confusion: lambda _, rows: confusions(rows),
    Curve: _curve,
    Gallery: galleries,
    HeatMap: _heat_maps,
    Histogram: lambda kind, rows: [figure for row in rows for figure in _histogram(kind, row, rows)],
    PerClass: per_class,
    Reliability: lambda kind, rows: [_reliability(kind, row) for row in rows],
    Scatter: lambda kind, rows: [_scatter(kind, row) for row in rows],
}
