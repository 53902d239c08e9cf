"""What the processes of one run tell each other, and what the main one alone does; a single process is the main one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multimix.ops import processes


def is_main_process() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return rank_and_world()[0] == 0


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and how many there are."""
    return (0, 1) if processes() == 1 else (dist.get_rank(), processes())


def all_mean(values: Tensor) -> Tensor:
    """Return the mean of every process' values."""
    if processes() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / processes()


def all_gather(value: Any) -> list[Any]:
    """Return what each process has, by rank."""
    if processes() == 1:
        return [value]
    found: list[Any] = [None] * processes()
    dist.all_gather_object(found, value)
    return found


def broadcast(value: Any) -> Any:
    """Return what the main process has."""
    return all_gather(value)[0]


@contextmanager
def entered_by_main(context: AbstractContextManager[None]) -> Iterator[None]:
    """Enter a context in the main process only; where it fails, all processes raise its error."""
    with ExitStack() as stack:
        error: Exception | None = None
        if is_main_process():
            try:
                stack.enter_context(context)
            except Exception as raised:
                error = raised
        if (error := broadcast(error)) is not None:
            raise error
        yield


def average_buffers(network: nn.Module) -> None:
    """Give all processes the mean of their running statistics, which each takes from its own part of a mini-batch."""
    if processes() == 1:
        return
    if not (floating := [buffer for buffer in network.buffers() if buffer.is_floating_point()]):
        return
    together = all_mean(torch.cat([buffer.flatten().float() for buffer in floating]))
    for buffer, mean in zip(floating, together.split([buffer.numel() for buffer in floating]), strict=True):
        buffer.copy_(mean.view_as(buffer))
