"""Pictures of the embeddings: every test image a point, its class told by marker and colour."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from multimix.lab.report._lines import WIDTH, add_legend
from multimix.lab.report._suites._data import Drawn, numbers, words
from multimix.lab.report._svg import INK, PAPER, Axes, Figure, draw
from multimix.lab.report._text import counted, listed, shortened

_MOST = 1500  # points a picture: more make the page heavy and the picture a stain
_NAMED = 10  # classes that a legend can tell apart
_METHODS = {"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}
# Ten of each, so that classes differ by marker alone; filled and open in turn, the likest shapes far apart.
_MARKERS = ("o", "x", "^", "s", "+", "v", "D", "*", "1", "P")
_COLORS = (
    "#3b7dd8", "#d9771e", "#2e9e6b", "#c8435a", "#8b6fd6", "#94733f", "#1b98aa", "#7a8594", "#b3589a", "#6f8f1f"
)  # fmt: skip


@dataclass(frozen=True)
class _Points:
    x: list[float]
    y: list[float]
    label: list[int]
    classes: list[str]

    def of(self, label: int) -> tuple[list[float], list[float]]:
        """Return the places of one class's points."""
        chosen = [place for place, own in enumerate(self.label) if own == label]
        return [self.x[place] for place in chosen], [self.y[place] for place in chosen]


def pictures(name: str, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw the embeddings of every method's lowest seed in the plane."""
    return [_figure(row) for row in rows]


def _figure(row: Drawn) -> Figure:
    points, whole = _points(row)
    present = sorted(set(points.label))
    way = row.first.get("method")
    method = _METHODS.get(str(way), "a plane")
    named = len(points.classes) <= _NAMED
    names = f": {listed(points.classes)}" if named and points.classes else ""
    alt = (
        f"Scatter plot of {row.name}'s embeddings in the plane ({method}): {counted(len(points.x), 'image')} of "
        f"{counted(len(present), 'class').replace('classs', 'classes')}{names}."
    )
    telling = "names stand at the middle of their class" if named else "classes share markers and colours"
    fewer = f" {len(points.x)} of {whole} points are drawn." if len(points.x) < whole else ""
    caption = (
        f"{row.name}: embeddings of test images in the plane ({method}); {telling}. How far groups lie apart and how "
        f"large they are means little.{fewer}{row.one_of}"
    )
    size = (WIDTH, 4.1 + (0.24 * -(-len(points.classes) // _columns(points.classes)) if named else 0))
    return Figure(draw(lambda axes: _paint(axes, points, named=named), size=size, alt=alt), alt, caption)


def _points(row: Drawn) -> tuple[_Points, int]:
    x = numbers(row.first, "x")
    y, label = (numbers(row.first, key, length=len(x)) for key in ("y", "label"))
    classes = words(row.first, "classes") if "classes" in row.first else []
    if any(not own.is_integer() or own < 0 for own in label):
        raise ValueError(f"label: expected numbers of classes, got {label!r:.60}")
    step = -(-len(x) // _MOST) or 1
    return _Points(x[::step], y[::step], [int(own) for own in label[::step]], classes), len(x)


def _paint(axes: Axes, points: _Points, *, named: bool) -> None:
    handles, names = [], []
    for label in sorted(set(points.label)):
        marker, color = _MARKERS[label % len(_MARKERS)], _COLORS[label % len(_COLORS)]
        x, y = points.of(label)
        handles += axes.plot(
            x, y, linestyle="none", marker=marker, color=color, markersize=3.6, markeredgewidth=0.9, alpha=0.8
        )
        names.append(points.classes[label] if label < len(points.classes) else str(label))
    if named:
        for label, name in zip(sorted(set(points.label)), names, strict=True):
            _sign(axes, points.of(label), shortened(name, 10))
        add_legend(axes, handles, names, _columns(names))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _columns(names: Sequence[str]) -> int:
    """Return in how many columns a legend of names has room."""
    return max(1, min(5, 44 // (max(map(len, names), default=1) + 7)))


def _sign(axes: Axes, places: tuple[list[float], list[float]], name: str) -> None:
    """Write a class's name at the middle of its points, on a ground that follows the page's."""
    x, y = (statistics.median(values) for values in places)
    ground = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": INK, "linewidth": 0.6, "alpha": 0.85}
    axes.text(x, y, name, ha="center", va="center", color=INK, fontsize=10.5, parse_math=False, bbox=ground)
