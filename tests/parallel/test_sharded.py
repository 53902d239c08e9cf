"""Weights shared out among processes: what a step does is the same, whatever the network and the method."""

import json

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from multimix.distill import SelfDistilled
from multimix.lab.train import AdamW
from multimix.methods import AdaMixUp, AutoMix, CoMixup, MultiMix, PuzzleMix, SuperMix
from parallel.jobs import each, largest_difference
from parallel.shared import METHODS, MODELS, both, looked_at, runs, taken_over
from parallel.together import together
from train.tiny import tiny, weights

CASES = [(model, "multimix") for model in MODELS] + [("resnet", name) for name in METHODS if name != "multimix"]
BLOCKS = {
    "vision transformer": ["network.model.blocks.0", "network.model.blocks.1"],
    "resnet": [f"network.model.layer{i}.0" for i in range(1, 5)],
    "tied": ["network.model.body.layers.1"],
    "plain": [f"network.model.{i}" for i in (1, 3)],
}


@pytest.fixture(scope="module")
def answers():
    """What each of two processes finds in every case, all in one process group."""
    return dict(zip(CASES, zip(*together(2, each, both, CASES), strict=True), strict=True))


@pytest.mark.parametrize(("model", "method"), CASES)
def test_steps_are_those_of_processes_with_all_weights(model, method, answers):
    for answer in answers[model, method]:
        shared, alike = answer["shared"], answer["alike"]
        assert shared["losses"] == pytest.approx(alike["losses"], rel=1e-12)
        assert largest_difference(shared["weights"], alike["weights"]) < 1e-12
        assert shared["blocks"] == ["", *BLOCKS[model]]
        assert alike["blocks"] == []


SHARED = {
    "method": SelfDistilled(MultiMix(tuples=20), warmup=True),
    "optimizer": AdamW(),
    "ema": 0.9,
    "devices": 2,
    "batch_size": 16,
    "fsdp": True,
}


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_weights(tmp_path):
    together(2, runs, tiny(**SHARED, train_size=64, checkpoint_steps=1), tmp_path)
    assert weights(tmp_path / "whole") == weights(tmp_path / "stopped")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    tests = [line for line in lines if line["event"] == "test"]
    assert [line.get("network") for line in tests] == [None, "ema", "teacher"]
    assert {"validation_accuracy"} <= lines[0].keys()
    assert (tmp_path / "whole" / "pictures" / "captions.json").exists()
    whole, averaged = (load_file(tmp_path / "whole" / name) for name in ("model.safetensors", "ema.safetensors"))
    assert whole.keys() == averaged.keys()
    assert largest_difference(whole, averaged) > 0


def test_a_checkpoint_has_whole_weights_which_one_that_shares_nothing_takes_over():
    shared = tiny(**SHARED, train_size=96)
    one, two = together(2, taken_over, shared, tiny(**{**SHARED, "train_size": 96, "fsdp": False}), 2, 2)
    middle, alike, alike_later, again, again_later = one
    for loaded in (alike, again):
        assert_close(loaded["network"], middle["network"], rtol=0, atol=0)
        assert_close(loaded["optimizer"], middle["optimizer"], rtol=0, atol=0)
        assert_close(loaded["ema"], middle["ema"], rtol=0, atol=0)
    assert_close(alike_later["network"], again_later["network"])
    assert_close(two[4]["network"], again_later["network"], rtol=0, atol=0)
    assert largest_difference(again_later["network"], middle["network"]) > 0


def test_to_put_a_network_together_draws_nothing():
    """Else dropout would go on with other numbers than in a run that shares nothing."""
    assert together(2, looked_at, tiny(**SHARED)) == [True, True]


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
def test_what_cannot_be_shared_out_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{**SHARED, **changes})
