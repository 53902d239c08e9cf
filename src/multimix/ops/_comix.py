"""Co-Mixup's choice of inputs for the cells of all outputs, by iterated modularisation.

It handles arrays of 16 numbers thousands of times, on which NumPy is several times as fast as torch, and in float64,
since penalties are far larger than the differences that decide.
"""

from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import TypedDict, Unpack

from multimix._optional import require

_BLEND_BONUS = 5e-4  # by which the official code prefers a blend of two inputs to one that is as good; decides ties
_LEAST_GAIN = 1e-9
_LONGEST = 4  # cells of the longest side of rectangles that move together, but for those from edge to edge
_MOVES_PER_CELL = 8  # a bound that is not met in practice; it ends the search where rounding would let it circle


class Turns(TypedDict, total=False):
    """How long the outputs choose, as :func:`comix_masks` explains."""

    iterations: int
    settle: bool


@torch.no_grad()
def comix_masks(
    costs: Float[Tensor, "b h w"],
    affinity: Float[Tensor, "b b"],
    start: Int[Tensor, "n h w"],
    *,
    beta: float,
    gamma: float,
    tau: float,
    **turns: Unpack[Turns],
) -> Float[Tensor, "n h w b"]:
    r"""Return masks that make Co-Mixup's objective small, every cell one input or an even blend of two.

    With r = h w cells, masks z and :math:`o_i` output i's number of cells of each input, the objective is

    .. math:: \sum_i \Big( \langle c, z_i \rangle + \frac{\beta}{2 r} \sum_{s \sim t} \|z_{is} - z_{it}\|^2
        + \frac{\gamma}{r} \langle o_i, \theta(A \textstyle\sum_{j \ne i} o_j) \rangle \Big)

    where theta leaves what exceeds tau r and makes the rest zero. The outputs take turns, each with what the others use
    as a cost of each input, which makes its problem a Potts model: it moves rectangles of cells to another input, the
    best one first, until none lowers its energy; from the second iteration on, also to a blend of two of the three
    inputs that it uses most. Before the last iteration, outputs that use the same inputs are pushed apart. The search
    ends early where a whole round changes nothing.

    Args:
        costs: What a cell of each of b inputs costs, c: its negative saliency and its prior.
        affinity: How much the inputs compete with one another, A.
        start: The input that each cell of each of n outputs has at first.
        beta: Weight of smoothness.
        gamma: Weight of the supermodular term.
        tau: Share of the grid from which on use by the other outputs is penalised.
        turns: ``iterations``, how many turns each output takes, 4 by default; ``settle``, whether outputs that use
            crowded inputs take further turns at last, False by default: the official code has no such step.

    Reference:
        Kim et al., "Co-Mixup: saliency guided joint mixup with supermodular diversity", ICLR 2021, and its code.
    """
    require("numpy", by="Co-Mixup's search")
    search = _Search(costs.cpu().double(), affinity.cpu().double(), start.cpu(), beta, gamma, tau)
    search.run(**turns)
    return torch.from_numpy(search.masks).reshape(*start.shape, len(costs)).to(costs)


class _Moves(NamedTuple):
    """The rectangles q of a grid with r cells and e edges, as arrays."""

    inside: Any
    """(q, r): which cells change."""
    outside: Any
    """(q, r): how many changing neighbours a cell has that stays."""
    touched: Any
    """(q, e): which edges have an end inside."""
    size: Any
    border: Any
    ends: Any
    """(2, e): the cells at both ends of every edge."""


@lru_cache(maxsize=16)
def _moves(height: int, width: int) -> _Moves:
    rows, columns = (_segments(side) for side in (height, width))
    inside = torch.einsum("ah,bw->abhw", rows, columns).reshape(-1, height * width)
    cell = torch.arange(height * width).reshape(height, width)
    down = torch.stack([cell[:-1].flatten(), cell[1:].flatten()])
    right = torch.stack([cell[:, :-1].flatten(), cell[:, 1:].flatten()])
    ends = torch.cat([down, right], 1)
    first, second = inside[:, ends[0]], inside[:, ends[1]]
    outside = torch.zeros_like(inside)
    outside.index_add_(1, ends[1], first * (1 - second)).index_add_(1, ends[0], second * (1 - first))
    arrays = (inside, outside, first.maximum(second), inside.sum(1), outside.sum(1), ends)
    return _Moves(*(array.numpy() for array in arrays))


def _segments(side: int) -> Tensor:
    """Return the runs of cells (segments, side) that a rectangle may take from a side."""
    first, last = torch.ones(side, side).triu().nonzero().T
    kept = (last - first < _LONGEST) | (last - first == side - 1)
    cells = torch.arange(side)
    return ((cells >= first[kept, None]) & (cells <= last[kept, None])).double()


class _Search:
    """The outputs of one part, and how they take turns."""

    def __init__(self, costs: Tensor, affinity: Tensor, start: Tensor, beta: float, gamma: float, tau: float) -> None:
        height, width = costs.shape[1:]
        self.r = height * width
        self.beta, self.gamma, self.most = beta / self.r, gamma / self.r, tau * self.r
        self.moves = _moves(height, width)
        self.weights = -self.beta * self.moves.outside
        self.costs = costs.flatten(1).T.contiguous().numpy()
        self.affinity = affinity.numpy()
        self.masks = torch.nn.functional.one_hot(start.flatten(1), len(costs)).double().numpy()
        self.used = self.masks.sum(1)
        self.total = self.used.sum(0)
        self.pushed = torch.zeros(self.used.shape, dtype=torch.float64).numpy()

    def run(self, iterations: int = 4, *, settle: bool = False) -> None:
        for iteration in range(iterations):
            if iteration and iteration == iterations - 1:
                self.push_apart()
            moved = [self.turn(i, blend=iteration > 0) for i in range(len(self.masks))]
            if not any(moved):
                break
        for _ in range(2 * len(self.masks) if settle else 0):  # the output that pays most chooses anew
            crowding = (self.used * self._crowded((self.total - self.used) @ self.affinity.T)).sum(1)
            worst = int(crowding.argmax())
            if not crowding[worst] > 0:
                break
            self.turn(worst, blend=True)

    def turn(self, i: int, *, blend: bool) -> bool:
        """Let output i choose anew, given what the others use; return whether it changed."""
        used = self.used[i]
        penalty = 2 * self._crowded(self.affinity @ (self.total - used)) + self.pushed[i]
        most_used = [k for k in (-used).argsort(kind="stable")[:3].tolist() if blend and used[k] > 0]
        pairs = list(combinations(most_used, 2))
        moved = self._descend(self.masks[i], self.costs + self.gamma * penalty, pairs)
        if moved:
            new = self.masks[i].sum(0)
            self.total += new - used
            self.used[i] = new
        return moved

    def push_apart(self) -> None:
        """Make two outputs that use the same several inputs give up a different one each."""
        uses = torch.from_numpy(self.used > 0)
        same = (uses[:, None] == uses).all(-1).triu(1) & (uses.sum(1) > 1)[:, None]
        for i, j in same.nonzero().tolist():
            chosen = uses[i].nonzero()[:2, 0].tolist()
            self.pushed[i, chosen[0]] = self.pushed[j, chosen[1]] = 1

    def _crowded(self, pressure: Any) -> Any:
        return pressure * (pressure > self.most)

    def _descend(self, z: Any, costs: Any, pairs: list[tuple[int, int]]) -> bool:
        """Move rectangles of z (r, b) in place, best first, until nothing is gained; return whether any moved."""
        spent = self.moves.inside @ costs
        for moved in range(_MOVES_PER_CELL * self.r):
            pure, blends = self._energies(z, costs, spent, pairs)
            best = int(pure.argmin())
            gain = pure.flat[best]
            chosen = int(blends.argmin()) if pairs else 0
            if pairs and blends.flat[chosen] < min(gain, -_LEAST_GAIN):
                rectangle, label = divmod(chosen, len(pairs))
                inputs: tuple[int, ...] = pairs[label]
            elif gain < -_LEAST_GAIN:
                rectangle, label = divmod(best, pure.shape[1])
                inputs = (label,)
            else:
                return moved > 0
            cells = self.moves.inside[rectangle] > 0
            z[cells] = 0
            for k in inputs:
                z[cells, k] = 1 / len(inputs)
        return True

    def _energies(self, z: Any, costs: Any, spent: Any, pairs: list[tuple[int, int]]) -> tuple[Any, Any]:
        """Return by how much the energy changes if a rectangle becomes an input (q, b), or a blend (q, pairs).

        Linear in the new value v are the costs and the last term of |u - v|^2 = |u|^2 + |v|^2 - 2 u.v.
        """
        moves = self.moves
        linear = self.weights @ z
        linear += spent
        norms = (z * z).sum(1)
        jumps = z[moves.ends[0]] - z[moves.ends[1]]
        before = moves.inside @ ((costs * z).sum(1) - _BLEND_BONUS * (norms < 0.75))
        before += self.beta / 2 * (moves.touched @ (jumps * jumps).sum(1) - moves.outside @ norms)
        pure = linear + (self.beta / 2 * moves.border - before)[:, None]
        if not pairs:
            return pure, pure
        blends = (linear[:, [a for a, _ in pairs]] + linear[:, [b for _, b in pairs]]) / 2
        blends += (self.beta / 4 * moves.border - before - _BLEND_BONUS * moves.size)[:, None]
        return pure, blends
