"""What benches measure, what their bars are, and that both sides of a comparison do the same work."""

import json
from functools import partial

import pytest
import torch

import references
from multimix.lab.bench import BENCHES, HEADINGS, Case, Comparison, Rates, data, grouped, measure, ops, rates, start
from multimix.lab.bench import step as steps
from multimix.lab.bench import timing as costs
from multimix.lab.cli import bench as command
from multimix.lab.cli.__main__ import COMMANDS, main
from multimix.lab.evaluate import SUITES, CorruptionSettings
from multimix.lab.recipes import digits
from multimix.methods import ERM, METHODS, CutMix, Mixup, MixupPath

CPU = torch.device("cpu")


def clock(monkeypatch, walls, cpus):
    """Let each call take the next of so many seconds, by the clock and of the CPUs."""
    for name, durations in (("perf_counter", walls), ("process_time", cpus)):
        now, ticks = 0.0, []
        for duration in durations:
            ticks += [now, now + duration]
            now += duration + 1
        monkeypatch.setattr(costs.time, name, iter(ticks).__next__)


# round 1: base, fast, slow; round 2 in reverse; round 3: the machine is ten times slower
WALLS, CPUS = [4, 1, 12, 12, 2, 4, 40, 30, 120], [4, 2, 4, 12, 3, 4, 4, 3, 12]


def test_ratios_are_the_medians_of_ratios_of_the_same_round(monkeypatch):
    clock(monkeypatch, WALLS, CPUS)
    cases = Case("fast", int, most=0.5), Case("slow", int, most=2.9)
    base, fast, slow = measure(Comparison("c", {"n": 1}, Case("base", int), cases, rounds=3), CPU)
    assert (base.ratio, fast.ratio, slow.ratio) == (1, 0.5, 3)  # 0.5 of 1/4, 2/4 and 30/40
    assert (base.cpu_ratio, fast.cpu_ratio, slow.cpu_ratio) == pytest.approx((1, 0.75, 3), abs=1e-3)  # 2/4, 3/4, 3/4
    assert (fast.ratio_p20, fast.ratio_p80) == pytest.approx((0.35, 0.65))  # linearly between 0.25, 0.5 and 0.75
    assert (base.met, fast.met, slow.met) == (None, False, False)
    assert (fast.seconds_p50, fast.rounds, fast.threads) == (2, 3, torch.get_num_threads())
    assert fast.cpu_seconds == pytest.approx(3, abs=1e-3)


@pytest.mark.parametrize(("decides", "met"), [("both", False), ("cpu", False), ("wall", True)])
def test_the_time_that_decides_has_to_keep_the_bar(monkeypatch, decides, met):
    clock(monkeypatch, WALLS, CPUS)
    cases = Case("fast", int, most=0.5), Case("slow", int)
    results = measure(Comparison("c", {}, Case("base", int), cases, rounds=3, decides=decides), CPU)
    assert results[1].met is met


def test_what_all_do_alike_is_taken_off_in_the_same_round(monkeypatch):
    clock(monkeypatch, [10, 4, 2, 12, 24, 60], [10, 4, 2, 12, 24, 60])
    made = Comparison("c", {}, Case("base", int), (Case("own", int),), rounds=2, less=Case("less", int), parts=2)
    base, own, less = measure(made, CPU)
    assert own.ratio == pytest.approx((2 / 8 + 12 / 48) / 2)  # of 10, 4, 2 and 60, 24, 12
    assert (base.seconds_p50, own.seconds_p50, less.seconds_p50) == (14, 3.5, 3.5)  # (8 + 48) / 2, over two parts


def test_a_baseline_that_is_taken_off_keeps_its_time_and_the_others_have_what_is_beyond(monkeypatch):
    clock(monkeypatch, [4, 5], [4, 5])
    base = Case("base", int)
    found = measure(Comparison("c", {}, base, (Case("own", int, seconds_most=1.1),), rounds=1, less=base), CPU)
    assert [result.seconds_p50 for result in found] == [4, 1]
    assert (found[1].ratio, found[1].met) == (0.25, True)


def test_cpu_time_counts_all_threads_and_children_that_have_ended():
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import threading; [t.start() for t in [threading.Thread(target=lambda: exec({burn!r}))]]"
    child = costs.stopwatch(start.python("-c", code), CPU)
    assert child.cpu >= 0.3
    idle = costs.stopwatch(lambda: costs.time.sleep(0.2), CPU)
    assert idle.cpu < 0.1 < idle.wall


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

    assert costs.cost(call, CPU) == (2 * 100 * 200 * 300, 2 * 100 * 300 * 4)
    a, b = torch.randn(10, 20, requires_grad=True), torch.randn(20, 30, requires_grad=True)  # and backward
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
    assert min(found.flops, found.bytes) > 0


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
        ops.loss_part(small, most=1.0, rounds=1),
        ops.against_naive(small, most=1.0, rounds=1),
        ops.against_naive(dense, most=1.0, memory_most=1.0, rounds=1),
        ops.many_tuples(small, (9, 20)),
        ops.implementations(small, rounds=1),
        ops.draw(9, 5, (0.5, 2.0), CPU, most=1.0),
        ops.draw(9, 5, 0.1, CPU),
    ]
    for comparison in made:
        assert len(measure(comparison, CPU)) == len(costs.every_case(comparison))
    assert small.features.grad is None


def small_engine(method, splits, device, *, width=64, **settings):
    optimizer = steps.SGD(learning_rate=0.1)
    settings = {"data": "noise", "width": 2 if width == 64 else width} | settings
    config = steps.TrainConfig(method=method, optimizer=optimizer, device="cpu", **settings)
    return steps.Engine(config, splits)


def test_engine_and_bare_loop_do_the_same_work(monkeypatch):
    monkeypatch.setattr(steps, "_engine", small_engine)
    splits = steps.random_images(256, 16, classes=5)
    engine = small_engine(ERM(), splits, CPU)
    call, bare = steps.engine_step(engine), steps.bare_step(splits, CPU)
    assert [call() for _ in range(2)] == pytest.approx([bare() for _ in range(2)], rel=0.05)
    assert all(call() > 0 for _ in range(3))  # an epoch has two mini-batches, and it goes on after its end
    assert engine.at.step == 5


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("cls", [Mixup, CutMix])
def test_every_case_returns_images_and_soft_targets(cls, mode):
    comparison = ops.against_timm(cls, mode, 4, 6, 5, 3, CPU)
    assert comparison.rounds == 3
    assert [case.most for case in comparison.cases if case.most] == [1.0 if mode == "batch" else 1.5]
    for case in (comparison.baseline, *comparison.cases):
        images, targets = case.call()
        assert (images.shape, targets.shape) == ((4, 3, 6, 6), (4, 5))
        torch.testing.assert_close(targets.sum(1), torch.ones(4))


def test_every_pairwise_method_has_its_turn_at_both_sizes(monkeypatch):
    monkeypatch.setattr(ops, "PAIR_SIZES", ((4, 6, 5, 3), (4, 7, 5, 3)))
    made = [make() for make in ops.pair_comparisons(CPU)]
    names = [comparison.name for comparison in made]
    assert names[: len(names) // 2] == names[len(names) // 2 :]
    modes = {f"{name} and soft targets, {mode}" for name in ("mixup", "cutmix") for mode in ("batch", "pair", "elem")}
    others = {f"{method.name} and {'values' if method.name == 'c-mixup' else 'soft targets'}" for method in ops.OTHERS}
    assert set(names) == modes | others
    assert all(len(most) == len(ops.PAIR_SIZES) for most in ops.OTHERS.values())
    for comparison, most in zip(made[len(modes) : len(names) // 2], ops.OTHERS.values(), strict=True):
        assert [case.most for case in comparison.cases] == [most[0], None]
        for case in (comparison.baseline, *comparison.cases):
            images, targets = case.call()
            assert len(images) == len(targets)
            assert images.shape[1:] == (3, 6, 6)


def test_a_method_of_several_mixed_mini_batches_is_compared_with_as_many_of_timms():
    comparison = ops.against_mixup(MixupPath(lambdas=3), 1.5, 4, 6, 5, 1, CPU)
    assert comparison.baseline.name == "timm, mixup, 3 times"
    assert len(comparison.cases[0].call()[0]) == 3 * 4


class Counting(torch.nn.Module):
    """Counts the images that pass, with and without a gradient of theirs."""

    def __init__(self):
        super().__init__()
        self.forward_only = self.with_gradient = 0

    def forward(self, inputs):
        self.with_gradient += len(inputs) * inputs.requires_grad
        self.forward_only += len(inputs) * (not inputs.requires_grad)
        return inputs.flatten(1)


def test_a_part_of_a_pass_takes_that_part_of_each_batch():
    network = Counting()
    steps.bare_passes(network, [torch.zeros(8, 1, 2, 2), torch.zeros(4, 1, 2, 2)], forward=2.5, gradient=1)
    assert (network.forward_only, network.with_gradient) == (2 * 12 + 4 + 2, 12)
    steps.bare_passes(network, [torch.zeros(8, 1, 2, 2)], forward=0, gradient=0.01)
    assert network.with_gradient == 12 + 2  # two images at least


@pytest.mark.filterwarnings("ignore:calibration. no temperature is fitted")
def test_every_suite_that_needs_no_files_or_method_of_its_own_is_compared(monkeypatch):
    monkeypatch.setattr(steps, "IMAGES", 60)
    makers = steps.suite_comparisons(CPU)
    made = [makers[at]() for at in (0, 1, 2, 3, -3, -2, -1)]
    names = [comparison.name.removeprefix("evaluation, ") for comparison in made]
    assert names == [s.name for s in SUITES if s.name not in ("corruption", "intrusion", "localisation")]
    assert len(makers) == len(made) + len(CorruptionSettings().corruptions)
    assert [comparison.shape["forward"] for comparison in made[:2]] == [1, 1]
    # FGSM and PGD of 4 steps in two norms, and the checks on a sixth of the images
    assert (made[2].shape["forward"], made[2].shape["gradient"]) == pytest.approx((5 + 20 / 60, 10 + 40 / 6), abs=1e-3)
    assert [case.most for case in made[0].cases] == [1.1]
    assert len(measure(made[0], CPU)) == 2


@pytest.fixture
def asked(monkeypatch):
    """The methods and settings of every engine that is asked for; none is made."""
    found = []
    monkeypatch.setattr(steps, "_engine", lambda method, *_, **settings: found.append((method, settings)))
    monkeypatch.setattr(steps, "engine_step", lambda engine: int)
    return found


def test_every_method_has_its_turn_and_those_with_bars_at_full_width(asked):
    splits = steps.random_images(4, 8, classes=2)
    comparison = steps._method_comparison(splits, CPU)
    assert [type(method) for method, _ in asked] == [cls for cls in METHODS if not hasattr(cls, "needs_attention")]
    assert comparison.baseline.name == "erm"
    comparison = steps._bar_comparison(splits, CPU)
    assert {case.name: case.most for case in comparison.cases} == {
        **{"alignmix": 1.05, "regmixup": 2.02, "multimix": 1.02, "dense-multimix": 1.06},
        **{"self-distilled multimix": 1.37, "self-distilled dense-multimix": 1.37},
    }
    assert comparison.shape["width"] == 64
    assert comparison.decides == "cpu"


def test_the_narrow_step_is_that_of_the_recipe(asked, monkeypatch):
    monkeypatch.setattr(steps, "load", str)
    comparison = steps._digits_comparison(CPU)
    assert [case.most for case in comparison.cases] == [1.8]
    recipe = digits()
    assert {name: getattr(recipe, name) for name in steps.DIGITS} == steps.DIGITS
    assert [settings for _, settings in asked] == [steps.DIGITS] * 2


def test_attention_is_compared_in_a_vision_transformer(asked):
    comparison = steps._attention_comparison(CPU)
    assert [(case.name, case.most) for case in comparison.cases] == [("transmix", 1.05)]
    assert [(method.name, settings["model"]) for method, settings in asked] == [
        *(("erm", "timm:vit_tiny_patch16_224"), ("transmix", "timm:vit_tiny_patch16_224"))
    ]


def test_every_loader_serves_every_image_once_alike(tmp_path):
    for made in (data.in_memory(10, 8), data.in_files(tmp_path, 10, 32)):
        for loader in (data.ours, data.torchvisions, data.timms):
            batches = list(loader(made, 4, 0, CPU))
            assert [len(images) for images, _ in batches][:2] == [4, 4]
            labels = torch.cat([labels for _, labels in batches])
            assert len(labels) in (8, 10)  # timm leaves out what does not fill a mini-batch
            assert len(labels.unique()) == len(labels)  # the labels of ten images are 0 to 9
            for images, _ in batches:
                assert images.shape[1:] == made.shape
                assert images.dtype == torch.float32
                assert images.mean().abs() < 1.5  # normalised


def test_the_data_path_is_compared_in_memory_and_in_files(monkeypatch):
    monkeypatch.setattr(data, "SMALL", (8, 8, 4))
    monkeypatch.setattr(data, "LARGE", (2, 16, 2))
    monkeypatch.setattr(data, "WORKERS", 0)
    made = [make() for make in data.data_comparisons(CPU)]
    assert [(comparison.shape["px"], comparison.parts) for comparison in made] == [(8, 2)] * 2 + [(16, 1)] * 2
    results = measure(made[0], CPU)
    assert [result.case for result in results] == ["torchvision and DataLoader", "multimix", "timm"]
    assert results[0].peak_ratio is None


def test_starts_are_of_every_command_and_keep_seconds(monkeypatch):
    lines = []
    monkeypatch.setattr(start.subprocess, "run", lambda line, **_: lines.append(line[1:]))
    made = [make() for make in start.start_comparisons(CPU)]
    assert [[case.seconds_most for case in comparison.cases] for comparison in made] == [[0.2], [1.0] * len(COMMANDS)]
    for comparison in made:
        measure(comparison, CPU)
    assert {line[2] for line in lines if line[0] == "-m"} == set(COMMANDS)


def test_command_prints_bars_and_writes_records(monkeypatch, tmp_path, capsys):
    comparison = Comparison("two sums", {"n": 3}, Case("base", lambda: sum(range(10))), (Case("other", int, 9.0),), 2)
    monkeypatch.setitem(BENCHES, "ops", lambda device: [lambda: comparison])
    monkeypatch.setattr(command, "rates", lambda device: Rates(1e9, 1e9))
    monkeypatch.setattr(command, "BENCHES", BENCHES)
    out = tmp_path / "deep" / "records.jsonl"
    usual = torch.get_num_threads()
    assert main(["bench", "ops", "--out", str(out), "--device", "cpu", "--threads", "1", "2"]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    base, other = records[:2]
    assert (base["case"], other["case"]) == ("base", "other")
    assert [each["threads"] for each in records] == [1, 1, 2, 2]
    assert other["ratio_most"] == 9.0
    assert other["shape"] == {"n": 3}
    assert other["flops_per_second"] == 1e9
    assert {"device", "torch", "commit", "date", "seconds_p20", "seconds_p50", "seconds_p80", "met"} <= set(other)
    assert "two sums (n 3), against base; 2 rounds" in capsys.readouterr().out
    assert torch.get_num_threads() == usual


def record(case, seconds, threads=1, **more):
    """A record as a bench writes it; without more, as benches wrote it before they measured CPU time."""
    bars = {"ratio_most": None, "peak_ratio_most": None, "seconds_floor": None, "met": None}
    spread = dict.fromkeys(("seconds_p20", "seconds_p50", "seconds_p80"), seconds)
    return {
        **{"comparison": "c", "case": case, "shape": {"n": 1}, "threads": threads, "ratio": seconds, "peak_ratio": 1.0},
        **{"peak_bytes": 2**20, **spread, **bars, **more},
    }


def test_the_table_has_a_row_a_case_and_number_of_threads_beside_its_baseline():
    own = {"cpu_ratio": 0.25, "cpu_ratio_p20": 0.2, "cpu_ratio_p80": 0.3, "ratio_most": 0.5, "decides": "cpu"}
    records = [
        *(record("base", 4.0), record("own", 1.0, met=True, **own), record("other", 2.0)),
        *(record("base", 3.0, 2), record("own", 1.5, 2, met=False, **own), record("other", 2.0, 2)),
        *(record("base", 8.0, 2), record("third", 2.0, 2, seconds_most=1.0, decides="both")),
    ]
    ((what, rows),) = grouped(records)
    assert what == "c (n 1), against base"
    assert [row[:2] for row in rows] == [("own", "1"), ("own", "2"), ("other", "1"), ("other", "2"), ("third", "2")]
    assert rows[0][2:6] == ("4000, 1000 (1000 to 1000)", "1.000", "0.250 (0.200 to 0.300)", "≤ 0.500 CPU")
    assert [row[-1] for row in rows] == ["met", "**missed**", "", "", ""]
    assert rows[4][2].startswith("8000, 2000")
    assert (rows[3][4], rows[4][5]) == ("", "≤ 1000 ms")
    assert {len(row) for row in rows} == {len(HEADINGS)}
