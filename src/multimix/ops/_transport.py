"""Blocks of an image moved to where they are seen."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

_AT_ONCE = 8
"""How many places a block looks at before it asks."""


def transport_blocks(saliency: Float[Tensor, "b h w"], seen: Bool[Tensor, "b h w"], eps: float) -> Int[Tensor, "b h w"]:
    r"""Return for each place of a grid which block goes there, so that salient blocks are seen.

    Block i gains ``saliency[i] - eps * distance(i, j)^2`` at a place j that is seen, distances being in units of the
    longer side. A block that is seen asks for its own place, a hidden one for the nearest place that is seen; each
    place takes the block that gains most and turns the others away, who go on to the next nearest while they gain
    anything there. No block shows twice. Places that nobody asks for, and those not seen, keep their blocks.

    Of equal distances the upper, then the left place comes first; of equal gains who asked first, then the lower index.

    Args:
        saliency: Of each block, not negative.
        seen: Which places the mask shows.
        eps: Cost of a move across the longer side, squared.

    Returns:
        Row-major indices 0..h w - 1, on the device of ``saliency``; the work is done on the CPU.

    Raises:
        ValueError: If ``eps`` is negative or the shapes differ.

    Reference:
        Kim et al., "Puzzle Mix", ICML 2020, algorithm 1, run until nobody asks any more. Its outcome is that of taking
        the largest gain first, then the largest of what is left.
    """
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    if saliency.shape != seen.shape:
        raise ValueError(f"seen must have the shape of saliency, {tuple(saliency.shape)}, got {tuple(seen.shape)}")
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
        taken = _take(asking, target, offer, gain)
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


def _take(asking: Tensor, target: Tensor, offer: Tensor, gain: Tensor) -> Tensor:
    """Return whose offer is the best their place has had."""
    best = gain.scatter_reduce(0, target, offer, "amax")[target]
    first = (offer == best) & (offer > gain[target])
    lowest = torch.full_like(gain, len(gain), dtype=torch.long)
    lowest.scatter_reduce_(0, target[first], asking[first], "amin")
    return first & (lowest[target] == asking)
