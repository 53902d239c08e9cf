"""Scores of known and unknown images: histograms, and how well a threshold tells them apart."""

import math
from collections.abc import Sequence
from typing import Any

from multimix.lab.report._lines import WIDTH, add_legend, height
from multimix.lab.report._metrics import capital, in_words, metric
from multimix.lab.report._suites._data import Data, Drawn, bins, mean, numbers, shares
from multimix.lab.report._summary import Comparison
from multimix.lab.report._svg import INK, Axes, Figure, draw, look, write


def best_score(comparison: Comparison) -> str | None:
    """Return the score with the highest AUROC, mean over sets and methods; None where there is none."""
    found: dict[str, list[float]] = {}
    for row in comparison.rows:
        for name, cell in row.cells.items():
            path = name.removeprefix(f"{comparison.suite}/").split("/")
            if len(path) > 2 and path[-1] == "auroc" and math.isfinite(cell.mean):
                found.setdefault(path[-2], []).append(cell.mean)
    return max(found, key=lambda score: mean(found[score]), default=None)


def roc(name: str, rows: Sequence[Drawn], score: str | None) -> list[Figure]:
    """Draw the receiver operating characteristic of every method for one score on one set."""
    chosen = [(row, one) for row in rows if (one := _score(row.first, score))]
    if not chosen:
        return []
    other, word = _set(name), in_words(_chosen(rows[0].first, score) or "")
    lines = []
    for row, data in chosen:
        false = numbers(data, "fpr")
        lines.append((row, false, numbers(data, "tpr", length=len(false))))
    names = [row.name for row, _ in chosen]
    chosen_by = ", which has the highest mean AUROC here" if score else ""
    listing = "; ".join(f"{row.name} {_at(false, true, 0.05):.0f} %" for row, false, true in lines)
    alt = (
        f"ROC curves for {other} by {word}, one line a method. Share of test images that pass where 5 % of {other} do: "
        f"{listing}."
    )
    caption = (
        f"{capital(other)}, score {word}{chosen_by}: share of test images that pass a threshold over the share of "
        f"{other} that pass it, too; the nearer to the upper left corner, the better, and the thin dashed line is "
        f"guessing.{chosen[0][0].one_of}"
    )
    svg = draw(lambda axes: _paint_roc(axes, lines, names, other), size=(WIDTH, height(names) + 0.5), alt=alt)
    return [Figure(svg, alt, caption)]


def histograms(name: str, rows: Sequence[Drawn], score: str | None) -> list[Figure]:
    """Draw the score of test images and of another set's, one figure a method."""
    return [figure for row in rows for figure in _histogram(name, row, score)]


def _histogram(name: str, row: Drawn, score: str | None) -> list[Figure]:
    data, chosen = _score(row.first, score), _chosen(row.first, score)
    if data is None or chosen is None:
        return []
    other, word, edges = _set(name), in_words(chosen), bins(data)
    inside, outside = (shares(numbers(data, key, length=len(edges) - 1)) for key in ("in", "out"))
    common = math.fsum(min(pair) for pair in zip(inside, outside, strict=True))
    alt = (
        f"Histogram of {word} of {row.name}: test images around {_middle(edges, inside):.3g}, {other} around "
        f"{_middle(edges, outside):.3g}; {common:.0f} % of the areas in common."
    )
    caption = (
        f"{row.name}: {word} of test images (filled) and of {other} (dashed); the less they overlap, the better."
        f"{row.one_of}"
    )
    svg = draw(
        lambda axes: _paint_histogram(axes, edges, (inside, outside), (word, other)),
        size=(WIDTH, 3.1),
        alt=alt,
    )
    return [Figure(svg, alt, caption)]


def _score(data: Data, score: str | None) -> Data | None:
    scores, chosen = data.get("scores"), _chosen(data, score)
    found = scores.get(chosen) if isinstance(scores, dict) else None
    return found if isinstance(found, dict) else None


def _chosen(data: Data, score: str | None) -> str | None:
    scores = data.get("scores")
    if not isinstance(scores, dict):
        return None
    return score if score in scores else next(iter(scores), None)


def _set(name: str) -> str:
    return in_words(name.removeprefix("ood/"))


def _at(false: list[float], true: list[float], limit: float) -> float:
    return 100 * max((right for wrong, right in zip(false, true, strict=True) if wrong <= limit), default=0.0)


def _middle(edges: list[float], parts: list[float]) -> float:
    """Return the middle of the bin that holds the median."""
    passed = 0.0
    for low, high, part in zip(edges, edges[1:], parts, strict=False):
        passed += part
        if passed >= 50:
            return (low + high) / 2
    return edges[-1]


def _paint_roc(axes: Axes, lines: Sequence[Any], names: Sequence[str], other: str) -> None:
    handles = []
    for row, false, true in lines:
        style = look(row.index)
        handles += axes.plot(
            [100 * value for value in false],
            [100 * value for value in true],
            color=style.color,
            linestyle=style.dashes,
            marker=style.marker,
            markevery=0.16,
            markersize=4.5,
            linewidth=1.6,
        )
    axes.plot([0, 100], [0, 100], color=INK, linestyle=(0, (5, 3)), linewidth=0.8)
    axes.set_xlim(-1, 101)
    axes.set_ylim(-1, 101)
    write(axes.xaxis.label, f"{capital(other)} that pass (%)")
    axes.set_ylabel("Test images that pass (%)")
    add_legend(axes, handles, names)


def _paint_histogram(axes: Axes, edges: list[float], parts: tuple[list[float], list[float]], names: Any) -> None:
    color, inked = look(0).color, look(1).color
    filled = axes.stairs(parts[0], edges, fill=True, facecolor=color, alpha=0.45, edgecolor=INK, linewidth=0.7)
    line = axes.stairs(parts[1], edges, color=inked, linestyle=(0, (4, 1.5)), linewidth=1.8)
    word, other = names
    write(axes.xaxis.label, capital(word))
    axes.set_ylabel(f"Share of images ({metric('accuracy').unit})")
    add_legend(axes, [filled, line], ["test images", other])
