"""Figures of classes: how right each is, which is taken for which, and the mistakes as pictures."""

import base64
import binascii
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from multimix.lab.about.kinds import Gallery, PerClass
from multimix.lab.report._data import Data, class_numbers, counts, mean, numbers, texts
from multimix.lab.report._figures import (
    COLORS,
    INK,
    Axes,
    Drawn,
    Figure,
    Shot,
    Shots,
    add_legend,
    draw,
    legend_lines,
    look,
    name_lines,
)
from multimix.lab.report._runs import png_size
from multimix.lab.report._words import counted, listed, shortened, spanned

Pairs = Counter[tuple[int, int]]

_MOST_LINES = 15  # classes, or pairs of them, that one figure shows
_LARGEST = 100  # classes of a matrix; of more, the most frequent pairs are shown
_WRITTEN, _NAMED = 15, 30  # up to how many classes counts stand in the matrix, and names beside it
_SHADES = 8


def per_class(kind: PerClass, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw a share of every class, a mark a method; of many classes, the lowest."""
    classes, chosen = _alike(rows)
    if not chosen:
        return []
    k = len(classes)
    shares = np.array([100 * mean([numbers(data, kind.key, k) for data in same], axis=0) for _, same in chosen])
    means = mean(shares, axis=0)
    order = np.argsort(means, kind="stable")
    kept = order[:_MOST_LINES] if k > _MOST_LINES else np.arange(k)
    lines = [(row, values[kept]) for (row, _), values in zip(chosen, shares, strict=True)]
    lowest = [f"{classes[at]} {means[at]:.1f}" for at in order[:5] if math.isfinite(means[at])]
    seeds = {len(same) for _, same in chosen}
    several = f", mean of {spanned(seeds)} seeds" if max(seeds) > 1 else ""
    sizes = [count for _, same in chosen for data in same if "count" in data for count in counts(data, "count", k)]
    images = f" A class has {spanned(map(int, sizes))} test images." if sizes else ""
    fewer = f" The {len(kept)} lowest of {k} classes." if len(kept) < k else ""
    return [
        _marks(
            lines,
            [shortened(classes[at], 24) for at in kept],
            f"{kind.title} (%)",
            alt=f"Dot plot: {kind.title} of every class, one mark a method. Lowest: {'; '.join(lowest)}.",
            caption=f"{kind.title} by class{several}.{fewer}{images} {kind.note}".rstrip(),
        )
    ]


def _alike(rows: Sequence[Drawn]) -> tuple[list[str], list[tuple[Drawn, list[Data]]]]:
    """Return the classes, and each row that has them with the data of its seeds that do."""
    classes = texts(rows[0].data[0], "classes")
    found = [(row, [data for data in row.data if texts(data, "classes") == classes]) for row in rows]
    return classes, [(row, same) for row, same in found if same]


def _marks(
    lines: Sequence[tuple[Drawn, np.ndarray]], names: Sequence[str], quantity: str, *, alt: str, caption: str
) -> Figure:
    """Draw a mark a method on a line a name, methods side by side so that none hides another."""
    methods = [row.name for row, _ in lines]

    def paint(axes: Axes) -> None:
        handles = []
        for at, (row, values) in enumerate(lines):
            style = {**look(row.index), "linestyle": "none", "markersize": 5.5, "alpha": 0.85}
            places = np.arange(len(names)) + 0.6 * ((at + 0.5) / len(lines) - 0.5)
            handles += axes.plot(values, places, markeredgecolor=INK, markeredgewidth=0.4, **style)
        name_lines(axes, names, quantity, letters=41)
        if len(lines) > 1:
            add_legend(axes, handles, methods)

    height = 0.8 + max(0.27, 0.06 * len(lines)) * len(names) + 0.22 * legend_lines(methods) * (len(lines) > 1)
    return draw(paint, height=height, alt=alt, caption=caption)


def confusions(rows: Sequence[Drawn]) -> list[Figure]:
    """Draw which class is taken for which: a matrix a method or, of very many classes, the most frequent pairs."""
    classes, chosen = _alike(rows)
    found = [(row, len(same), _summed(same, len(classes))) for row, same in chosen]
    if len(classes) <= _LARGEST:
        return [_matrix(row, classes, pairs, row.pooled(seeds)) for row, seeds, pairs in found]
    whole = sum((pairs for _, _, pairs in found), Counter())
    most = [pair for pair, _ in _mistaken(whole)[:_MOST_LINES]]
    if not most:
        return []
    names = [f"{shortened(classes[taken], 18)} for {shortened(classes[true], 18)}" for true, taken in most]
    # What is not among the most frequent mistakes of any seed is not known, and no 0.
    lines = [(row, np.array([pairs.get(pair, math.nan) / seeds for pair in most])) for row, seeds, pairs in found]
    return [
        _marks(
            lines,
            names,
            "Images",
            alt=f"Dot plot: how often one class is taken for another, one mark a method. Most often: {names[0]}.",
            caption=f"The {counted(len(most), 'most frequent mistake')} of {len(classes)} classes, images a seed: the "
            "predicted class for the true one. What is not among the most frequent mistakes of a seed does not count.",
        )
    ]


def _summed(same: Sequence[Data], k: int) -> Pairs:
    """Return how many images of a true class are predicted as which, over seeds."""
    total: Pairs = Counter()
    for data in same:
        size = len(numbers(data, "count"))
        ends = [class_numbers(data, key, size, below=k).tolist() for key in ("true", "predicted")]
        for true, predicted, count in zip(*ends, counts(data, "count", size).tolist(), strict=True):
            total[true, predicted] += int(count)
    return total


def _mistaken(pairs: Pairs) -> list[tuple[tuple[int, int], int]]:
    """Return the pairs of different classes and their counts, the most frequent first."""
    return [(pair, count) for pair, count in pairs.most_common() if pair[0] != pair[1] and count]


def _matrix(row: Drawn, classes: Sequence[str], pairs: Pairs, pooled: str) -> Figure:
    k = len(classes)
    cells = np.zeros((k, k))
    for pair, count in pairs.items():
        cells[pair] = count
    wrong = _mistaken(pairs)
    said = [f"{classes[true]} is taken for {classes[taken]} ({count})" for (true, taken), count in wrong[:3]]
    most = f"Most often, {listed(said)}." if said else "No image is taken for another class."
    written = ", and numbers are images" if k <= _WRITTEN else ""
    return draw(
        lambda axes: _paint_matrix(axes, cells, classes),
        height=4.2 if k <= _WRITTEN else 4.8,
        alt=f"Confusion matrix of {row.name}: {np.trace(cells):.0f} of {cells.sum():.0f} images right. {most}",
        caption=f"{row.name}{pooled}: the true class of test images (lines) and what it is taken for (columns). The "
        f"stronger the shade, the larger the share of the line{written}. {most}",
    )


def _paint_matrix(axes: Axes, cells: np.ndarray, classes: Sequence[str]) -> None:
    """Paint a path a shade, which stays light; shades go with the root, or mistakes would be invisible."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    k = len(cells)
    levels = np.ceil(_SHADES * np.sqrt(cells / np.maximum(cells.sum(1, keepdims=True), 1)))
    corners, codes = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    for color, side in zip(COLORS, (np.eye(k, dtype=bool), ~np.eye(k, dtype=bool)), strict=False):
        for level in range(1, _SHADES + 1):
            if len(places := np.argwhere(side & (levels == level))):
                outline = (places[:, None, ::-1] + np.array(corners)).reshape(-1, 2)
                path = Path(outline, codes * len(places))
                axes.add_patch(PathPatch(path, facecolor=color, alpha=0.75 * level / _SHADES, linewidth=0))
    if k <= _WRITTEN:
        for y, x in np.argwhere(cells > 0):
            axes.text(x + 0.5, y + 0.5, f"{cells[y, x]:.0f}", ha="center", va="center", color=INK, fontsize=9)
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.set(xlim=(0, k), ylim=(k, 0), xlabel="Predicted class", ylabel="True class", xticks=[], yticks=[])
    axes.tick_params(length=0)
    if k <= _NAMED:
        names = [shortened(name, 16) for name in classes]
        middles, upright, size = np.arange(k) + 0.5, max(map(len, names)) > 30 / k, min(11.5, 190 / k)
        axes.set_yticks(middles, names, fontsize=size)
        axes.set_xticks(middles, names, fontsize=size, rotation=90 if upright else 0)


def galleries(kind: Gallery, rows: Sequence[Drawn]) -> list[Shots]:
    """Show the pictures of each method's lowest seed."""
    found = []
    for row in rows:
        data = row.data[0]
        names, true, predicted = (texts(data, key) for key in ("names", "true", "predicted"))
        given = zip(data["pictures"], names, true, predicted, numbers(data, "probability"), strict=True)
        shots = tuple(_shot(*one) for one in given)
        caption = f"{row.name}: {kind.title}, of the highest probability first.{row.one_of}"
        found.append(Shots(shots, caption))
    return found


def _shot(picture: Any, name: str, true: str, predicted: str, probability: float) -> Shot:
    try:
        content = base64.b64decode(picture, validate=True)
    except (TypeError, binascii.Error):
        content = b""
    if not (size := png_size(content)):
        raise ValueError(f"pictures: expected PNG pictures in base64, got {picture!r:.40}")
    words = f"{true} taken for {predicted}, {100 * probability:.1f}\N{NO-BREAK SPACE}%"
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Shot(source, *size, alt=f"{name}: {words}", words=words, name=name)
