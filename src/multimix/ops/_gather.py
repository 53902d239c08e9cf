"""The examples of all processes of data-parallel training as one mini-batch."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # renamed in torch 2.14


@dataclass(frozen=True)
class Gather:
    """Put the examples of all processes together, the first one of every rank, then the second, as one would have them.

    A network with an attribute ``gather`` of this kind has its tuples drawn over the union of all processes' examples:
    because classifying and interpolating commute, logits (b, k) and targets are all that is sent. Without a process
    group, or with one of a single process, everything comes back as it is.

    Gradients are exact for a loss that is averaged over the processes, as DistributedDataParallel averages gradients.
    Processes whose generators are in step draw the same tuples, and all of them together do what one process with the
    whole mini-batch would do; with generators of their own, they draw n tuples each.
    """

    even: bool = False
    """Every process always has as many examples as every other one; if not known, sizes are exchanged first."""

    def __call__(self, values: Shaped[Tensor, " b *any"]) -> Shaped[Tensor, " all *any"]:
        """Return the values of all processes."""
        if processes() == 1:
            return values
        return _All.apply(values, self._sizes(len(values), values.device))

    def size(self, b: int, device: torch.device) -> int:
        """Return how many examples all processes have together, of which this one has b."""
        return sum(self._sizes(b, device))

    def agree(self, value: Shaped[Tensor, "*any"]) -> Shaped[Tensor, "*any"]:
        """Return the first process' value in all of them, for what they have to do alike to gather at all."""
        if processes() > 1:
            value = value.contiguous()
            dist.broadcast(value, 0)
        return value

    def _sizes(self, b: int, device: torch.device) -> list[int]:
        world = processes()
        if self.even or world == 1:
            return [b] * world
        sizes = torch.empty(world, dtype=torch.long, device=device)
        _gather(sizes, torch.tensor([b], device=device))
        return sizes.tolist()


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(network: object, values: Tensor) -> Tensor:
    """Return the values of all processes if the network is to gather, else these."""
    gather = getattr(network, "gather", None)
    return values if gather is None else gather(values)


class _All(torch.autograd.Function):
    """An all_gather in interleaved order; its gradient is the sum of what every rank's loss sends back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        most = max(sizes)
        mine = values.contiguous()
        if len(mine) < most:
            mine = torch.cat([mine, mine.new_zeros(most - len(mine), *mine.shape[1:])])
        everyone = mine.new_empty(len(sizes), *mine.shape)
        _gather(everyone.flatten(0, 1), mine)
        interleaved = everyone.transpose(0, 1).flatten(0, 1)
        return interleaved if min(sizes) == most else interleaved[_filled(sizes, interleaved.device)]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        sizes, rank = ctx.sizes, dist.get_rank()
        everyone = gradient.contiguous().clone()
        dist.all_reduce(everyone)
        if min(sizes) < max(sizes):
            interleaved = everyone.new_zeros(max(sizes) * len(sizes), *everyone.shape[1:])
            interleaved[_filled(sizes, interleaved.device)] = everyone
            everyone = interleaved
        return everyone[rank :: len(sizes)][: sizes[rank]], None


def _filled(sizes: list[int], device: torch.device) -> Tensor:
    """Return which places of the interleaved order some rank has an example for."""
    rounds = torch.arange(max(sizes), device=device)
    return (rounds[:, None] < torch.tensor(sizes, device=device)).flatten()
