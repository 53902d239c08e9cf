"""The data of figures, read with care: a suite of another version may have left something else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from multimix.lab.report._evaluations import Evaluation
from multimix.lab.report._text import clean

Data = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One row of a suite's table with what its seeds left for figures."""

    name: str
    """The row's name, clean."""
    index: int
    """Its place among the methods of the page, which is its look."""
    seeds: tuple[tuple[int, Evaluation], ...]
    """(Seed, figures), ascending."""


@dataclass(frozen=True)
class Drawn:
    """One row of a suite's table with one figure's data of each seed."""

    name: str
    index: int
    seeds: tuple[tuple[int, Data], ...]

    @property
    def first(self) -> Data:
        """The data of the lowest seed."""
        return self.seeds[0][1]

    @property
    def one_of(self) -> str:
        """Say in a caption which seed is shown, where there are several."""
        return f" Seed {self.seeds[0][0]} of {len(self.seeds)} seeds." if len(self.seeds) > 1 else ""


def of_figure(rows: Sequence[Measured], name: str) -> list[Drawn]:
    """Return what each row has of a figure; rows that have nothing are left out."""
    found = (
        Drawn(row.name, row.index, tuple((seed, one.figures[name]) for seed, one in row.seeds if name in one.figures))
        for row in rows
    )
    return [one for one in found if one.seeds]


def numbers(data: Data, key: str, *, length: int | None = None) -> list[float]:
    """Return a list of numbers; what is null is NaN.

    Raises:
        ValueError: There is none, or not of this length.
    """
    values = data.get(key)
    if not isinstance(values, list) or not all(_is_number(value) for value in values):
        raise ValueError(f"{key}: expected a list of numbers, got {values!r:.60}")
    if length is not None and len(values) != length:
        raise ValueError(f"{key}: expected {length} numbers, got {len(values)}")
    return [math.nan if value is None else float(value) for value in values]


def words(data: Data, key: str) -> list[str]:
    """Return a list of texts, clean.

    Raises:
        ValueError: There is none.
    """
    values = data.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str | int | float) for value in values):
        raise ValueError(f"{key}: expected a list of texts, got {values!r:.60}")
    return [clean(str(value)) for value in values]


def bins(data: Data, key: str = "edges") -> list[float]:
    """Return the edges of bins, ascending.

    Raises:
        ValueError: There are none.
    """
    edges = numbers(data, key)
    if len(edges) < 2 or not all(low < high for low, high in pairwise(edges)):
        raise ValueError(f"{key}: expected ascending edges of bins, got {edges!r:.60}")
    return edges


def shares(counts: Sequence[float]) -> list[float]:
    """Return counts as shares of their sum in percent."""
    total = math.fsum(counts)
    return [100 * count / total if total else 0.0 for count in counts]


def mean(values: Sequence[float]) -> float:
    """Return the mean of what is finite; NaN where nothing is."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
