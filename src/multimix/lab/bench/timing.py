"""Several ways to do the same thing, timed against each other: what a call costs, and what the machine does at best."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, NamedTuple, cast

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Case:
    """One way to do it."""

    name: str
    call: Callable[[], object]
    """Does it once."""
    most: float | None = None
    """The bar: the most that its time may be of the baseline's."""
    memory_most: float | None = None
    """The bar on memory: the most that its peak may be of the baseline's."""


@dataclass(frozen=True)
class Comparison:
    """A baseline and the cases that are measured against it."""

    name: str
    shape: dict[str, Any]
    """What was measured: sizes, network, batch."""
    baseline: Case
    cases: tuple[Case, ...]
    rounds: int = 15
    """How often every case is called, after two calls that do not count."""
    least: tuple[float, float] | None = None
    """Floating-point operations and bytes moved that no way can do without: the floor under all cases."""


@dataclass(frozen=True)
class Result:
    """How long one case took, what part of the baseline's time that is, and what else it cost; None where unknown."""

    comparison: str
    case: str
    shape: dict[str, Any]
    seconds_p20: float
    seconds_p50: float
    seconds_p80: float
    ratio: float
    """Median over rounds of this case's time over the baseline's in the same round."""
    ratio_most: float | None
    """Its bar."""
    rounds: int
    flops: int
    """Floating-point operations of matrix products and convolutions, two a multiply-add."""
    peak_bytes: int
    """Most memory in tensors at any one time, beyond what there was before."""
    peak_ratio: float | None
    """That over the baseline's, if the baseline takes any."""
    peak_ratio_most: float | None
    """Its bar."""
    seconds_floor: float | None
    """Time that the least arithmetic and the least traffic would take at the machine's measured best."""

    @property
    def met(self) -> bool | None:
        """Return whether every bar is met; None if there is none."""
        bars = ((self.ratio, self.ratio_most), (self.peak_ratio, self.peak_ratio_most))
        met = [value is not None and value <= most for value, most in bars if most is not None]
        return all(met) if met else None


class Cost(NamedTuple):
    """What one call took: see the fields of :class:`Result`."""

    flops: int
    peak_bytes: int


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


def measure(comparison: Comparison, device: torch.device, machine: Rates | None = None) -> list[Result]:
    """Time every case of a comparison, one call of each in turn, the order reversed every other round.

    A first call of each warms up; a second one is searched for arithmetic and memory.
    """
    cases = [comparison.baseline, *comparison.cases]
    for case in cases:
        case.call()
    costs = [cost(case.call, device) for case in cases]
    times: list[list[float]] = [[] for _ in cases]
    for turn in range(comparison.rounds):
        order = list(zip(cases, times, strict=True))
        for case, taken in order if turn % 2 == 0 else reversed(order):
            taken.append(stopwatch(case.call, device))
    floor = machine.seconds(*comparison.least) if machine and comparison.least else None
    base_peak = costs[0].peak_bytes

    def result(case: Case, taken: list[float], spent: Cost) -> Result:
        p20, *_, p80 = quantiles(taken, n=5) if len(taken) > 1 else taken * 2
        return Result(
            comparison=comparison.name,
            case=case.name,
            shape=comparison.shape,
            seconds_p20=p20,
            seconds_p50=median(taken),
            seconds_p80=p80,
            ratio=median(own / other for own, other in zip(taken, times[0], strict=True)),
            ratio_most=case.most,
            rounds=comparison.rounds,
            flops=spent.flops,
            peak_bytes=spent.peak_bytes,
            peak_ratio=spent.peak_bytes / base_peak if base_peak else None,
            peak_ratio_most=case.memory_most,
            seconds_floor=floor,
        )

    return [result(*each) for each in zip(cases, times, costs, strict=True)]


def cost(call: Callable[[], object], device: torch.device) -> Cost:
    """Call once, counting."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = cast("Any", _Whole())
    on_gpu = device.type == "cuda"
    recorded = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    with nullcontext() if on_gpu else recorded, counter:
        call()
    peak = torch.cuda.max_memory_allocated(device) - before if on_gpu else _peak(recorded)
    return Cost(counter.get_total_flops(), peak)


class _Whole(nullcontext[None]):
    """Stands in for the counter's look into modules, whose hooks refuse gradients of the inputs alone."""

    parents = frozenset({"Global"})


def _peak(recorded: profile) -> int:
    """Return the highest sum of what was allocated and freed, in order of time."""
    events: Any = cast("Any", recorded.profiler).kineto_results.events()
    now = most = 0
    for _, change in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
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
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    started = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - started
