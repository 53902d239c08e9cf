"""Measuring, fitting and recording, with cases of a moment."""

import json

import pytest
import torch

from multimix.methods import ERM, MultiMix
from multimix.plan import Fitted, Work, load_rates, record
from multimix.plan.cases import setup
from multimix.plan.fit import fit
from multimix.plan.measure import Case, Timed, counted, layer, step_memory, timed
from multimix.plan.rates import total
from multimix.plan.step import step_cost


def moved(name, size, calls):
    return Case(name, (Work("", "move", 0, size, float(size), calls),), lambda: None)


def test_constants_that_made_the_times_are_found_again():
    truth = Fitted({"call": 1e-6, "move@262144": 1e-10, "move@4194304": 3e-10, "matmul@64": 2e-11})
    works = [Work("", "move", 0, 2**18, 2.0**18, calls) for calls in (1, 10, 100)]
    works += [Work("", "move", 0, 2**22, 2.0**22), Work("", "matmul", 10**9, 10, 64.0)]
    cases = [Timed(Case(str(i), (work,), lambda: None), truth.seconds(work), 0.0) for i, work in enumerate(works)]
    found = fit(cases)
    assert set(found) == set(truth.constants)
    for one in cases:
        assert total(one.case.works, Fitted(found)) == pytest.approx(one.seconds, rel=0.02)


def test_no_constant_is_negative_and_nothing_cannot_be_fitted():
    cases = [
        Timed(moved("a", 1000, 1), 1.0, 1.0),
        Timed(moved("b", 1000, 2), 0.5, 0.5),
    ]  # twice the calls, half as long
    assert min(fit(cases).values()) >= 0
    with pytest.raises(ValueError, match="cases must hold at least one measurement"):
        fit([])


def test_every_case_is_timed(monkeypatch):
    calls = []
    cases = [Case(name, (), lambda name=name: calls.append(name)) for name in "ab"]
    found = timed(cases, rounds=3)
    assert [one.case.name for one in found] == ["a", "b"]
    assert set(calls) == {"a", "b"}
    assert all(0 < one.seconds <= one.median for one in found)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ValueError, match=r"clock 'busy' needs one thread .* got 2"):
        timed(cases, rounds=1, clock="busy")


@pytest.mark.parametrize("method", [ERM(), MultiMix(2000)])
def test_predicted_memory_is_that_of_a_step(method):
    """Activations dominate; what is left is scratch memory of convolutions, which nobody announces."""
    one = setup(method, b=32, width=8)
    rates = load_rates()
    assert step_cost(one, rates).peak_bytes == pytest.approx(step_memory(one), rel=0.15)


@pytest.fixture
def few(monkeypatch):
    """A calibration of seconds."""
    setups = {"step": setup(ERM(), px=8, b=4, width=2)}
    monkeypatch.setattr(record, "FITTED", setups)
    monkeypatch.setattr(record, "HELD_OUT", {"other": setup(ERM(), px=8, b=8, width=2)})
    monkeypatch.setattr(
        record, "small_cases", lambda: [
            layer("relu", torch.nn.ReLU, (1000,), backward=False),
            counted("product", lambda d: lambda: torch.ones(9, 9, device=d) @ torch.ones(9, 9, device=d)),
        ]
    )  # fmt: skip


@pytest.mark.usefixtures("few")
def test_a_calibration_is_written_checked_and_checked_again(tmp_path):
    path = tmp_path / "there" / "rates.jsonl"
    assert [one["record"] for one in record.calibrate(path, rounds=2, clock="wall", checking=True)][-2:] == [
        "fit",
        "check",
    ]
    record.check(path, rounds=2, clock="wall")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["record"], line.get("case")) for line in lines] == [
        ("rates", None), ("fit", "relu forward"), ("fit", "product"), ("fit", "step"), ("check", "other"),
    ]  # fmt: skip
    rates, *_, held = lines
    assert rates["threads"] == torch.get_num_threads()
    assert load_rates(path).constants == rates["constants"]
    assert held["error"] == pytest.approx(held["predicted_seconds"] / held["seconds_p10"] - 1)
    assert held["memory_error"] == pytest.approx(held["predicted_peak_bytes"] / held["peak_bytes"] - 1)


@pytest.mark.usefixtures("few")
def test_a_check_needs_the_threads_of_its_calibration(tmp_path, monkeypatch):
    path = tmp_path / "rates.jsonl"
    record.calibrate(path, rounds=1, clock="wall")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    with pytest.raises(ValueError, match="--check must run with as many threads as the calibration"):
        record.check(path, rounds=1, clock="wall")
