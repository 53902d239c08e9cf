"""Reliability diagrams: how often the network is right when it says how sure it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from multimix.lab.report._lines import WIDTH
from multimix.lab.report._suites._data import Data, Drawn, bins, numbers
from multimix.lab.report._svg import INK, Canvas, Figure, draw_panels, look
from multimix.lab.report._text import counted


@dataclass(frozen=True)
class _Bins:
    """Bins of confidence with the examples of all seeds in them; NaN in an empty one."""

    edges: list[float]
    confidence: list[float]
    accuracy: list[float]
    count: list[float]

    @property
    def ece(self) -> float:
        """The gap between confidence and accuracy, weighted by examples, in percent."""
        gaps = zip(self.confidence, self.accuracy, self.count, strict=True)
        total = math.fsum(self.count) or 1.0
        return math.fsum(abs(sure - right) * n for sure, right, n in gaps if n) / total


def reliability(name: str, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw accuracy beside confidence in every bin, and how many examples it holds, one figure a method."""
    scaled = name.endswith("_scaled")
    return [_figure(row, "after temperature scaling" if scaled else "as trained") for row in rows]


def _figure(row: Drawn, when: str) -> Figure:
    pooled = _pooled([data for _, data in row.seeds])
    listing = "; ".join(
        f"{sure:.0f} % sure, {right:.0f} % right"
        for sure, right, count in zip(pooled.confidence, pooled.accuracy, pooled.count, strict=True)
        if count
    )
    alt = f"Reliability diagram of {row.name}, {when}: accuracy by confidence. {listing or 'No examples'}."
    several = f", {counted(len(row.seeds), 'seed')} pooled" if len(row.seeds) > 1 else ""
    caption = (
        f"{row.name}, {when}{several}: a bar is as high as the accuracy of the examples in its bin of confidence; "
        f"hatched is its gap to their mean confidence, and on the dashed line there is none. Mean gap "
        f"{pooled.ece:.1f} %, bins weighted by their examples, whose shares stand below."
    )
    svg = draw_panels(lambda canvas: _paint(canvas, pooled, row.index), size=(WIDTH, 4.6), alt=alt)
    return Figure(svg, alt, caption)


def _pooled(seeds: Sequence[Data]) -> _Bins:
    edges = bins(seeds[0])
    alike = [data for data in seeds if bins(data) == edges]
    size = len(edges) - 1
    counts = [numbers(data, "count", length=size) for data in alike]
    total = [math.fsum(column) for column in zip(*counts, strict=True)]

    def weighted(key: str) -> list[float]:
        columns = zip(*(numbers(data, key, length=size) for data in alike), strict=True)
        weights = zip(*counts, strict=True)
        sums = [
            math.fsum(value * n for value, n in zip(column, weight, strict=True) if n and math.isfinite(value))
            for column, weight in zip(columns, weights, strict=True)
        ]
        return [100 * value / n if n else math.nan for value, n in zip(sums, total, strict=True)]

    return _Bins([100 * edge for edge in edges], weighted("confidence"), weighted("accuracy"), total)


def _paint(canvas: Canvas, pooled: _Bins, index: int) -> None:
    above, below = canvas.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]})
    color = look(index).color
    lefts = pooled.edges[:-1]
    widths = [high - low for low, high in zip(lefts, pooled.edges[1:], strict=True)]
    for left, width, sure, right, count in zip(
        lefts, widths, pooled.confidence, pooled.accuracy, pooled.count, strict=True
    ):
        if not count:
            continue
        box = {"width": width, "align": "edge", "linewidth": 0.8}
        above.bar(left, right, color=color, edgecolor=INK, alpha=0.65, **box)
        low, high = sorted((sure, right))
        above.bar(left, high - low, bottom=low, fill=False, edgecolor=INK, hatch="////", **box)
    above.plot([0, 100], [0, 100], color=INK, linestyle=(0, (5, 3)), linewidth=1.2)
    above.set_xlim(pooled.edges[0], pooled.edges[-1])
    above.set_ylim(0, 100)
    above.set_ylabel("Accuracy (%)")
    total = math.fsum(pooled.count) or 1.0
    below.bar(
        lefts, [100 * n / total for n in pooled.count], widths, align="edge", color=color, edgecolor=INK, linewidth=0.8
    )
    below.set_ylabel("Examples (%)")
    below.set_xlabel("Confidence (%)")
