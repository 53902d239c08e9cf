"""Figures: how training went, and where every seed ended."""

import math
from collections.abc import Sequence
from typing import Any

from multimix.lab.report._lines import WIDTH, Curve, curve, height, paint_curves, seeds
from multimix.lab.report._metrics import decimals, metric
from multimix.lab.report._runs import Run
from multimix.lab.report._summary import Cell, Comparison, row_names
from multimix.lab.report._svg import INK, Axes, Figure, draw, look, write
from multimix.lab.report._text import clean, shortened


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
    settings = {(run.config["data"], run.config["model"], run.config["epochs"]) for run in runs}
    if len(settings) > 1:
        raise ValueError(f"runs: expected one data set, model and number of epochs, got {sorted(settings)}")
    curves = _curves(runs, metric_name)
    if not curves:
        return None
    shown = metric(metric_name)
    ends = [curve.mean[-1] for curve in curves]
    digits = decimals(shown, ends)
    listing = "; ".join(f"{curve.name} {end:.{digits}f}" for curve, end in zip(curves, ends, strict=True))
    alt = f"Line chart: {shown.quantity} over epochs, one line a method. Mean at the last epoch drawn: {listing}."
    caption = f"{shown.title} over epochs{seeds(curves)}."
    if metric_name == "train_loss":
        caption += " Each method minimises a loss of its own: compare shapes, not levels."
    limits = None if metric_name == "train_loss" else _focus(curves)
    if limits:
        caption += " The axis spans the last two thirds; earlier values may lie beyond it."
    svg = draw(
        lambda axes: _paint_epochs(axes, curves, shown.quantity, limits),
        size=(WIDTH, height([curve.name for curve in curves])),
        alt=alt,
    )
    return Figure(svg, alt, caption)


def seed_dots(comparison: Comparison, metric_name: str = "accuracy") -> Figure | None:
    """Draw where every seed of every method ended: a dot a seed, the mean, and one standard deviation to either side.

    Returns:
        The figure; None where no method has a finite value of the metric.
    """
    shown = metric(metric_name)
    rows = [(clean(row.name), _scaled(row.cells.get(metric_name), shown.factor)) for row in comparison.rows]
    if not any(cell for _, cell in rows):
        return None
    digits = decimals(shown, (cell.mean for _, cell in rows if cell))
    listing = "; ".join(f"{name} {_words(cell, digits)}" for name, cell in rows if cell)
    alt = f"Dot plot: {shown.quantity} of every seed, one line a method. Means: {listing}."
    several = any(cell.n > 1 for _, cell in rows if cell)
    reading = "a dot a seed" + (", the bar at their mean, the line one standard deviation to either side" * several)
    caption = f"{shown.title} on the test split at the last epoch: {reading}."
    beside_curves = height([name for name, _ in rows])
    size = (WIDTH, max(0.9 + 0.36 * len(rows), min(beside_curves, 0.9 + 0.75 * len(rows))))
    return Figure(draw(lambda axes: _paint_dots(axes, rows, shown.quantity), size=size, alt=alt), alt, caption)


def _curves(runs: Sequence[Run], name: str) -> list[Curve]:
    factor = metric(name).factor
    names = row_names((run.label, run.settings_hash) for run in runs)
    curves: list[Curve | None] = []
    for index, (kind, label) in enumerate(names.items()):
        series = [_series(run, name, factor) for run in runs if (run.label, run.settings_hash) == kind]
        series = [one for one in series if one]
        curves.append(curve(clean(label), index, series))
    return [one for one in curves if one]


def _series(run: Run, name: str, factor: float) -> dict[float, float]:
    found = {event["epoch"]: event.get(name) for event in run.epochs}
    return {
        epoch: value * factor if math.isfinite(value) else math.nan
        for epoch, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _focus(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """Return limits that show the last two thirds of training well, where its beginning would press them flat."""
    length = max(curve.places[-1] for curve in curves)
    whole = [value for curve in curves for values in curve.values for value in values if math.isfinite(value)]
    late = [
        value
        for curve in curves
        for epoch, values in zip(curve.places, curve.values, strict=True)
        for value in values
        if epoch > length / 3 and math.isfinite(value)
    ]
    if length < 6 or not late or max(late) - min(late) > 0.6 * (max(whole) - min(whole)):
        return None
    margin = 0.06 * (max(late) - min(late)) or 0.01 * abs(late[0]) or 1.0
    return min(late) - margin, max(late) + margin


def _paint_epochs(axes: Axes, curves: Sequence[Curve], quantity: str, limits: tuple[float, float] | None) -> None:
    paint_curves(axes, curves, "Epoch", quantity, limits)
    axes.locator_params(axis="x", integer=True)


def _scaled(cell: Cell | None, factor: float) -> Cell | None:
    if cell is None or not all(map(math.isfinite, cell.values)):
        return None
    return Cell(cell.seeds, tuple(value * factor for value in cell.values))


def _words(cell: Cell, digits: int) -> str:
    spread = "" if cell.std is None else f" ± {cell.std:.{digits}f}"
    return f"{cell.mean:.{digits}f}{spread} (n = {cell.n})"


def _paint_dots(axes: Axes, rows: Sequence[tuple[str, Cell | None]], quantity: str) -> None:
    for index, (_, cell) in enumerate(rows):
        if cell is None:
            continue
        style = look(index)
        if cell.std is not None:
            axes.plot(
                [cell.mean - cell.std, cell.mean + cell.std],
                [index, index],
                color=style.color,
                linewidth=2.2,
                alpha=0.75,
            )
        axes.plot([cell.mean], [index], color=INK, marker="|", markersize=13, markeredgewidth=1.8, linestyle="none")
        axes.plot(cell.values, [index] * cell.n, **_dot(style.color, style.marker))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    write(axes.xaxis.label, quantity)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_yticks(range(len(rows)), [shortened(name, 24) for name, _ in rows])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)


def _dot(color: str, marker: str) -> dict[str, Any]:
    return {
        "color": color,
        "marker": marker,
        "markersize": 5.5,
        "markeredgecolor": INK,
        "markeredgewidth": 0.4,
        "linestyle": "none",
        "alpha": 0.85,
    }
