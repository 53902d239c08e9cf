"""Scores of test images and of another set's: histograms, and how well a threshold tells the two apart."""

import math
from collections.abc import Sequence

import numpy as np

from multimix.lab.evaluate.about.kinds import Scores
from multimix.lab.report._data import Data, Drawn, bins, mean, numbers, shares
from multimix.lab.report._drawing import COLORS, DASHED, INK, Axes, Figure, add_legend, draw, legend_height, look, write
from multimix.lab.report._summary import Comparison
from multimix.lab.report._words import capital, in_words, metric


def draw_scores(
    kind: Scores, name: str, rows: Sequence[Drawn], comparison: Comparison
) -> tuple[list[Figure], list[Figure]]:
    """Draw the ROC curve of every method for the best score on one set, and that score's histogram of each."""
    best = _best_score(kind, comparison)
    chosen = []
    for row in rows:
        scores = {score: data for score, data in row.data[0]["scores"].items() if isinstance(data, dict)}
        score = best if best in scores else next(iter(scores), None)
        if score is not None:
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
        handles = [
            handle
            for row, false, true in lines
            for handle in axes.plot(false, true, markevery=0.16, **look(row.index).line)
        ]
        axes.plot([0, 100], [0, 100], color=INK, linestyle=DASHED, linewidth=0.8)
        axes.set_xlim(-1, 101)
        axes.set_ylim(-1, 101)
        write(axes.xaxis.label, f"{capital(other)} that pass (%)")
        axes.set_ylabel("Test images that pass (%)")
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
    inside, outside = (shares(numbers(data, key, len(edges) - 1)) for key in ("in", "out"))

    def paint(axes: Axes) -> None:
        fill = {"facecolor": COLORS[0], "alpha": 0.45, "edgecolor": INK, "linewidth": 0.7}
        filled = axes.stairs(inside, edges, fill=True, **fill)
        line = axes.stairs(outside, edges, color=COLORS[1], linestyle=(0, (4, 1.5)), linewidth=1.8)
        write(axes.xaxis.label, capital(word))
        axes.set_ylabel("Share of images (%)")
        add_legend(axes, [filled, line], ["test images", other])

    return draw(
        paint,
        height=3.1,
        alt=f"Histogram of {word} of {row.name}: test images around {_median(edges, inside):.3g}, {other} around "
        f"{_median(edges, outside):.3g}; {np.minimum(inside, outside).sum():.0f} % of the areas in common.",
        caption=f"{row.name}: {word} of test images (filled) and of {other} (dashed); the less they overlap, the "
        f"better.{row.one_of}",
    )


def _median(edges: np.ndarray, parts: np.ndarray) -> float:
    """Return the middle of the bin that holds the median."""
    passed = np.flatnonzero(parts.cumsum() >= 50)
    return float(edges[passed[0] : passed[0] + 2].mean() if len(passed) else edges[-1])
