"""What a call costs besides time, and what the machine could do at best."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """What one call took."""

    flops: int
    """Floating-point operations of matrix products and convolutions, two a multiply-add."""
    peak_bytes: int
    """Most memory in tensors at any one time, beyond what there was before."""


@dataclass(frozen=True)
class Rates:
    """What a machine does at best, as measured on it."""

    flops: float
    """Floating-point operations a second, in a float32 product of square matrices."""
    bytes: float
    """Bytes read or written a second, copying."""

    def seconds(self, flops: float, moved: float) -> float:
        """Return the least time for so much arithmetic and so many bytes, if they overlap."""
        return max(flops / self.flops, moved / self.bytes)


def cost(call: Callable[[], object], device: torch.device) -> Cost:
    """Call once, counting."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = cast("Any", _Whole())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        with counter:
            call()
        return Cost(counter.get_total_flops(), torch.cuda.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded, counter:
        call()
    return Cost(counter.get_total_flops(), _peak(recorded))


class _Whole(AbstractContextManager["_Whole"]):
    """Stands in for the counter's look into modules, whose hooks refuse gradients of the inputs alone."""

    parents = frozenset({"Global"})

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""


def _peak(recorded: profile) -> int:
    """Return the highest sum of what was allocated and freed, in order of time."""
    events: Any = cast("Any", recorded.profiler).kineto_results.events()
    steps = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = most = 0
    for _, change in steps:
        now += change
        most = max(most, now)
    return most


def rates(device: torch.device, *, size: int = 1024, rounds: int = 21) -> Rates:
    """Measure the machine at its best: a product of matrices (size, size), and a copy of 64 times as many numbers."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    source = torch.randn(64 * size * size, device=device)
    target = torch.empty_like(source)
    product = min(stopwatch(lambda: a @ b, device) for _ in range(rounds))
    copy = min(stopwatch(lambda: target.copy_(source), device) for _ in range(rounds))
    return Rates(2 * size**3 / product, 2 * source.nbytes / copy)


def stopwatch(call: Callable[[], object], device: torch.device) -> float:
    """Return how many seconds a call takes, the device's work included."""
    _wait(device)
    started = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
