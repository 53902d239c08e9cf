"""Lines over something, one a method, with a band over seeds and a legend below."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multimix.lab.report._svg import Axes, look, write
from multimix.lab.report._text import shortened

WIDTH = 4.8
_LETTERS = 38  # what a line of the legend holds


@dataclass(frozen=True)
class Curve:
    """One method's values at the places that all of its seeds have."""

    name: str
    index: int
    places: tuple[float, ...]
    """Where, ascending."""
    values: tuple[tuple[float, ...], ...]
    """One value a seed at every place."""

    @property
    def mean(self) -> list[float]:
        """The mean over seeds at every place."""
        return [math.fsum(values) / len(values) for values in self.values]


def seeds(curves: Sequence[Curve]) -> str:
    """Return how many seeds the lines are means of, and what the band is."""
    counts = sorted({len(curve.values[0]) for curve in curves})
    if counts == [1]:
        return ", one seed"
    number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f": mean of {number} seeds; the band spans the lowest to the highest seed"


def curve(name: str, index: int, series: Sequence[Mapping[float, float]]) -> Curve | None:
    """Return one method's curve over the places that all seeds have; None where there are none.

    Args:
        name: The method's name, clean.
        index: Its place among the methods, which is its look.
        series: The values of every seed by place.
    """
    common = sorted(set.intersection(*(set(one) for one in series))) if series else []
    if not common:
        return None
    return Curve(name, index, tuple(common), tuple(tuple(one[place] for one in series) for place in common))


def _legend(names: Sequence[str]) -> tuple[list[str], int]:
    """Return the names as the legend has room for them, and in how many columns."""
    short = [shortened(name, _LETTERS) for name in names]
    half = math.ceil(len(short) / 2)
    left, right = (max(map(len, part), default=0) for part in (short[:half], short[half:]))
    return short, 2 if left + right <= _LETTERS else 1


def height(names: Sequence[str]) -> float:
    """Return the inches that lines with a legend of these names need."""
    return 3.2 + 0.22 * math.ceil(len(names) / _legend(names)[1])


def paint_curves(
    axes: Axes,
    curves: Sequence[Curve],
    across: str,
    quantity: str,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw every curve's mean with its band, told apart by more than colour.

    Args:
        axes: Where.
        curves: What.
        across: Words below.
        quantity: Words at the left.
        limits: Of the upright axis, where the values' own do not do.
    """
    lines = []
    for curve in curves:
        style = look(curve.index)
        if len(curve.values[0]) > 1:
            low, high = [min(values) for values in curve.values], [max(values) for values in curve.values]
            axes.fill_between(curve.places, low, high, color=style.color, alpha=0.1, linewidth=0)
        step = max(len(curve.places) // 6, 1)
        lines += axes.plot(
            curve.places,
            curve.mean,
            color=style.color,
            linestyle=style.dashes,
            marker=style.marker,
            markevery=(curve.index % step, step),
            markersize=4.5,
            linewidth=1.6,
        )
    write(axes.xaxis.label, across)
    write(axes.yaxis.label, quantity)
    if limits:
        axes.set_ylim(*limits)
    add_legend(axes, lines, [curve.name for curve in curves])


def add_legend(axes: Axes, handles: Sequence[Any], words: Sequence[str], columns: int | None = None) -> None:
    """Put a legend below, its words to the letter; by default in one column or two."""
    names, fitting = _legend(words)
    places = [f"place {index}" for index in range(len(handles))]
    legend = axes.figure.legend(
        handles, places, loc="outside lower center", ncols=columns or fitting, handlelength=3.2, columnspacing=1.4
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        write(text, name, _LETTERS)
