"""Figures of training: how it went, and where every seed ended."""

import math
from collections.abc import Sequence

from multimix.lab.report._drawing import (
    INK,
    Axes,
    Figure,
    Line,
    draw,
    draw_lines,
    legend_height,
    line_of,
    look,
    name_ticks,
    seeds_in_words,
    write,
)
from multimix.lab.report._runs import Run
from multimix.lab.report._summary import Cell, Comparison, row_names
from multimix.lab.report._words import clean, decimals, metric


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
    lines = _lines(runs, metric_name, shown.factor)
    if not lines:
        return None
    ends = [line.mean[-1] for line in lines]
    digits = decimals(shown, ends)
    listing = "; ".join(f"{line.name} {end:.{digits}f}" for line, end in zip(lines, ends, strict=True))
    alt = f"Line chart: {shown.quantity} over epochs, one line a method. Mean at the last epoch drawn: {listing}."
    caption = f"{shown.title} over epochs{seeds_in_words(lines)}."
    if metric_name == "train_loss":
        caption += " Each method minimises a loss of its own: compare shapes, not levels."
    limits = None if metric_name == "train_loss" else _focus(lines)
    if limits:
        caption += " The axis spans the last two thirds; earlier values may lie beyond it."
    return draw_lines(lines, "Epoch", shown.quantity, alt=alt, caption=caption, limits=limits, ticks={"integer": True})


def seed_dots(comparison: Comparison, metric_name: str = "accuracy") -> Figure | None:
    """Draw where every seed of every method ended: a dot a seed, the mean, and one standard deviation to either side.

    Returns:
        The figure; None where no method has a finite value of the metric.
    """
    shown = metric(metric_name)
    rows = [(clean(row.name), _scaled(row.cells.get(metric_name), shown.factor)) for row in comparison.rows]
    cells = [(name, cell) for name, cell in rows if cell]
    if not cells:
        return None
    digits = decimals(shown, (cell.mean for _, cell in cells))
    listing = "; ".join(f"{name} {_words(cell, digits)}" for name, cell in cells)
    several = any(cell.n > 1 for _, cell in cells)
    reading = "a dot a seed" + (", the bar at their mean, the line one standard deviation to either side" * several)
    beside_curves = legend_height([name for name, _ in rows])
    return draw(
        lambda axes: _paint_dots(axes, rows, shown.quantity),
        height=max(0.9 + 0.36 * len(rows), min(beside_curves, 0.9 + 0.75 * len(rows))),
        alt=f"Dot plot: {shown.quantity} of every seed, one line a method. Means: {listing}.",
        caption=f"{shown.title} on the test split at the last epoch: {reading}.",
    )


def _lines(runs: Sequence[Run], name: str, factor: float) -> list[Line]:
    names = row_names(run.kind for run in runs)
    lines = []
    for index, (kind, label) in enumerate(names.items()):
        series = [_series(run, name, factor) for run in runs if run.kind == kind]
        lines.append(line_of(clean(label), index, [one for one in series if one]))
    return [line for line in lines if line]


def _series(run: Run, name: str, factor: float) -> dict[float, float]:
    found = {event["epoch"]: event.get(name) for event in run.epochs}
    return {
        epoch: value * factor if math.isfinite(value) else math.nan
        for epoch, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _focus(lines: Sequence[Line]) -> tuple[float, float] | None:
    """Return limits that show the last two thirds of training well, where its beginning would press them flat."""
    length = max(line.places[-1] for line in lines)
    points = [
        (epoch, value)
        for line in lines
        for epoch, values in zip(line.places, line.values, strict=True)
        for value in values
        if math.isfinite(value)
    ]
    whole, late = [value for _, value in points], [value for epoch, value in points if epoch > length / 3]
    if length < 6 or not late or max(late) - min(late) > 0.6 * (max(whole) - min(whole)):
        return None
    margin = 0.06 * (max(late) - min(late)) or 0.01 * abs(late[0]) or 1.0
    return min(late) - margin, max(late) + margin


def _scaled(cell: Cell | None, factor: float) -> Cell | None:
    if cell is None or not all(map(math.isfinite, cell.values)):
        return None
    return Cell(cell.seeds, tuple(value * factor for value in cell.values))


def _words(cell: Cell, digits: int) -> str:
    spread = "" if cell.std is None else f" ± {cell.std:.{digits}f}"
    return f"{cell.mean:.{digits}f}{spread} (n = {cell.n})"


def _paint_dots(axes: Axes, rows: Sequence[tuple[str, Cell | None]], quantity: str) -> None:
    edge = {"markeredgecolor": INK, "markeredgewidth": 0.4}
    for index, (_, cell) in enumerate(rows):
        if cell is None:
            continue
        color, marker = look(index).color, look(index).marker
        if cell.std is not None:
            ends = [cell.mean - cell.std, cell.mean + cell.std]
            axes.plot(ends, [index, index], color=color, linewidth=2.2, alpha=0.75)
        axes.plot([cell.mean], [index], color=INK, marker="|", markersize=13, markeredgewidth=1.8, linestyle="none")
        dots = {"color": color, "marker": marker, "markersize": 5.5, "linestyle": "none", "alpha": 0.85}
        axes.plot(cell.values, [index] * cell.n, **dots, **edge)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    write(axes.xaxis.label, quantity)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    name_ticks(axes.yaxis, range(len(rows)), [name for name, _ in rows], 24)
