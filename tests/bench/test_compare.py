import json

import pytest
import torch

from multimix.bench import SUITES, Case, Comparison, measure
from multimix.bench import compare as timing
from multimix.bench import step as steps
from multimix.cli import bench as command
from multimix.cli.__main__ import main
from multimix.methods import ERM, MultiMix

CPU = torch.device("cpu")


def clock(monkeypatch, durations):
    """Let each call take the next of ``durations`` seconds."""
    now, ticks = 0.0, []
    for duration in durations:
        ticks += [now, now + duration]
        now += duration + 1
    monkeypatch.setattr(timing.time, "perf_counter", iter(ticks).__next__)


def test_ratio_is_the_median_of_ratios_of_the_same_round(monkeypatch):
    # warm-up of both; round 1 base, fast; round 2 in reverse; round 3: the machine is ten times slower
    clock(monkeypatch, [9, 9, 4, 1, 2, 4, 40, 30])
    base, fast = measure(Comparison("c", {"n": 1}, Case("base", int), (Case("fast", int, most=0.5),), rounds=3), CPU)
    assert base.ratio == 1
    assert base.met is None
    assert fast.ratio == 0.5  # of 1/4, 2/4 and 30/40
    assert fast.seconds_p50 == 2
    assert fast.met
    assert fast.rounds == 3


def test_bar_is_missed_when_the_ratio_is_above_it(monkeypatch):
    clock(monkeypatch, [1, 1, 1, 3])
    _, slow = measure(Comparison("c", {}, Case("base", int), (Case("slow", int, most=2.0),), rounds=1), CPU)
    assert slow.ratio == 3
    assert slow.met is False


def test_every_case_is_called_once_a_round_and_once_before():
    calls = []
    cases = [Case(name, lambda name=name: calls.append(name)) for name in "abc"]
    measure(Comparison("c", {}, cases[0], tuple(cases[1:]), rounds=2), CPU)
    assert calls == ["a", "b", "c", "a", "b", "c", "c", "b", "a"]


def small_engine(method, splits, device, *, width=64):
    config = steps.TrainConfig(
        data="noise", method=method, optimizer=steps.SGD(learning_rate=0.1), device="cpu", width=2
    )  # whatever was asked for
    return steps.Engine(config, splits)


def test_engine_and_bare_loop_do_the_same_work(monkeypatch):
    monkeypatch.setattr(steps, "_engine", small_engine)
    splits = steps.random_images(256, 16, classes=5)
    engine = steps.engine_step(small_engine(ERM(), splits, CPU))
    bare = steps.bare_step(splits, CPU)
    assert [engine() for _ in range(2)] == pytest.approx([bare() for _ in range(2)], rel=0.05)


def test_engine_step_goes_on_after_the_end_of_an_epoch():
    engine = small_engine(MultiMix(tuples=8), steps.random_images(256, 16, classes=5), CPU)
    call = steps.engine_step(engine)
    losses = [call() for _ in range(5)]  # an epoch has two mini-batches
    assert all(loss > 0 for loss in losses)
    assert engine.at.step == 5


def test_command_prints_bars_and_writes_records(monkeypatch, tmp_path, capsys):
    comparison = Comparison("two sums", {"n": 3}, Case("base", lambda: sum(range(10))), (Case("other", int, 9.0),), 2)
    monkeypatch.setitem(SUITES, "ops", lambda device: [comparison])
    monkeypatch.setattr(command, "SUITES", SUITES)
    out = tmp_path / "deep" / "records.jsonl"
    assert main(["bench", "ops", "--out", str(out), "--device", "cpu"]) == 0
    base, other = (json.loads(line) for line in out.read_text().splitlines())
    assert (base["case"], other["case"]) == ("base", "other")
    assert other["ratio_most"] == 9.0
    assert other["shape"] == {"n": 3}
    assert {"device", "torch", "commit", "date", "seconds_p20", "seconds_p50", "seconds_p80", "met"} <= set(other)
    assert "two sums (n 3; 2 rounds)" in capsys.readouterr().out


@pytest.mark.bad_input
def test_unknown_suite(capsys):
    assert main(["bench", "opps"]) == 2
    assert "invalid choice: 'opps'" in capsys.readouterr().err
