"""Several ways to do the same thing, timed against each other."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch

from multimix.lab.bench.cost import Cost, Rates, cost, stopwatch


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
class Least:
    """What cannot be done without, however it is done: the floor under all cases of a comparison."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Comparison:
    """A baseline and the cases that are measured against it."""

    name: str
    shape: dict[str, Any]
    """What was measured: sizes, network, batch."""
    baseline: Case
    cases: tuple[Case, ...]
    rounds: int = 15
    """How often every case is called, after one call that does not count."""
    least: Least | None = None


@dataclass(frozen=True)
class Result:
    """How long one case took, what part of the baseline's time that is, and what else it cost."""

    comparison: str
    case: str
    shape: dict[str, Any]
    seconds_p20: float
    seconds_p50: float
    seconds_p80: float
    ratio: float
    """Median over rounds of this case's time over the baseline's in the same round."""
    ratio_most: float | None
    """The bar, if there is one."""
    rounds: int
    flops: int
    """Floating-point operations of matrix products and convolutions, two a multiply-add."""
    peak_bytes: int
    """Most memory in tensors at any one time, beyond what there was before."""
    peak_ratio: float | None
    """That over the baseline's, if the baseline takes any."""
    peak_ratio_most: float | None
    """The bar, if there is one."""
    seconds_floor: float | None
    """Time that the least arithmetic and the least traffic would take at the machine's measured best."""

    @property
    def met(self) -> bool | None:
        """Return whether every bar is met; None if there is none."""
        bars = ((self.ratio, self.ratio_most), (self.peak_ratio, self.peak_ratio_most))
        met = [value is not None and value <= most for value, most in bars if most is not None]
        return all(met) if met else None


def measure(comparison: Comparison, device: torch.device, machine: Rates | None = None) -> list[Result]:
    """Time every case of a comparison, one call of each in turn, the order reversed every other round.

    A first call of each, which does not count, warms up and is searched for arithmetic and memory.
    """
    cases = [comparison.baseline, *comparison.cases]
    for case in cases:
        case.call()
    costs = {case.name: cost(case.call, device) for case in cases}
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    for turn in range(comparison.rounds):
        for case in cases if turn % 2 == 0 else reversed(cases):
            times[case.name].append(stopwatch(case.call, device))
    return [_result(comparison, case, times, costs, machine) for case in cases]


def _result(
    comparison: Comparison,
    case: Case,
    times: dict[str, list[float]],
    costs: dict[str, Cost],
    machine: Rates | None,
) -> Result:
    mine, base = times[case.name], times[comparison.baseline.name]
    peak, base_peak = costs[case.name].peak_bytes, costs[comparison.baseline.name].peak_bytes
    p20, *_, p80 = quantiles(mine, n=5) if len(mine) > 1 else mine * 2
    least = comparison.least
    return Result(
        comparison=comparison.name,
        case=case.name,
        shape=comparison.shape,
        seconds_p20=p20,
        seconds_p50=median(mine),
        seconds_p80=p80,
        ratio=median(own / other for own, other in zip(mine, base, strict=True)),
        ratio_most=case.most,
        rounds=comparison.rounds,
        flops=costs[case.name].flops,
        peak_bytes=peak,
        peak_ratio=peak / base_peak if base_peak else None,
        peak_ratio_most=case.memory_most,
        seconds_floor=None if least is None or machine is None else machine.seconds(least.flops, least.bytes),
    )
