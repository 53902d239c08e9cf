"""A run that diverges stops, says where, and leaves a checkpoint that is sound."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multimix.lab.runs.checkpoint import load_checkpoint
from multimix.lab.runs.loop import LossLog
from multimix.lab.train import SGD, Engine, TrainingError, train
from multimix.lab.train.folder import RunFolder
from multimix.methods import ERM, MultiMix
from multimix.protocols import Losses, Network
from train.tiny import BATCHES, tiny

WILD = SGD(learning_rate=1e30)


def poison(monkeypatch: pytest.MonkeyPatch, batch: int, value: float) -> None:
    """Let the loss of mini-batch number ``batch`` (from 1) of ERM be ``value``."""
    real, count = ERM.__call__, iter(range(1, 1000))

    def call(self: ERM, network: Network, inputs: Any, targets: Tensor, **more: Any) -> Losses:
        losses = real(self, network, inputs, targets, **more)
        if next(count) != batch:
            return losses
        return Losses(losses.total * value, losses.terms)

    monkeypatch.setattr(ERM, "__call__", call)


def assert_finite(checkpoint: Path) -> dict[str, Any]:
    state = load_checkpoint(checkpoint)
    assert all(bool(value.isfinite().all()) for value in state["network"].values())
    return state


@pytest.mark.parametrize(
    ("batch", "value", "changes", "at"),
    [
        (BATCHES + 3, float("nan"), {}, [1, 0, BATCHES]),
        (BATCHES + 3, float("-inf"), {}, [1, 0, BATCHES]),
        (4, float("nan"), {"checkpoint_steps": 1}, [0, 3, 3]),
    ],
)
def test_it_names_mini_batch_method_and_checkpoint(batch, value, changes, at, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    poison(monkeypatch, batch, value)
    message = (
        rf"^the loss of erm turned {value} at mini-batch {batch};"
        rf" the last good checkpoint is {re.escape(str(folder / 'last.ckpt'))}\. A lower learning rate"
    )
    with pytest.raises(TrainingError, match=message):
        train(tiny(**changes), folder, quiet=True)
    assert assert_finite(folder / "last.ckpt")["at"] == at
    assert [event["event"] for event in RunFolder(folder).metrics.read()] == ["epoch"] * at[0]
    assert not (folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, r"the loss of erm turned (nan|inf) at mini-batch 2; no"),
        ({"clip": 1.0}, r"the loss of erm turned (nan|inf) at mini-batch 2; no"),
        ({"method": MultiMix(tuples=20)}, r"the loss of multimix turned (nan|inf) at mini-batch 2; no"),
        ({"precision": "bf16-mixed"}, r"of erm turned (nan|inf|non-finite) at mini-batch [12]; no"),
        ({"accumulate": 2}, r"the loss of erm turned (nan|inf) at mini-batch 3; no"),
        ({"batch_size": 100}, r"the predictions of erm turned NaN at mini-batch 1; no"),
        ({"batch_size": 100, "validation": 0.0}, r"of erm turned (nan|inf|non-finite) at mini-batch [12]"),
        ({"batch_size": 100, "validation": 0.0, "epochs": 1}, r"the predictions of erm turned NaN at mini-batch 1"),
    ],
    ids=["plain", "clipped", "multimix", "bfloat16", "accumulated", "at validation", "unvalidated", "at the test"],
)
def test_a_learning_rate_out_of_all_bounds_is_found_wherever_it_shows(changes, what, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match=what):
        train(tiny(**{"optimizer": WILD, **changes}), folder, quiet=True)
    if (folder / "last.ckpt").exists():
        assert_finite(folder / "last.ckpt")


@pytest.mark.parametrize("ruined", ["head.weight", "a buffer"])
def test_weights_that_are_gone_after_a_finite_loss_reach_no_checkpoint(ruined, tmp_path, monkeypatch):
    real, folder = Engine.step, tmp_path / "run"

    def step(self: Engine, *batch: Any) -> Any:
        done = real(self, *batch)
        if self.at.step == 2:
            values = dict(self.network.named_parameters()) | {"a buffer": next(self.network.buffers())}
            values[ruined].detach().view(-1)[0] = float("inf")
        return done

    monkeypatch.setattr(Engine, "step", step)
    with pytest.raises(TrainingError, match=r"the weights of erm turned non-finite at mini-batch 2; the last good"):
        train(tiny(checkpoint_steps=1), folder, quiet=True)
    assert assert_finite(folder / "last.ckpt")["at"] == [0, 1, 1]


def test_looking_seldom_still_finds_the_first():
    """On a GPU many losses are looked at together."""
    log = LossLog()
    for value in (1.0, float("nan"), 3.0, float("inf")):
        log.add(torch.tensor(value), {}, 8)
    loss, ago = log.look()
    assert loss != loss
    assert ago == 2


def test_losses_are_averaged_however_they_are_looked_at():
    log = LossLog()
    for value in (1.0, 2.0, 6.0):
        log.add(torch.tensor(value), {"labels": torch.tensor(2 * value), "teacher": torch.tensor(0.0)}, 8)
        if value == 2.0:
            assert log.look() == (2.0, None)
    assert log.look() == (6.0, None)
    assert log.look() == (None, None)
    log.seconds = 2.0
    assert log.record() == {
        "train_loss": 3.0, "train_labels_loss": 6.0, "train_teacher_loss": 0.0,
        "images_per_second": 12.0, "seconds": 2.0,
    }  # fmt: skip
    again = LossLog(**asdict(log))
    assert again.record() == log.record()
