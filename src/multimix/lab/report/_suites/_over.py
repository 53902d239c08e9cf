"""Accuracy over something that grows: the radius of an attack, the share that is hidden, a threshold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from multimix.lab.report._lines import WIDTH, Curve, curve, height, paint_curves, seeds
from multimix.lab.report._metrics import in_words, metric
from multimix.lab.report._suites._data import Data, Drawn, numbers
from multimix.lab.report._svg import Axes, Figure, draw

_LEVELS = 255.0  # of a pixel, which radii are counted in


@dataclass(frozen=True)
class _Over:
    """What stands below, and how it is worded."""

    key: str
    axis: str
    title: str
    factor: float = 1.0


def epsilon_curve(name: str, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw accuracy over the radius of the attack."""
    norms = {_text(data, "norm") for row in rows for _, data in row.seeds}
    attacks = {_text(data, "attack") for row in rows for _, data in row.seeds}
    norm = in_words(norms.pop()) if len(norms) == 1 else ""
    attack = in_words(attacks.pop()) if len(attacks) == 1 else "the attack"
    small = norm == "l-inf" and max((max(numbers(row.first, "epsilon"), default=1) for row in rows), default=1) <= 1
    radius = f"Radius of the {norm} ball".replace("  ", " ")
    over = _Over(
        "epsilon",
        f"{radius} (1/255)" if small else radius,
        f"Accuracy under {attack or 'the attack'} over the {radius.lower()}",
        _LEVELS if small else 1.0,
    )
    return _figure(rows, over)


def occlusion_curve(name: str, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw accuracy over the share of the image that is hidden."""
    title = "Accuracy over the share of the image that is hidden"
    return _figure(rows, _Over("fraction", "Hidden share of the image (%)", title, 100.0))


def localisation_curve(name: str, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw localisation accuracy over the threshold of the attention map."""
    title = "Localisation accuracy over the threshold at which the attention map is cut"
    return _figure(rows, _Over("threshold", "Threshold", title))


def _figure(rows: Sequence[Drawn], over: _Over) -> list[Figure]:
    curves = [curve(row.name, row.index, [_series(data, over) for _, data in row.seeds]) for row in rows]
    found = [one for one in curves if one]
    if not found:
        return []
    shown = metric("accuracy")
    places = f"{over.axis} from {_number(found[0].places[0])} to {_number(found[0].places[-1])}"
    ends = "; ".join(f"{one.name} {one.mean[0]:.1f} to {one.mean[-1]:.1f}" for one in found)
    alt = f"Line chart: {over.title}, one line a method. {places}: {ends}."
    size = (WIDTH, height([one.name for one in found]))
    svg = draw(lambda axes: _paint(axes, found, over, shown.quantity), size=size, alt=alt)
    return [Figure(svg, alt, f"{over.title}{seeds(found)}.{_examples(rows)}")]


def _paint(axes: Axes, curves: Sequence[Curve], over: _Over, quantity: str) -> None:
    paint_curves(axes, curves, over.axis, quantity)
    if over.factor == _LEVELS:
        axes.locator_params(axis="x", integer=True, steps=[1, 2, 4, 8, 10])


def _series(data: Data, over: _Over) -> dict[float, float]:
    places = numbers(data, over.key)
    values = numbers(data, "accuracy", length=len(places))
    return {round(place * over.factor, 9): 100 * value for place, value in zip(places, values, strict=True)}


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "?"


def _examples(rows: Sequence[Drawn]) -> str:
    counts = {data.get("examples") for row in rows for _, data in row.seeds}
    count = counts.pop() if len(counts) == 1 else None
    return f" Measured on {count} test images." if isinstance(count, int) else ""


def _text(data: Data, key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""
