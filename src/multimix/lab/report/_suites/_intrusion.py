"""How far from the clean embeddings mixed ones lie, by way of interpolation."""

from collections.abc import Sequence
from itertools import pairwise

from multimix.lab.report._lines import WIDTH, Curve, height, paint_curves
from multimix.lab.report._metrics import in_words
from multimix.lab.report._suites._data import Data, Drawn, bins, numbers, shares
from multimix.lab.report._svg import Figure, draw
from multimix.lab.report._text import counted


def distances(name: str, rows: Sequence[Drawn]) -> list[Figure]:
    """Draw the histogram of distances as a line for every way of interpolating, one figure a method."""
    looks = {
        way: index
        for index, way in enumerate(dict.fromkeys(way for row in rows for way in row.first if way != "edges"))
    }
    return [figure for row in rows for figure in _figure(row, looks)]


def _figure(row: Drawn, looks: dict[str, int]) -> list[Figure]:
    edges = bins(row.first)
    alike = [data for _, data in row.seeds if bins(data) == edges]
    ways = [key for key, values in row.first.items() if key != "edges" and _fits(values, edges)]
    middles = tuple((low + high) / 2 for low, high in pairwise(edges))
    curves = [
        Curve(in_words(way), looks[way], middles, tuple((part,) for part in _pooled(alike, way, len(middles))))
        for way in ways
    ]
    if not curves:
        return []
    listing = "; ".join(f"{one.name} {one.places[one.mean.index(max(one.mean))]:.3g}" for one in curves)
    alt = f"Histogram of distances to the nearest clean embedding, network of {row.name}. Most frequent: {listing}."
    several = f", {counted(len(alike), 'seed')} pooled" if len(alike) > 1 else ""
    caption = (
        f"{row.name}{several}: distance of interpolated embeddings to the nearest clean one, one line a way of "
        f"interpolating; own is the method's.{row.one_of if len(alike) < len(row.seeds) else ''}"
    )
    svg = draw(
        lambda axes: paint_curves(axes, curves, "Distance to the nearest clean embedding", "Share (%)"),
        size=(WIDTH, height([one.name for one in curves])),
        alt=alt,
    )
    return [Figure(svg, alt, caption)]


def _pooled(seeds: Sequence[Data], way: str, size: int) -> list[float]:
    parts = [shares(numbers(data, way, length=size)) for data in seeds if way in data]
    return [sum(column) / len(parts) for column in zip(*parts, strict=True)]


def _fits(values: object, edges: list[float]) -> bool:
    return isinstance(values, list) and len(values) == len(edges) - 1
