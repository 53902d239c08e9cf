"""Calibrations and checks as records."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import device

from multimix.plan.cases import FITTED, HELD_OUT, small_cases, step_cases
from multimix.plan.fit import fit
from multimix.plan.measure import Clock, Timed, step_memory, timed
from multimix.plan.rates import Fitted, Rates, load_rates, total
from multimix.plan.step import step_cost
from multimix.train.environment import describe

_ABOUT = ("device", "device_name", "threads", "torch", "multimix", "commit", "date")
BAR = 0.15
"""The most that a prediction may be off, of what is measured."""


def calibrate(path: Path, *, rounds: int, clock: Clock, checking: bool = False) -> list[dict[str, Any]]:
    """Measure on this machine, fit the rates, and write them with what they make of each case; return the records.

    Where they are checked at once, the cases that nothing is fitted to take turns with all others: what a machine does
    besides, and how fast it is that hour, then disturbs both alike.
    """
    cases = [*small_cases(), *step_cases(FITTED), *(step_cases(HELD_OUT) if checking else [])]
    found = timed(cases, rounds=rounds, clock=clock)
    held = [one for one in found if one.case.name in HELD_OUT]
    fitted = [one for one in found if one.case.name not in HELD_OUT]
    about = {**_about(), "clock": clock, "rounds": rounds}
    rates = Fitted(fit(fitted, heavy=frozenset(FITTED)), about)
    records = [rates.record(), *(_compared("fit", one, rates) | about for one in fitted)]
    records += [_checked(one, rates) | about for one in held]
    _write(path, records)
    return records


def check(path: Path, *, rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """Measure the cases that nothing was fitted to, append what the rates of a file make of them, and return that.

    A check that is in the file already is replaced.

    Raises:
        ValueError: If the file holds no rates, or they are those of another number of threads.
    """
    rates = load_rates(path)
    threads = rates.about.get("threads")
    if threads != torch.get_num_threads():
        raise ValueError(
            f"--check must run with as many threads as the calibration, {threads}, got {torch.get_num_threads()};"
            f" set OMP_NUM_THREADS={threads}"
        )
    about = {**_about(), "clock": clock, "rounds": rounds}
    found = timed(step_cases(HELD_OUT), rounds=rounds, clock=clock)
    records = [_checked(one, rates) | about for one in found]
    kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    _write(path, [record for record in kept if record.get("record") != "check"] + records)
    return records


def _about() -> dict[str, Any]:
    where = describe(device("cpu"))
    return {key: where[key] for key in _ABOUT}


def _compared(kind: str, one: Timed, rates: Rates) -> dict[str, Any]:
    predicted = total(one.case.works, rates)
    return {
        "record": kind,
        "case": one.case.name,
        "seconds_p10": one.seconds,
        "seconds_p50": one.median,
        "predicted_seconds": predicted,
        "error": predicted / one.seconds - 1,
    }


def _checked(one: Timed, rates: Rates) -> dict[str, Any]:
    setup = HELD_OUT[one.case.name]
    measured, predicted = step_memory(setup), step_cost(setup, rates).peak_bytes
    memory = {"peak_bytes": measured, "predicted_peak_bytes": predicted, "memory_error": predicted / measured - 1}
    return _compared("check", one, rates) | memory


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
