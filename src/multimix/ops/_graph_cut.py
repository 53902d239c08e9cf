"""Labels of least energy on grids, by minimum cuts."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from multimix._optional import require

_UNITS = 2**30
"""What the capacities of a graph add up to at most, as whole numbers: half of what its flow may come to."""
_ROUNDS = 4
"""How often cells that need no cut are looked for; the first rounds find most of them."""


def solve_ordered_labels(
    unary: Float[Tensor, "b l h w"], vertical: Float[Tensor, "b y w"], horizontal: Float[Tensor, "b h x"]
) -> Int[Tensor, "b h w"]:
    r"""Return labels a in 0..l - 1, one a cell, that minimise an energy on each of b grids.

    .. math:: \sum_i u_i(a_i) + \sum_{(i, j)} w_{ij} (a_i - a_j)^2

    With unary costs that are convex in the label and weights that are not negative this energy is L-natural-convex:
    having the best labels in 0..k, the best in 0..k + 1 are each the same or one more. So l - 1 minimum cuts solve it,
    each for all grids at once. The result is exact up to capacities being whole numbers: a grid's energy is off by at
    most 1e-9 of all capacities for each cell and pair. The cuts take place on the CPU.

    Args:
        unary: Cost of each label at each cell, convex in the label.
        vertical: Weights (b, h - 1, w) of each cell and the one below it, not negative.
        horizontal: Weights (b, h, w - 1) of each cell and the one to its right, not negative.

    Raises:
        ImportError: If SciPy is not installed.
        ValueError: If the shapes do not fit, a value is not finite, a weight is negative or a unary cost not convex.

    Reference:
        Murota, "Discrete convex analysis", 2003, chapter 10; Kolmogorov and Zabih, "What energy functions can be
        minimized via graph cuts?", TPAMI 2004, for one cut.
    """
    _sparse()  # now, and not at the first grid that cannot do without
    device = unary.device
    unary, vertical, horizontal = (t.detach().cpu().double() for t in (unary, vertical, horizontal))
    _check(unary, vertical, horizontal)
    weights = _weights(vertical, horizontal)
    steps = unary.diff(dim=1)
    labels = torch.zeros_like(unary[:, 0])
    for k in range(steps.shape[1]):  # every label one more, or not
        cost = steps.gather(1, labels.long().unsqueeze(1))[:, 0]
        if k:  # before, all labels are 0
            cost = cost + _pull(labels, weights)
        labels += _solve(cost, weights)
    return labels.long().to(device)


def _solve(cost: Tensor, weights: Tensor) -> Tensor:
    """Return which cells to choose on each grid, at a cost for each and a weight for each pair of which one is chosen.

    Cells whose cost outweighs all their undecided neighbours need no cut; the others are cut in one graph.
    """
    chosen, free = torch.zeros_like(cost, dtype=torch.bool), torch.ones_like(cost, dtype=torch.bool)
    for _ in range(_ROUNDS):
        settled = free & (cost.abs() >= weights.sum(0))
        if not settled.any():
            break
        picked = settled & (cost < 0)
        chosen |= picked
        free &= ~settled
        # Of a settled neighbour is left the cost of differing from it, or its opposite.
        cost = cost + (weights * _neighbours(settled.to(cost.dtype) - 2 * picked.to(cost.dtype))).sum(0)
        weights = weights * _neighbours(free.to(cost.dtype))
    if free.any():
        chosen[free] = _cut(cost, weights, free)
    return chosen


def _cut(cost: Tensor, weights: Tensor, free: Tensor) -> Tensor:
    """Return which of the free cells lie on the source's side of a minimum cut of them all."""
    sparse = _sparse()
    maximum_flow, breadth_first_order = sparse.csgraph.maximum_flow, sparse.csgraph.breadth_first_order
    cells = free.flatten().nonzero()[:, 0]
    n = len(cells)
    source, sink = n, n + 1
    nodes = torch.arange(n, dtype=torch.int32)
    number = torch.zeros(free.numel(), dtype=torch.int32)
    number[cells] = nodes
    cost = cost.flatten()[cells]
    pays = cost < 0
    starts, ends, values = [nodes.where(~pays, source)], [nodes.where(pays, sink)], [cost.abs()]
    for weight, far in ((weights[0], free.shape[2]), (weights[2], 1)):  # each cell's pairs below and to the right
        weight = weight.flatten()
        at = cells[weight[cells] > 0]
        here, there = number[at], number[at + far]
        starts += [here, there]
        ends += [there, here]
        values += [weight[at]] * 2
    capacity = torch.cat(values)
    capacity = (capacity * (_UNITS / capacity.sum())).round().int()
    graph = sparse.csr_array(
        (capacity.numpy(), (torch.cat(starts).numpy(), torch.cat(ends).numpy())), shape=(n + 2, n + 2)
    )
    left = graph - maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    reached = torch.zeros(n + 2, dtype=torch.bool)
    reached[torch.from_numpy(breadth_first_order(left, source, return_predecessors=False)).long()] = True
    return reached[:n]


def _sparse() -> Any:
    return require("scipy.sparse", by="PuzzleMix's graph cut")


def _weights(vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Return the weight of each cell's pair with its neighbour below, above, right and left, 0 beyond the edge."""
    return torch.stack(
        [
            pad(vertical, (0, 0, 0, 1)),
            pad(vertical, (0, 0, 1, 0)),
            pad(horizontal, (0, 1)),
            pad(horizontal, (1, 0)),
        ]
    )


def _pull(labels: Tensor, weights: Tensor) -> Tensor:
    """Return what one label more costs each cell beside its neighbours, if they stay where they are."""
    return 2 * (weights * (labels - _neighbours(labels))).sum(0)


def _neighbours(values: Tensor) -> Tensor:
    """Return the value below, above, right and left of each cell (4, b, h, w), 0 beyond the edge."""
    wide = pad(values, (1, 1, 1, 1))
    return torch.stack([wide[:, 2:, 1:-1], wide[:, :-2, 1:-1], wide[:, 1:-1, 2:], wide[:, 1:-1, :-2]])


def _check(unary: Tensor, vertical: Tensor, horizontal: Tensor) -> None:
    b, labels, h, w = unary.shape
    for name, weights, shape in (("vertical", vertical, (b, h - 1, w)), ("horizontal", horizontal, (b, h, w - 1))):
        if weights.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} for unary {tuple(unary.shape)}, got {tuple(weights.shape)}"
            )
        if weights.numel() and not (weights.isfinite().all() and weights.amin() >= 0):
            raise ValueError(f"{name} must be finite and not negative, got {float(weights.amin()):.4g}")
    if not unary.isfinite().all():
        raise ValueError("unary must be finite, got NaN or infinity")
    if labels > 2:
        bend = float(unary.diff(n=2, dim=1).amin())
        if bend < -1e-9 * float(unary.abs().amax()):
            raise ValueError(f"unary must be convex in the label, got a second difference of {bend:.4g}")
