"""What every prediction must obey, whatever the rates."""

import json
from dataclasses import replace

import pytest

from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate, DenseMultiMix, Mixup, MultiMix
from multimix.plan import (
    PRESETS,
    Assumed,
    Fitted,
    Link,
    Setup,
    Subject,
    Work,
    count_network,
    load_rates,
    simulate,
    step_cost,
)
from multimix.plan.traffic import gathered, reduced

SUBJECT = Subject("wide_resnet16_8", 10, (3, 8, 8), 32, width=1, strides=(1, 2, 2))
RATES = [Assumed("plain", 1e12, 1e11, Link(1e9, 1e-5)), load_rates()]
FLOAT = 4


def cost(method, rates, *, batch=32, **settings):
    return step_cost(Setup(replace(SUBJECT, batch=batch), method, **settings), rates)


@pytest.mark.parametrize("rates", RATES, ids=["assumed", "fitted"])
@pytest.mark.parametrize("form", [MultiMix, DenseMultiMix])
def test_time_grows_with_tuples_images_and_devices(form, rates):
    method = form(1000)
    base = cost(method, rates).time
    assert cost(form(4000), rates).time > base
    assert cost(method, rates, batch=64).time > base
    times = [cost(method, rates, devices=d).time for d in (1, 2, 4, 8, 4096)]
    assert times == sorted(times)
    assert len(set(times)) == 5
    assert cost(SelfDistilled(method), rates).time > base > cost(ERM(), rates).time


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("form", [MultiMix, DenseMultiMix])
def test_memory_does_not_grow_with_tuples_above_a_chunk(form, device):
    few, many = (cost(form(n), RATES[0], device=device).memory["tuples"] for n in (10_000_000, 100_000_000))
    assert few == many > cost(form(10), RATES[0], device=device).memory["tuples"]


def test_one_device_sends_nothing():
    alone = cost(MultiMix(), RATES[0])
    assert (alone.traffic, alone.seconds["communication"]) == ({}, 0)


def test_what_devices_send_is_what_the_formulas_say():
    devices, b, k = 8, 32, 10
    subject = replace(SUBJECT, batch=b)
    sent = step_cost(Setup(subject, SelfDistilled(DenseMultiMix(100)), devices=devices), RATES[0]).traffic
    network = subject.build("cpu")
    parameters = sum(p.numel() for p in network.parameters())
    r = 4
    assert sent["gradients"] == pytest.approx(2 * 7 / 8 * FLOAT * parameters)
    assert sent["logits"] == 2 * 7 * FLOAT * b * r * k  # the teacher's too
    assert sent["attention"] == 7 * FLOAT * b * r
    assert sent["targets"] == 7 * 8 * b
    assert sent["gradient on logits"] == pytest.approx(2 * 7 / 8 * FLOAT * devices * b * r * k)
    assert "batch statistics" not in sent
    pooled = step_cost(Setup(subject, MultiMix(100), devices=devices, sync_batchnorm=True), RATES[0]).traffic
    assert pooled["logits"] == 7 * FLOAT * b * k
    assert "running statistics" not in pooled
    assert pooled["batch statistics"] > 0
    assert set(step_cost(Setup(subject, ERM(), devices=devices), RATES[0]).traffic) == {
        "gradients", "running statistics"
    }  # fmt: skip


def test_shared_weights_take_less_memory_and_are_sent_around():
    """Of a residual network, every block is put together by itself; stem, last norm and head stay whole in a step."""
    alike, shared = (cost(SelfDistilled(MultiMix(100)), RATES[0], devices=8, fsdp=fsdp) for fsdp in (False, True))
    count = count_network(replace(SUBJECT, batch=32))
    assert 0 < sum(count.blocks) < count.parameters
    weights, blocks = FLOAT * count.parameters, FLOAT * sum(count.blocks)
    assert shared.traffic["gradients"] == pytest.approx(7 / 8 * weights)
    assert shared.traffic["weights"] == pytest.approx(7 / 8 * (2 * weights + blocks))
    assert shared.memory["optimiser state"] == alike.memory["optimiser state"] / 8
    assert shared.memory["teacher"] == shared.memory["parameters"] < alike.memory["parameters"]
    assert shared.memory["put together"] == 2 * (weights - blocks) + 2 * FLOAT * max(count.blocks)
    assert alike.memory["put together"] == 0
    assert "weights" not in alike.traffic
    assert shared.seconds["optimiser"] < alike.seconds["optimiser"]
    alone = cost(MultiMix(100), RATES[0], fsdp=True)
    assert alone == cost(MultiMix(100), RATES[0])


def test_rings_and_trees():
    assert (reduced("", 100, 4).bytes, reduced("", 100, 4).messages) == (150, 4)
    assert (gathered("", 100, 4).bytes, gathered("", 100, 4).messages) == (300, 2)
    link = Link(rate=100, latency=2, node=4, network=10)
    assert link.seconds(gathered("", 100, 4), 4) == 3 + 4
    assert link.seconds(gathered("", 100, 5), 5) == 40 + 6


def test_tuples_over_all_devices_are_computed_on_each_of_them():
    """In weak scaling the draw and the products grow with the devices: the union is D times as large."""
    rows = simulate(Setup(SUBJECT, MultiMix(1000)), RATES[0], (1, 2, 64), "weak")
    tuples = [row.cost.seconds["draw"] + row.cost.seconds["interpolation"] for row in rows]
    assert tuples[0] < tuples[1] < tuples[2]
    assert tuples[2] > 8 * tuples[0]  # the passes over (n, k) do not grow with it
    assert [row.cost.seconds["encoder forward"] for row in rows] == [rows[0].cost.seconds["encoder forward"]] * 3
    assert rows[2].interpolation > rows[0].interpolation
    assert [row.batch for row in rows] == [32] * 3


def test_strong_scaling_shares_the_mini_batch_and_leaves_out_what_cannot_be_shared():
    rows = simulate(Setup(SUBJECT, MultiMix(100)), RATES[0], (1, 2, 3, 8, 64), "strong")
    assert [(row.devices, row.batch) for row in rows] == [(1, 32), (2, 16), (8, 4)]
    assert rows[0].efficiency == 1
    assert rows[1].efficiency > rows[2].efficiency
    for row in rows:
        assert row.efficiency == pytest.approx(row.images_a_second / row.devices / rows[0].images_a_second)
        assert row.encoder + row.interpolation + row.communication < 1  # the optimiser is the rest
        assert row.cost.time == pytest.approx(sum(row.cost.seconds.values()))


def test_traffic_hides_behind_the_backward_pass_where_that_is_assumed():
    open_, hidden = (cost(ERM(), RATES[0], devices=8, overlap=share) for share in (0.0, 1.0))
    saved = open_.seconds["communication"] - hidden.seconds["communication"]
    assert 0 < saved <= open_.seconds["encoder backward"]
    assert open_.sent_bytes == hidden.sent_bytes


def test_methods_that_alternate_take_the_mean_time_and_the_most_memory():
    parts = MultiMix(4000), Mixup()
    one, other = (cost(part, RATES[0], devices=2) for part in parts)
    both = cost(Alternate(parts, (0.25, 0.75)), RATES[0], devices=2)
    assert both.time == pytest.approx(0.25 * one.time + 0.75 * other.time)
    assert both.sent_bytes == pytest.approx(0.25 * one.sent_bytes + 0.75 * other.sent_bytes)
    assert both.peak_bytes == max(one.peak_bytes, other.peak_bytes)


def test_half_precision_halves_activations_and_no_weights():
    whole, half = (cost(ERM(), PRESETS["a100"], half=half) for half in (False, True))
    assert half.memory["activations"] == whole.memory["activations"] / 2
    assert half.memory["parameters"] == whole.memory["parameters"]
    assert half.time < whole.time


def test_an_accelerator_updates_all_tensors_at_once():
    """All passes of a parameter take a kernel each on a CPU, and all parameters share one on an accelerator."""
    slow = Assumed("", 1e20, 1e20, Link(1, 0), call=1.0)
    count = count_network(SUBJECT)
    on = {device: cost(ERM(), slow, device=device).seconds["optimiser"] for device in ("cpu", "cuda")}
    assert on["cpu"] == pytest.approx(count.tensors * on["cuda"])


def test_an_operation_takes_its_arithmetic_or_its_bytes_and_its_start():
    rates = Assumed("", peak=100, memory=10, link=Link(1, 0), utilisation=0.5, call=1)
    assert rates.seconds(Work("", "matmul", 1000, 10, 8.0, 2)) == 1000 / 50 + 2
    assert rates.seconds(Work("", "move", 0, 100, 8.0, 1)) == 10 + 1


def test_rates_between_two_sizes_are_between_theirs():
    rates = Fitted({"move@262144": 1.0, "move@4194304": 3.0, "call": 0.0})
    assert rates.seconds(Work("", "move", 0, 10, 2**18)) == 10
    assert rates.seconds(Work("", "move", 0, 10, 2**20)) == pytest.approx(20)
    assert rates.seconds(Work("", "move", 0, 10, 2**22)) == pytest.approx(30)


def test_wrong_settings_and_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="devices must be at least 1, got 0"):
        Setup(SUBJECT, ERM(), devices=0)
    with pytest.raises(ValueError, match=r"overlap must lie in \[0, 1\], got 2"):
        Setup(SUBJECT, ERM(), overlap=2)
    with pytest.raises(ValueError, match="rates know no 'exp@262144'; calibrate anew"):
        Fitted({"call": 1.0}).seconds(Work("", "exp", 0, 10, 8.0))
    file = tmp_path / "rates.jsonl"
    for text, said in (
        ("no", "--rates must be a file of JSON lines"),
        ("[1]", "--rates must hold the rates that"),
        (json.dumps({"record": "rates", "constants": [1]}), "are damaged"),
        (json.dumps({"record": "rates", "constants": {"call": 1}, "link": {"speed": 1}}), "are damaged"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            load_rates(file)
