import json
from functools import partial

import pytest
import torch

import references
from multimix.lab.bench import BENCHES, Case, Comparison, Rates, measure, ops, rates
from multimix.lab.bench import step as steps
from multimix.lab.bench import timing as costs
from multimix.lab.cli import bench as command
from multimix.lab.cli.__main__ import main
from multimix.methods import ERM, MultiMix

CPU = torch.device("cpu")


def clock(monkeypatch, durations):
    """Let each call take the next of ``durations`` seconds."""
    now, ticks = 0.0, []
    for duration in durations:
        ticks += [now, now + duration]
        now += duration + 1
    monkeypatch.setattr(costs.time, "perf_counter", iter(ticks).__next__)


def test_ratio_is_the_median_of_ratios_of_the_same_round(monkeypatch):
    # round 1 base, fast; round 2 in reverse; round 3: the machine is ten times slower
    clock(monkeypatch, [4, 1, 2, 4, 40, 30])
    base, fast = measure(Comparison("c", {"n": 1}, Case("base", int), (Case("fast", int, most=0.5),), rounds=3), CPU)
    assert base.ratio == 1
    assert base.met is None
    assert fast.ratio == 0.5  # of 1/4, 2/4 and 30/40
    assert fast.seconds_p50 == 2
    assert fast.met
    assert fast.rounds == 3


def test_bar_is_missed_when_the_ratio_is_above_it(monkeypatch):
    clock(monkeypatch, [1, 3])
    _, slow = measure(Comparison("c", {}, Case("base", int), (Case("slow", int, most=2.0),), rounds=1), CPU)
    assert slow.ratio == 3
    assert slow.met is False


def test_every_case_is_called_once_a_round_and_twice_before():
    calls = []
    cases = [Case(name, lambda name=name: calls.append(name)) for name in "abc"]
    measure(Comparison("c", {}, cases[0], tuple(cases[1:]), rounds=2), CPU)
    assert calls == [*"abc", *"abc", *"abc", *"cba"]


def test_cost_counts_arithmetic_and_the_highest_memory():
    a, b = torch.randn(100, 200), torch.randn(200, 300)

    def call():
        first = a @ b  # 120,000 bytes
        second = first + first  # the same again: here is the peak
        del first
        return second[:50].clone()

    counted = costs.cost(call, CPU)
    assert counted.flops == 2 * 100 * 200 * 300
    assert counted.peak_bytes == 2 * 100 * 300 * 4


def test_cost_sees_inside_the_backward_pass():
    a, b = torch.randn(10, 20, requires_grad=True), torch.randn(20, 30, requires_grad=True)
    assert costs.cost(lambda: (a @ b).sum().backward(), CPU).flops == 3 * 2 * 10 * 20 * 30


def test_memory_has_a_bar_of_its_own():
    small, large = (Case(str(n), lambda n=n: torch.zeros(n), memory_most=5.0) for n in (1000, 10_000))
    base, result = measure(Comparison("c", {}, small, (large,), rounds=1), CPU)
    assert result.peak_bytes == 40_000
    assert result.peak_ratio == pytest.approx(10)
    assert result.met is False
    assert base.met


def test_the_floor_is_set_by_arithmetic_or_traffic_whichever_takes_longer():
    machine = Rates(flops=100.0, bytes=10.0)
    for least, seconds in (((500, 10), 5.0), ((500, 70), 7.0)):
        results = measure(Comparison("c", {}, Case("base", int), (), rounds=1, least=least), CPU, machine)
        assert results[0].seconds_floor == seconds
    assert measure(Comparison("c", {}, Case("base", int), (), rounds=1), CPU, machine)[0].seconds_floor is None


def test_rates_of_this_machine_are_positive():
    found = rates(CPU, size=32, rounds=3)
    assert found.flops > 0
    assert found.bytes > 0


@pytest.mark.parametrize("r", [None, 3])
def test_every_case_of_the_core_op_computes_the_loss_of_the_loop(r):
    problem = ops.problem(5, 6, 4, 9, CPU, r=r)
    one_hot = torch.eye(4, dtype=torch.float64)[problem.labels]
    head, values = problem.head.double(), problem.features.detach().double().requires_grad_()
    if r is None:
        truth = references.network_loss(head, values, one_hot, problem.weights.double())
    else:
        weights = problem.weights.double().expand(r, -1, -1)
        truth = references.dense_network_loss(head, values, one_hot, weights, problem.attention.double())
    (gradient,) = torch.autograd.grad(truth, values)
    problem.head.float()
    for loss in (problem.naive, *(partial(problem.loss, impl) for impl in ("plain", "commuted", "fused", "auto"))):
        value = loss()
        assert value.item() == pytest.approx(truth.item(), rel=1e-5)
        (ours,) = torch.autograd.grad(value, problem.features)
        torch.testing.assert_close(ours.double(), gradient, rtol=1e-3, atol=1e-6)


def test_the_least_arithmetic_is_what_the_fused_form_does(monkeypatch):
    problem = ops.problem(64, 32, 200, 3000, CPU)  # so many classes that labels are not multiplied
    done = costs.cost(problem.gradients(lambda: problem.loss("fused")), CPU).flops
    assert done == problem.least[0]


def test_every_comparison_of_the_ops_can_be_made_and_run():
    small, dense = ops.problem(5, 6, 4, 9, CPU), ops.problem(5, 6, 4, 9, CPU, r=2)
    assert dense.shape == {"b": 5, "r": 2, "d": 6, "k": 4, "n": 9}
    made = [
        ops.against_naive(small, most=1.0, rounds=1),
        ops.against_naive(dense, most=1.0, memory_most=1.0, rounds=1),
        ops.many_tuples(small, (9, 20)),
        ops.implementations(small, rounds=1),
        ops.draw(9, 5, (0.5, 2.0), CPU, most=1.0),
        ops.draw(9, 5, 0.1, CPU),
    ]
    for comparison in made:
        assert len(measure(comparison, CPU)) == 1 + len(comparison.cases)


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
    monkeypatch.setitem(BENCHES, "ops", lambda device: [lambda: comparison])
    monkeypatch.setattr(command, "rates", lambda device: Rates(1e9, 1e9))
    monkeypatch.setattr(command, "BENCHES", BENCHES)
    out = tmp_path / "deep" / "records.jsonl"
    assert main(["bench", "ops", "--out", str(out), "--device", "cpu"]) == 0
    base, other = (json.loads(line) for line in out.read_text().splitlines())
    assert (base["case"], other["case"]) == ("base", "other")
    assert other["ratio_most"] == 9.0
    assert other["shape"] == {"n": 3}
    assert other["flops_per_second"] == 1e9
    assert {"device", "torch", "commit", "date", "seconds_p20", "seconds_p50", "seconds_p80", "met"} <= set(other)
    assert "two sums (n 3; 2 rounds)" in capsys.readouterr().out


@pytest.mark.bad_input
def test_unknown_suite(capsys):
    assert main(["bench", "opps"]) == 2
    assert "invalid choice: 'opps'" in capsys.readouterr().err
