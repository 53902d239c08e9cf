"""Entropic optimal transport between uniform marginals, for many pairs at once."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from multimix.ops._checks import accurate, looks_are_free, no_autocast

_SHORTEST, _LONGEST = 4, 8
"""Iterations on one exponential of the potentials, and between two looks at a device that has to be waited for."""
_SAFE = 20.0
"""Most that a logarithm of a scaling may grow in a chunk: what underflowed before it is still nothing after it."""

_Change = Callable[[Tensor], bool]
_State = tuple[Tensor, Tensor, int, bool]
"""Both potentials over epsilon, iterations done, and whether they have come to rest."""


@torch.no_grad()
def sinkhorn(
    cost: Float[Tensor, "*pairs r s"], epsilon: float = 0.1, *, iterations: int = 100, tolerance: float = 0.0
) -> Float[Tensor, "*pairs r s"]:
    """Return the plans of least ``<plan, cost> - epsilon * entropy(plan)`` with uniform marginals, without gradient.

    Sinkhorn's iteration on the potentials, an iteration being one update of each side. Columns of a plan sum to 1 / s;
    its rows sum to 1 / r as far as the iteration has converged. It works on logarithms, or, where that is the same to
    rounding, on scalings of a plan that is exponentiated anew every few iterations, which takes a fifth of the time.

    Args:
        cost: Of moving from each of r positions to each of s, any number of pairs; half precision is worked on in
            float32.
        epsilon: Weight of the entropy, in units of the cost.
        iterations: Most of them.
        tolerance: Stop after the iteration in which the first potential, in units of the cost, changed by less, in
            absolute value, summed over its r positions and averaged over all pairs. So a plan depends a little on the
            pairs beside it. Looked at after every iteration on a CPU and every 4 to 8 elsewhere, where a look waits
            for the device. 0 never stops.

    Raises:
        ValueError: If ``epsilon`` or ``iterations`` is not positive, ``tolerance`` is negative or a side is empty.

    Reference:
        Cuturi, "Sinkhorn distances: lightspeed computation of optimal transport", NeurIPS 2013; stabilised by
        absorption as in Schmitzer, "Stabilized sparse scaling algorithms", SIAM J. Sci. Comput. 2019, section 3.1.
    """
    _check(cost, epsilon, iterations, tolerance)
    with no_autocast(cost.device.type):
        logs = accurate(cost).flatten(0, -3) if cost.ndim > 2 else accurate(cost)[None]
        logs = -logs / epsilon

        def rests(change: Tensor) -> bool:
            return tolerance > 0 and epsilon * float(torch.linalg.vector_norm(change, 1)) < tolerance * len(change)

        f, g = logs.new_zeros(logs.shape[:2]), logs.new_zeros(logs.shape[0], logs.shape[2])
        chunk = _SHORTEST
        f, g, done, rested = _in_logarithms(logs, f, g, 1, rests)
        while done < iterations and not rested:
            steps = min(chunk, iterations - done)
            state = _in_scalings(logs, f, g, steps, rests)
            chunk = _SHORTEST if state is None else min(2 * chunk, _LONGEST)  # the first potentials move furthest
            f, g, more, rested = state or _in_logarithms(logs, f, g, min(steps, _SHORTEST), rests)
            done += more
        return (logs + f.unsqueeze(2) + g.unsqueeze(1)).exp_().reshape(cost.shape)


def _in_logarithms(logs: Tensor, f: Tensor, g: Tensor, steps: int, rests: _Change) -> _State:
    """Iterate whatever the potentials are."""
    r, s = logs.shape[1:]
    often = looks_are_free(logs)
    for step in range(1, steps + 1):
        before = f
        f = -(logs + g.unsqueeze(1)).logsumexp(2) - math.log(r)
        g = -(logs + f.unsqueeze(2)).logsumexp(1) - math.log(s)
        if (often or step == steps) and rests(f - before):
            return f, g, step, True
    return f, g, steps, False


def _in_scalings(logs: Tensor, f: Tensor, g: Tensor, steps: int, rests: _Change) -> _State | None:
    """Iterate on factors of the present plan's rows and columns; None if they leave the range that float32 allows."""
    plan = logs + f.unsqueeze(2) + g.unsqueeze(1)
    least = math.log(torch.finfo(plan.dtype).tiny) + _SAFE  # products stay clear of subnormal numbers, which are slow
    plan = torch.threshold_(plan, least, -math.inf).exp_()
    r, s = plan.shape[1:]
    rows, columns = plan.new_ones(len(plan), r, 1), plan.new_ones(len(plan), s, 1)
    often, back = looks_are_free(plan), (s * plan.mT).contiguous()
    plan = plan.mul_(r)
    for step in range(1, steps + 1):
        before = rows
        rows = (plan @ columns).reciprocal_()
        columns = (back @ rows).reciprocal_()
        if (often or step == steps) and rests((rows / before).log_().squeeze(2)):
            return _absorbed(f, g, rows, columns, step, rested=True)
    return _absorbed(f, g, rows, columns, steps, rested=False)


def _absorbed(f: Tensor, g: Tensor, rows: Tensor, columns: Tensor, steps: int, *, rested: bool) -> _State | None:
    logs = torch.cat([rows, columns], 1).log_().squeeze(2)
    if not bool(logs.abs().amax() < _SAFE):  # NaN lands here too
        return None
    by_row, by_column = logs.split([rows.shape[1], columns.shape[1]], 1)
    return f + by_row, g + by_column, steps, rested


def _check(cost: Tensor, epsilon: float, iterations: int, tolerance: float) -> None:
    if cost.ndim < 2 or 0 in cost.shape:
        raise ValueError(f"cost must have shape (..., r, s), none of them 0, got {tuple(cost.shape)}")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon must be finite and greater than 0, got {epsilon}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if not tolerance >= 0:  # NaN lands here too
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
