"""Constants from measurements."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from scipy.optimize import nnls

from multimix.plan.measure import Timed
from multimix.plan.rates import KNOTS, features
from multimix.plan.work import Work

_SMOOTH = 0.02
"""How much a jump between a constant and its neighbours counts, against a relative error of a case."""


def summed(works: Iterable[Work]) -> dict[str, float]:
    """Return what the time of all work is linear in."""
    found: dict[str, float] = {}
    for work in works:
        for name, amount in features(work).items():
            found[name] = found.get(name, 0.0) + amount
    return found


def fit(cases: list[Timed], *, heavy: frozenset[str] = frozenset(), weight: float = 3.0) -> dict[str, float]:
    """Return the constants, none negative, with the least squares of relative errors.

    Args:
        cases: What was measured.
        heavy: Names of cases that count ``weight`` times.
        weight: How often.

    Raises:
        ValueError: If there are no cases.
    """
    if not cases:
        raise ValueError("cases must hold at least one measurement, got none")
    rows = [summed(one.case.works) for one in cases]
    names = sorted({name for row in rows for name in row})
    matrix = np.array(
        [[row.get(name, 0.0) / one.seconds for name in names] for row, one in zip(rows, cases, strict=True)]
    )
    counts = np.array([weight if one.case.name in heavy else 1.0 for one in cases])
    # A constant near the inverse of its column's largest entry would explain a case alone: the scale of what to expect.
    scale = 1 / matrix.max(0)
    smooth = _smooth(names)
    system = np.concatenate([matrix * scale * counts[:, None], _SMOOTH * smooth * scale / _typical(smooth, scale)])
    solution, _ = nnls(system, np.concatenate([counts, np.zeros(len(smooth))]))
    return {name: float(value) for name, value in zip(names, solution * scale, strict=True)}


def _smooth(names: list[str]) -> np.ndarray:
    """Return a row for each two neighbouring knots of a kind, whose constants should not lie far apart."""
    rows = []
    for kind, knots in KNOTS.items():
        for low, high in pairwise(knots):
            pair = (f"{kind}@{low}", f"{kind}@{high}")
            if set(pair) <= set(names):
                rows.append([(name == pair[0]) - (name == pair[1]) for name in names])
    return np.array(rows, dtype=float).reshape(-1, len(names))


def _typical(smooth: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the smaller of the scales of the two constants of each row."""
    return np.where(smooth != 0, scale, np.inf).min(1, keepdims=True)
