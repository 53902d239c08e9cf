"""Several ways to do the same thing, timed against each other: what a call costs, and what the machine does at best."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any, Literal, NamedTuple, cast

import numpy as np
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
    seconds_most: float | None = None
    """A bar on the time itself."""


Decides = Literal["both", "cpu", "wall"]
"""Which time has to keep a bar: wall time and CPU time both, or one of them."""


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
    less: Case | None = None
    """What all do alike and is not compared: its time of the same round is taken off theirs. It may be the baseline,
    which then keeps its own time while the cases have what they take beyond it."""
    decides: Decides = "both"
    """On a CPU; on a GPU, whose work is not CPU time, it is wall time."""
    parts: int = 1
    """How many alike parts a call has, as the mini-batches of a pass; times are those of one part."""
    apart: bool = False
    """Whether other processes do the work, whose arithmetic, memory and number of threads are not this one's."""


@dataclass(frozen=True)
class Result:
    """How long one case took, what part of the baseline's time that is, and what else it cost; None where unknown."""

    comparison: str
    case: str
    shape: dict[str, Any]
    threads: int
    """Threads that torch had."""
    rounds: int
    seconds_p20: float
    """Wall time; of the whole call, as CPU time is, less what the comparison leaves out."""
    seconds_p50: float
    seconds_p80: float
    ratio: float
    """Median over rounds of this case's wall time over the baseline's in the same round."""
    ratio_p20: float
    ratio_p80: float
    cpu_seconds: float
    """Median CPU time, of all threads and of the processes that were started and have ended."""
    cpu_ratio: float
    """As ``ratio``, of CPU time."""
    cpu_ratio_p20: float
    cpu_ratio_p80: float
    ratio_most: float | None
    """The bar on the ratio."""
    seconds_most: float | None
    """The bar on the time."""
    decides: Decides
    """Which of the two times these bars are for."""
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
        bars = [(self.peak_ratio, self.peak_ratio_most)]
        if self.decides != "cpu":
            bars += [(self.ratio, self.ratio_most), (self.seconds_p50, self.seconds_most)]
        if self.decides != "wall":
            bars += [(self.cpu_ratio, self.ratio_most), (self.cpu_seconds, self.seconds_most)]
        met = [value is not None and value <= most for value, most in bars if most is not None]
        return all(met) if met else None


class Times(NamedTuple):
    """Seconds that a call took, by the clock and of the CPUs."""

    wall: float
    cpu: float


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


def measure(
    comparison: Comparison, device: torch.device, machine: Rates | None = None, costs: Sequence[Cost] | None = None
) -> list[Result]:
    """Time every case of a comparison, one call of each in turn, the order reversed every other round.

    A first call of each warms up; a second one is searched for arithmetic and memory, unless ``costs`` has them.
    """
    cases = every_case(comparison)
    for case in cases:
        case.call()
    costs = counted(comparison, device) if costs is None else costs
    taken = np.empty((comparison.rounds, len(cases), 2))
    for turn in range(comparison.rounds):
        order = range(len(cases))
        for at in order if turn % 2 == 0 else reversed(order):
            taken[turn, at] = stopwatch(cases[at].call, device)
    taken /= comparison.parts
    if comparison.less is not None:
        at = cases.index(comparison.less)
        others = [other for other in range(len(cases)) if other != at]
        taken[:, others] -= taken[:, [at]]
    ratios = taken / taken[:, :1]
    (wall, cpu), (ratio, cpu_ratio) = (
        np.quantile(each, (0.2, 0.5, 0.8), axis=0).T.tolist() for each in (taken, ratios)
    )
    base_peak = costs[0].peak_bytes
    return [
        Result(
            comparison=comparison.name,
            case=case.name,
            shape=comparison.shape,
            threads=torch.get_num_threads(),
            rounds=comparison.rounds,
            **dict(zip(("seconds_p20", "seconds_p50", "seconds_p80"), wall[at], strict=True)),
            **dict(zip(("ratio_p20", "ratio", "ratio_p80"), ratio[at], strict=True)),
            cpu_seconds=cpu[at][1],
            **dict(zip(("cpu_ratio_p20", "cpu_ratio", "cpu_ratio_p80"), cpu_ratio[at], strict=True)),
            ratio_most=case.most,
            seconds_most=case.seconds_most,
            decides="wall" if device.type == "cuda" else comparison.decides,
            flops=spent.flops,
            peak_bytes=spent.peak_bytes,
            peak_ratio=spent.peak_bytes / base_peak if base_peak else None,
            peak_ratio_most=case.memory_most,
            seconds_floor=machine.seconds(*comparison.least) if machine and comparison.least else None,
        )
        for at, (case, spent) in enumerate(zip(cases, costs, strict=True))
    ]


def every_case(comparison: Comparison) -> list[Case]:
    """Return all that is timed, the baseline first."""
    less = comparison.less
    return [comparison.baseline, *comparison.cases, *([] if less in (None, comparison.baseline) else [less])]


def counted(comparison: Comparison, device: torch.device) -> list[Cost]:
    """Return what each case costs beside its time, 0 where that is not of this process."""
    return [Cost(0, 0) if comparison.apart else cost(case.call, device) for case in every_case(comparison)]


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
    product = min(stopwatch(lambda: a @ b, device).wall for _ in range(rounds))
    copy = min(stopwatch(lambda: target.copy_(source), device).wall for _ in range(rounds))
    return Rates(2 * size**3 / product, 2 * source.nbytes / copy)


def stopwatch(call: Callable[[], object], device: torch.device) -> Times:
    """Return how many seconds a call takes, the device's work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    cpu, wall = _cpu_seconds(), time.perf_counter()
    call()
    wait(device)
    return Times(time.perf_counter() - wall, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    """Return the CPU time so far of this process, all threads, and of its children that have ended."""
    children = getrusage(RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
