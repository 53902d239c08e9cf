"""What PuzzleMix and Co-Mixup solve on grids of cells: who moves where, and minimum cuts and searches for masks.

Co-Mixup's search handles arrays of 16 numbers thousands of times, on which NumPy is several times as fast as torch, and
in float64, since penalties are far larger than the differences that decide.
"""

from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot, pad
from typing_extensions import TypedDict, Unpack

from multimix._optional import require
from multimix.ops._checks import NotNegative, check, check_shape

_UNITS = 2**30  # what the capacities of a graph add up to at most, as whole numbers: half of what its flow may come to
_ROUNDS = 4  # how often cells that need no cut are looked for; the first rounds find most of them
_AT_ONCE = 8  # how many places a block looks at before it asks
_USE = "PuzzleMix's graph cut"
_BLEND_BONUS = 5e-4  # by which the official code prefers a blend of two inputs to one that is as good; decides ties
_LEAST_GAIN = 1e-9
_LONGEST = 4  # cells of the longest side of rectangles that move together, but for those from edge to edge
_MOVES_PER_CELL = 8  # a bound that is not met in practice; it ends the search where rounding would let it circle


def solve_ordered_labels(
    unary: Float[Tensor, "b l h w"], vertical: Float[Tensor, "b y w"], horizontal: Float[Tensor, "b h x"]
) -> Int[Tensor, "b h w"]:
    r"""Return labels a in 0..l - 1, one a cell, that minimise an energy on each of b grids.

    .. math:: \sum_i u_i(a_i) + \sum_{(i, j)} w_{ij} (a_i - a_j)^2

    The best labels in 0..k + 1 are each the best one in 0..k or one more, so that l - 1 minimum cuts solve it, each for
    all grids at once, on the CPU; capacities are whole numbers, by which an energy is off by at most 1e-9 of them all
    for each cell and pair.

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
    require("scipy.sparse", by=_USE)  # now, and not at the first grid that cannot do without
    device = unary.device
    unary, vertical, horizontal = (t.detach().cpu().double() for t in (unary, vertical, horizontal))
    _check(unary, vertical, horizontal)
    below, above = pad(vertical, (0, 0, 0, 1)), pad(vertical, (0, 0, 1, 0))
    weights = torch.stack([below, above, pad(horizontal, (0, 1)), pad(horizontal, (1, 0))])  # as _neighbours has them
    steps = unary.diff(dim=1)
    labels = torch.zeros_like(unary[:, 0])
    for k in range(steps.shape[1]):  # every label one more, or not
        cost = steps.gather(1, labels.long().unsqueeze(1))[:, 0]
        if k:  # before, all labels are 0, and none costs anything beside its neighbours
            cost = cost + 2 * (weights * (labels - _neighbours(labels))).sum(0)
        labels += _solve(cost, weights)
    return labels.long().to(device)


def _solve(cost: Tensor, weights: Tensor) -> Tensor:
    """Return which cells to choose, at a cost for each and a weight for each pair of which one is chosen."""
    chosen, free = torch.zeros_like(cost, dtype=torch.bool), torch.ones_like(cost, dtype=torch.bool)
    for _ in range(_ROUNDS):
        settled = free & (cost.abs() >= weights.sum(0))  # whose cost outweighs all undecided neighbours
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
    sparse = require("scipy.sparse", by=_USE)
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
    left = graph - sparse.csgraph.maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    reached = sparse.csgraph.breadth_first_order(left, source, return_predecessors=False)
    return torch.zeros(n + 2, dtype=torch.bool).index_fill_(0, torch.from_numpy(reached).long(), True)[:n]


def _neighbours(values: Tensor) -> Tensor:
    """Return the value below, above, right and left of each cell (4, b, h, w), 0 beyond the edge."""
    wide = pad(values, (1, 1, 1, 1))
    return torch.stack([wide[:, 2:, 1:-1], wide[:, :-2, 1:-1], wide[:, 1:-1, 2:], wide[:, 1:-1, :-2]])


def _check(unary: Tensor, vertical: Tensor, horizontal: Tensor) -> None:
    b, labels, h, w = unary.shape
    for name, weights, shape in (("vertical", vertical, (b, h - 1, w)), ("horizontal", horizontal, (b, h, w - 1))):
        check_shape(name, weights, *shape)
        if weights.numel() and not (weights.isfinite().all() and weights.amin() >= 0):
            raise ValueError(f"{name} must be finite and not negative, got {float(weights.amin()):.4g}")
    if not unary.isfinite().all():
        raise ValueError("unary must be finite, got NaN or infinity")
    if labels > 2:
        bend = float(unary.diff(n=2, dim=1).amin())
        if bend < -1e-9 * float(unary.abs().amax()):
            raise ValueError(f"unary must be convex in the label, got a second difference of {bend:.4g}")


def transport_blocks(saliency: Float[Tensor, "b h w"], seen: Bool[Tensor, "b h w"], eps: float) -> Int[Tensor, "b h w"]:
    r"""Return for each place of a grid the row-major index of the block that goes there, so that salient ones are seen.

    Block i gains ``saliency[i] - eps * distance(i, j)^2`` at a place j that is seen, distances being in units of the
    longer side. A block that is seen asks for its own place, a hidden one for the nearest place that is seen; each
    place takes the block that gains most and turns the others away, who go on to the next nearest while they gain
    anything there. No block shows twice. Places that nobody asks for, and those not seen, keep their blocks. Of equal
    distances the upper, then the left place comes first; of equal gains who asked first, then the lower index.

    Args:
        saliency: Of each block, not negative.
        seen: Which places the mask shows.
        eps: Cost of a move across the longer side, squared.

    Raises:
        ValueError: If ``eps`` is negative or the shapes differ.

    Reference:
        Kim et al., "Puzzle Mix", ICML 2020, algorithm 1, run until nobody asks any more. Its outcome is that of taking
        the largest gain first, then the largest of what is left.
    """
    check(NotNegative, eps=eps)
    check_shape("seen", seen, *saliency.shape)
    b, h, w = saliency.shape
    value, shown = saliency.detach().to("cpu", torch.float32).flatten(), seen.to("cpu").flatten()
    price = eps / max(h - 1, w - 1, 1) ** 2
    steps = _steps(h, w, price, float(value.amax()))
    rank = torch.zeros_like(value, dtype=torch.long)  # how many places each block has been turned away from
    gain = torch.where(shown, value, 0.0)  # what the block that holds a place gains there
    holder = torch.arange(b * h * w)
    asking = (~shown & (value > price)).nonzero()[:, 0]
    rank[asking] = 1
    while len(asking):
        asking, target, offer = _ask(asking, rank, value, shown, steps, (h, w))
        best = (offer == gain.scatter_reduce(0, target, offer, "amax")[target]) & (offer > gain[target])
        lowest = torch.full_like(rank, len(rank)).scatter_reduce_(0, target[best], asking[best], "amin")
        taken = best & (lowest[target] == asking)
        place = target[taken]
        turned_away = torch.cat([asking[~taken], holder[place]])
        holder[place], gain[place] = asking[taken], offer[taken]
        rank[turned_away] += 1
        asking = turned_away
    own = torch.arange(b).view(-1, 1, 1) * (h * w)
    return (holder.view(b, h, w) - own).to(saliency.device)


def _steps(h: int, w: int, price: float, most: float) -> tuple[Tensor, Tensor]:
    """Return (down, right) of the moves that can pay, nearest first, (2, n), and what they cost, without end."""
    down, right = torch.meshgrid(torch.arange(1 - h, h), torch.arange(1 - w, w), indexing="ij")
    length, order = (down.square() + right.square()).flatten().sort(stable=True)
    cost = price * length.float()
    order, cost = order[cost <= most], cost[cost <= most]
    moves = torch.stack([down.flatten()[order], right.flatten()[order]])
    return pad(moves, (0, _AT_ONCE)), pad(cost, (0, _AT_ONCE), value=torch.inf)


def _ask(
    asking: Tensor, rank: Tensor, value: Tensor, shown: Tensor, steps: tuple[Tensor, Tensor], grid: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return who gains something at the next place that is seen, which place that is, and the gain."""
    (h, w), (moves, cost), ahead = grid, steps, torch.arange(_AT_ONCE)
    heard: list[tuple[Tensor, Tensor, Tensor]] = []
    while True:
        ranks = rank[asking].unsqueeze(1) + ahead
        (down, right), offer = moves[:, ranks], value[asking].unsqueeze(1) - cost[ranks]
        place, gains = asking.unsqueeze(1), offer > 0
        y, x, target = place // w % h + down, place % w + right, place + down * w + right
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        seen = gains & inside & shown[target.where(inside, 0)]
        found, first = (seen * (_AT_ONCE - ahead)).max(1)  # the first of those ahead that is seen
        found = found > 0
        rank[asking] += first.where(found, _AT_ONCE)
        at, first = found.nonzero()[:, 0], first[found]
        heard.append((asking[at], target[at, first], offer[at, first]))
        asking = asking[gains[:, -1] & ~found]
        if not len(asking):
            asks, targets, offers = zip(*heard, strict=True)
            return torch.cat(asks), torch.cat(targets), torch.cat(offers)


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

    inside: Any  # (q, r): which cells change
    outside: Any  # (q, r): how many changing neighbours a cell has that stays
    touched: Any  # (q, e): which edges have an end inside
    size: Any
    border: Any
    ends: Any  # (2, e): the cells at both ends of every edge


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
        self.masks = one_hot(start.flatten(1), len(costs)).double().numpy()
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
