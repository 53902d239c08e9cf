"""Heat maps of accuracy by corruption and severity, with the numbers written in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from multimix.lab.report._lines import WIDTH
from multimix.lab.report._metrics import capital, in_words
from multimix.lab.report._suites._data import Data, Drawn, mean, numbers, words
from multimix.lab.report._svg import Axes, Figure, draw
from multimix.lab.report._text import counted, shortened


@dataclass(frozen=True)
class _Map:
    """One method's accuracies in percent, mean over seeds."""

    row: Drawn
    corruptions: list[str]
    severities: list[str]
    cells: list[list[float]]
    clean: float


def heat_maps(name: str, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw accuracy by corruption and severity, one figure a method, all with the same shades."""
    maps = [_map(row) for row in rows]
    values = [value for one in maps for line in one.cells for value in line if math.isfinite(value)]
    if not values:
        return []
    limits = (10 * math.floor(min(values) / 10), max(10 * math.ceil(max(values) / 10), 10))
    return [_figure(one, limits) for one in maps]


def _figure(one: _Map, limits: tuple[float, float]) -> Figure:
    by_severity = [mean([line[place] for line in one.cells]) for place in range(len(one.severities))]
    steps = "; ".join(f"severity {grade} {value:.1f}" for grade, value in zip(one.severities, by_severity, strict=True))
    worst = min(range(len(one.corruptions)), key=lambda place: _last(mean(one.cells[place])))
    alt = (
        f"Heat map of {one.row.name}: accuracy (%) by corruption and severity. Mean over corruptions: {steps}. "
        f"Hardest: {one.corruptions[worst]} {mean(one.cells[worst]):.1f}."
    )
    several = f", mean of {counted(len(one.row.seeds), 'seed')}" if len(one.row.seeds) > 1 else ""
    undisturbed = f" Without corruption {one.clean:.1f} %." if math.isfinite(one.clean) else ""
    caption = f"{one.row.name}: accuracy (%) by corruption and severity{several}; the darker, the lower.{undisturbed}"
    size = (WIDTH, 0.75 + 0.29 * len(one.corruptions))
    return Figure(draw(lambda axes: _paint(axes, one, limits), size=size, alt=alt), alt, caption)


def _map(row: Drawn) -> _Map:
    kinds, grades = words(row.first, "corruptions"), words(row.first, "severities")
    alike = [
        _cells(data, len(kinds), len(grades))
        for _, data in row.seeds
        if (words(data, "corruptions"), words(data, "severities")) == (kinds, grades)
    ]
    cells = [
        [100 * mean([seed[line][place] for seed in alike]) for place in range(len(grades))]
        for line in range(len(kinds))
    ]
    clean = [data["clean"] for _, data in row.seeds if isinstance(data.get("clean"), float)]
    return _Map(row, [capital(in_words(kind)) for kind in kinds], grades, cells, 100 * mean(clean))


def _cells(data: Data, kinds: int, grades: int) -> list[list[float]]:
    lines = data.get("accuracy")
    if not isinstance(lines, list) or len(lines) != kinds:
        raise ValueError(f"accuracy: expected {kinds} lists of numbers, got {lines!r:.60}")
    return [numbers({"accuracy": line}, "accuracy", length=grades) for line in lines]


def _last(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _paint(axes: Axes, one: _Map, limits: tuple[float, float]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    norm, shades = Normalize(*limits), colormaps["cividis"]
    axes.pcolormesh(one.cells, cmap=shades, norm=norm, edgecolors="none")
    for line, values in enumerate(one.cells):
        for place, value in enumerate(values):
            if math.isfinite(value):
                # Of the shade's own contrast, not the page's ink: the shades are the same in the dark.
                ink = "#000000" if _luminance(shades(norm(value))) > 0.2 else "#ffffff"
                axes.text(place + 0.5, line + 0.5, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=10.5)
    axes.set_xticks([place + 0.5 for place in range(len(one.severities))], one.severities)
    axes.set_yticks([place + 0.5 for place in range(len(one.corruptions))], [shortened(k, 22) for k in one.corruptions])
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.set_xlabel("Severity")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _luminance(color: tuple[float, ...]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
