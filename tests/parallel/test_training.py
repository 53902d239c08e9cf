"""Training on several processes does what one does, also where weights are sharded; the long form is ``make chaos``."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from chaos import parity
from multimix.distill import SelfDistilled
from multimix.lab.train import AdamW
from multimix.lab.train.parallel import start_processes
from multimix.methods import AdaMixUp, AutoMix, CoMixup, MultiMix, PuzzleMix, SuperMix
from parallel.jobs import METHODS, MODELS, both, each, largest_difference, runs, steps, taken_over
from parallel.together import together
from train.tiny import tiny, weights

CASES = [(model, "multimix") for model in MODELS] + [("resnet", name) for name in METHODS if name != "multimix"]
BLOCKS = {
    "vision transformer": ["network.model.blocks.0", "network.model.blocks.1"],
    "resnet": [f"network.model.layer{i}.0" for i in range(1, 5)],
    "tied": ["network.model.body.1"],
    "plain": [f"network.model.{i}" for i in (1, 3)],
}


@pytest.fixture(scope="module")
def answers():
    """What each of two processes finds in every case, all in one process group."""
    return dict(zip(CASES, zip(*together(2, each, both, CASES), strict=True), strict=True))


@pytest.mark.parametrize(("model", "method"), CASES)
def test_steps_are_those_of_processes_with_all_weights(model, method, answers):
    for answer in answers[model, method]:
        sharded, alike = answer["sharded"], answer["alike"]
        assert sharded["losses"] == pytest.approx(alike["losses"], rel=1e-12)
        assert largest_difference(sharded["weights"], alike["weights"]) < 1e-12
        assert sharded["blocks"] == ["", *BLOCKS[model]]
        assert alike["blocks"] == []


SHARDED = {
    "method": SelfDistilled(MultiMix(tuples=20), warmup=True),
    "optimizer": AdamW(),
    "ema": 0.9,
    "devices": 2,
    "batch_size": 16,
    "fsdp": True,
}


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_weights(tmp_path):
    together(2, runs, tiny(**SHARDED, train_size=64, checkpoint_steps=1), tmp_path)
    assert weights(tmp_path / "whole") == weights(tmp_path / "stopped")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    tests = [line for line in lines if line["event"] == "test"]
    assert [line.get("network") for line in tests] == [None, "ema", "teacher"]
    assert {"validation_accuracy"} <= lines[0].keys()
    assert (tmp_path / "whole" / "pictures" / "captions.json").exists()
    whole, averaged = (load_file(tmp_path / "whole" / name) for name in ("model.safetensors", "ema.safetensors"))
    assert whole.keys() == averaged.keys()
    assert largest_difference(whole, averaged) > 0


def test_a_checkpoint_has_whole_weights_which_a_run_without_shards_takes_over():
    sharded = tiny(**SHARDED, train_size=96)
    one, two = together(2, taken_over, sharded, tiny(**{**SHARDED, "train_size": 96, "fsdp": False}), 2, 2)
    middle, alike, alike_later, again, again_later = one
    for loaded in (alike, again):
        assert_close(loaded["network"], middle["network"], rtol=0, atol=0)
        assert_close(loaded["optimizer"], middle["optimizer"], rtol=0, atol=0)
        assert_close(loaded["ema"], middle["ema"], rtol=0, atol=0)
    assert_close(alike_later["network"], again_later["network"])
    assert_close(two[4]["network"], again_later["network"], rtol=0, atol=0)
    assert largest_difference(again_later["network"], middle["network"]) > 0


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 1}, "fsdp=True shards weights over devices: devices or nodes must be at least 2, got 1"),
        ({"compile": True}, "fsdp=True does not go with compile=True"),
        ({"channels_last": True}, "fsdp=True does not go with channels_last=True"),
        ({"method": AutoMix()}, "fsdp=True does not go with automix, which trains a module of its own in turn"),
        ({"method": AdaMixUp()}, "fsdp=True does not go with adamixup, which trains a module of its own in turn"),
        ({"method": CoMixup()}, "fsdp=True does not go with co-mixup, which takes gradients of its own in a step"),
        ({"method": PuzzleMix()}, "fsdp=True does not go with puzzlemix, which takes gradients of its own in a step"),
        ({"method": SuperMix()}, "fsdp=True does not go with supermix, which takes gradients of its own in a step"),
    ],
)
def test_what_cannot_be_sharded_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{**SHARDED, **changes})


@pytest.mark.parametrize("name", ["multimix", "distilled dense", "accumulated"])
def test_losses_over_six_steps_are_those_of_one_process(name):
    """On into a second epoch."""
    record = parity.compare(name, replace(parity.CASES[name], train_size=160), world=2, count=6)
    assert record["largest_difference"] <= parity.BAR
    assert record["processes_differ_by"] == 0


def test_running_statistics_and_teachers_stay_in_step_without_synchronised_batchnorm():
    config = parity.CASES["distilled dense"]
    config = tiny(method=config.method, ema=0.9, devices=2, batch_size=30, train_size=90, validation=0.0)
    one, two = together(2, steps, config, 7)
    for name in one:
        if name != "losses":
            assert largest_difference(one[name], two[name]) == 0
    assert one["losses"] == two["losses"]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 33}, "batch_size is that of all 2 processes together and must be a multiple of their number"),
        ({"device": "cuda"}, "device 'cuda' is not there: torch sees 0 CUDA devices"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_impossible_processes_are_refused_before_one_is_started(changes, message, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(ValueError, match=message):
        start_processes(tiny(**{"devices": 2, **changes}))


@pytest.mark.bad_input
def test_one_of_several_processes_with_a_configuration_of_one_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="devices and nodes must say that there are 4 processes, got 1 device"):
        start_processes(tiny())
