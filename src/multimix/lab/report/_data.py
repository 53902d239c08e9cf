"""The data of figures, read with care: a suite of another version may have left something else."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from multimix.lab.report._words import clean

Data = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """One row of a suite's table with a figure's data by ascending seeds; its index gives the method's look."""

    name: str
    index: int
    seeds: list[tuple[int, Data]]

    @property
    def data(self) -> list[Data]:
        """The data of every seed."""
        return [data for _, data in self.seeds]

    @property
    def one_of(self) -> str:
        """Say in a caption that the lowest seed is shown, where there are several."""
        return f" Seed {self.seeds[0][0]} of {len(self.seeds)} seeds." if len(self.seeds) > 1 else ""


def numbers(data: Data, key: str, *shape: int) -> np.ndarray:
    """Return numbers; what is null is NaN. Without ``shape`` they are a list of any length."""
    value = data.get(key)
    try:
        found = np.array(value, dtype=float)
    except (TypeError, ValueError, OverflowError):
        value = str(value)
    if not isinstance(value, list):
        raise ValueError(f"{key}: expected a list of numbers, got {value!r:.60}")
    if found.ndim != max(len(shape), 1) or (shape and found.shape != shape):
        wanted, given = (" x ".join(map(str, sizes)) for sizes in (shape or ("n",), found.shape))
        raise ValueError(f"{key}: expected {wanted} numbers, got {given}")
    return found


def texts(data: Data, key: str) -> list[str]:
    """Return a list of texts, clean."""
    values = data.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str | int | float) for value in values):
        raise ValueError(f"{key}: expected a list of texts, got {values!r:.60}")
    return [clean(str(value)) for value in values]


def bins(data: Data) -> np.ndarray:
    """Return the edges of bins, ascending."""
    edges = numbers(data, "edges")
    if len(edges) < 2 or not (edges[:-1] < edges[1:]).all():
        raise ValueError(f"edges: expected ascending edges of bins, got {edges.tolist()!r:.60}")
    return edges


def alike(row: Drawn) -> list[Data]:
    """Return the data of the seeds that have the same bins as the lowest."""
    edges = bins(row.data[0])
    return [data for data in row.data if np.array_equal(bins(data), edges)]


def shares(counts: np.ndarray) -> np.ndarray:
    """Return counts as shares of their sum in percent."""
    return 100 * counts / (counts.sum() or 1.0)


def mean(values: Any, axis: int | None = None) -> Any:
    """Return the mean of what is finite; NaN where nothing is."""
    values = np.asarray(values, dtype=float)
    finite = np.isfinite(values)
    total, count = np.where(finite, values, 0.0).sum(axis), finite.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)[()]
