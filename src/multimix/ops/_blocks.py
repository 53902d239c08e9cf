"""What PuzzleMix solves on grids of blocks: labels of least energy, by minimum cuts, and who moves where."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from multimix._optional import require
from multimix.ops._checks import NotNegative, check, check_shape

_UNITS = 2**30  # what the capacities of a graph add up to at most, as whole numbers: half of what its flow may come to
_ROUNDS = 4  # how often cells that need no cut are looked for; the first rounds find most of them
_AT_ONCE = 8  # how many places a block looks at before it asks
_USE = "PuzzleMix's graph cut"


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
