"""What suites left for their figures, read with care: it may be of another version, or damaged."""

import math
from typing import Any

import numpy as np

from multimix.lab.report._figures import Drawn
from multimix.lab.report._words import clean

Data = dict[str, Any]


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


def counts(data: Data, key: str, size: int) -> np.ndarray:
    """Return numbers that say how often each of so many things occurs."""
    found = numbers(data, key, size)
    if not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(f"{key}: expected numbers of at least 0, got {found.tolist()!r:.60}")
    return found


def class_numbers(data: Data, key: str, *shape: int, below: float = math.inf) -> np.ndarray:
    """Return numbers of classes."""
    found = numbers(data, key, *shape)
    if not all(own.is_integer() and 0 <= own < below for own in found.tolist()):
        raise ValueError(f"{key}: expected numbers of classes, got {found.tolist()!r:.60}")
    return found.astype(int)


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


def alike(row: Drawn) -> tuple[np.ndarray, list[Data]]:
    """Return the edges of bins of the lowest seed, and the data of all that have the same."""
    edges = bins(row.data[0])
    return edges, [data for data in row.data if np.array_equal(bins(data), edges)]


def shares(counts: np.ndarray) -> np.ndarray:
    """Return counts as shares of their sum in percent."""
    return 100 * counts / (counts.sum() or 1.0)


def mean(values: Any, axis: int | None = None) -> Any:
    """Return the mean of what is finite; NaN where nothing is."""
    return np.ma.filled(np.ma.masked_invalid(np.asarray(values, dtype=float)).mean(axis), np.nan)[()]
