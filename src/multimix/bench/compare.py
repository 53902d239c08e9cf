"""Several ways to do the same thing, timed against each other."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """One way to do it."""

    name: str
    call: Callable[[], object]
    """Does it once."""
    most: float | None = None
    """The bar: the most that its time may be of the baseline's."""


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


@dataclass(frozen=True)
class Result:
    """How long one case took, and what part of the baseline's time that is."""

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

    @property
    def met(self) -> bool | None:
        """Return whether the bar is met; None if there is none."""
        return None if self.ratio_most is None else self.ratio <= self.ratio_most


def measure(comparison: Comparison, device: torch.device) -> list[Result]:
    """Time every case of a comparison, one call of each in turn, the order reversed every other round."""
    cases = [comparison.baseline, *comparison.cases]
    for case in cases:
        _seconds(case, device)
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    for turn in range(comparison.rounds):
        for case in cases if turn % 2 == 0 else reversed(cases):
            times[case.name].append(_seconds(case, device))
    return [_result(comparison, case, times) for case in cases]


def _seconds(case: Case, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    case.call()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _result(comparison: Comparison, case: Case, times: dict[str, list[float]]) -> Result:
    mine, base = times[case.name], times[comparison.baseline.name]
    p20, *_, p80 = quantiles(mine, n=5) if len(mine) > 1 else mine * 2
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
    )
