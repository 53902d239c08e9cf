"""What may go wrong around a run: memory, disks, files, a second process. One clear error, and nothing is lost."""

import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multimix.lab.report import read_run, records
from multimix.lab.runs.checkpoint import load_newest, previous, save_checkpoint
from multimix.lab.runs.environment import Terminated, sigterm_noted
from multimix.lab.runs.folder import Folder, Metrics
from multimix.lab.train import TrainingError, resume, train
from multimix.methods import MultiMix
from parallel.together import with_room_for
from train.tiny import BATCHES, before_step, files, raising, steady, stopped_after, tiny, weights

CONFIG = tiny(method=MultiMix(tuples=20), checkpoint_steps=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(CONFIG, tmp_path_factory.mktemp("whole") / "run", quiet=True).path


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with stopped_after(BATCHES + 2):
        train(CONFIG, tmp_path / "run", quiet=True)
    return tmp_path / "run"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_said_so(stopped, whole):
    truncated(stopped / "last.ckpt")
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged .*; going on from the one before, .*previous\.ckpt"):
        resume(stopped, quiet=True)
    assert weights(stopped) == weights(whole)
    assert steady(stopped) == steady(whole)


def test_a_kill_between_two_names_leaves_the_older_checkpoint(stopped, whole):
    (stopped / "last.ckpt").unlink()
    assert resume(stopped, quiet=True).finished
    assert not (stopped / "previous.ckpt").exists()
    assert weights(stopped) == weights(whole)


def test_a_finished_run_without_its_records_is_measured_again(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "metrics.jsonl").unlink()
    with pytest.warns(UserWarning, match=r"no record of 2 of 2 epochs that were trained: .* is measured again"):
        run = resume(folder, quiet=True)
    assert weights(folder) == weights(whole)
    before, now = (Metrics(path / "metrics.jsonl") for path in (whole, folder))
    (last,) = now.read("epoch")
    kept = ("event", "epoch", "step", "validation_accuracy", "validation_nll", "validation_ece")
    assert last == {name: before.read("epoch")[-1][name] for name in kept}
    for name in ("accuracy", "nll", "ece", "weights"):
        assert [test[name] for test in now.read("test")] == [test[name] for test in before.read("test")]
    assert set(now.read("end")[0]) == {"event", "peak_mib"}
    assert run.finished
    with pytest.warns(UserWarning, match="1 of 2 epochs have no record, the first of them epoch 1"):
        assert {record["metric"] for record in records([read_run(folder)])} >= {"accuracy", "peak_mib"}
    for name in ("metrics.jsonl", "last.ckpt"):
        (folder / name).unlink()
    with pytest.warns(UserWarning, match="neither records of its end nor a checkpoint: it is trained anew"):
        resume(folder, quiet=True)
    assert weights(folder) == weights(whole)


@pytest.mark.bad_input
def test_if_both_are_damaged_the_older_one_is_named(stopped):
    for name in ("last.ckpt", "previous.ckpt"):
        truncated(stopped / name)
    with (
        pytest.warns(UserWarning, match="going on from the one before"),
        pytest.raises(ValueError, match=r"previous\.ckpt is damaged"),
    ):
        resume(stopped, quiet=True)


def test_a_full_disk_keeps_both_checkpoints(tmp_path):
    path = tmp_path / "last.ckpt"
    for number in range(2):
        save_checkpoint(path, {"number": number})
    kind, said = with_room_for(20_000, save_checkpoint, path, {"number": 2, "network": torch.randn(50_000)})
    assert (kind, said) == ("OSError", f"{path} cannot be written: File too large; what was there before is kept")
    assert load_newest(path)["number"] == 1
    assert load_newest(previous(path))["number"] == 0
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_leaves_no_half_line(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.write("epoch", epoch=1)
    size = metrics.path.stat().st_size
    kind, said = with_room_for(size + 10, partial(metrics.write, "epoch", epoch=2, text="x" * 100))
    assert (kind, said.startswith(f"{metrics.path} cannot be written: File too large")) == ("OSError", True)
    metrics.write("epoch", epoch=2)
    assert [event["epoch"] for event in metrics.read()] == [1, 2]


def test_a_run_that_met_a_full_disk_is_resumed(stopped, whole):
    kind, said = with_room_for(20_000, resume, stopped)
    assert (kind, "last.ckpt cannot be written: File too large; what was there" in said) == ("OSError", True)
    resume(stopped, quiet=True)
    assert weights(stopped) == weights(whole)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()]
)
def test_out_of_memory_says_what_helps(error, tmp_path):
    message = r"^out of memory at mini-batch 5 of erm; the last good checkpoint is .*last\.ckpt\. A smaller batch_size"
    with pytest.raises(TrainingError, match=message), before_step(BATCHES + 2, raising(error)):
        train(tiny(), tmp_path / "run", quiet=True)
    assert resume(tmp_path / "run", quiet=True).finished


def test_other_errors_of_a_step_are_not_called_so(tmp_path):
    error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"), before_step(1, raising(error)):
        train(tiny(), tmp_path / "run", quiet=True)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of images of differing size, in folders."""
    dice = np.random.default_rng(0)
    for part, each in (("train", 20), ("test", 4)):
        for name in ("a", "b"):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for number in range(each):
                size = int(dice.integers(8, 14))
                pixels = dice.integers(0, 255, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "data"


def test_a_file_that_vanishes_is_named_and_the_run_goes_on_once_it_is_back(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("multimix.lab.data._files.MEMORY_LIMIT", 0)  # decode at every step, as of a large set
    settings = {"image_size": 8, "train_size": None, "batch_size": 8, "checkpoint_steps": 1}
    config = tiny(data=f"folder:{pictures}", **settings)
    expected = train(config, tmp_path / "whole", quiet=True).path
    folder, hidden = tmp_path / "run", tmp_path / "hidden"
    with (
        pytest.raises(ValueError, match=rf"{re.escape(str(pictures / 'train' / 'a'))}.*\.png"),
        before_step(6, lambda _: (pictures / "train" / "a").rename(hidden)),
    ):
        train(config, folder, quiet=True)
    hidden.rename(pictures / "train" / "a")
    assert load_newest(folder / "last.ckpt")["at"][2] >= 6
    resume(folder, quiet=True)
    assert weights(folder) == weights(expected)


@pytest.mark.parametrize(("batch", "at"), [(2, [0, 2, 2]), (BATCHES, [1, 0, BATCHES])])
def test_sigterm_stops_behind_a_checkpoint(batch, at, tmp_path, whole):
    """Amid an epoch, and at its end, where no checkpoint would be due but the epoch's own."""
    folder, before = tmp_path / "run", signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(Terminated, match="143") as stop,
        before_step(batch, lambda _: os.kill(os.getpid(), signal.SIGTERM)),
    ):
        train(replace(CONFIG, checkpoint_steps=None), folder, quiet=True)
    assert stop.value.said == f"stopped by SIGTERM at mini-batch {batch}, behind a checkpoint"
    assert signal.getsignal(signal.SIGTERM) is before
    assert load_newest(folder / "last.ckpt")["at"] == at
    resume(folder, quiet=True)
    assert weights(folder) == weights(whole)


def test_outside_the_main_thread_signals_are_left_alone():
    def enter() -> Any:
        with sigterm_noted():
            return signal.getsignal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result() is before


def test_the_second_is_refused_until_the_first_is_gone(tmp_path):
    folder = train(tiny(epochs=1), tmp_path / "run", quiet=True).path
    before = files(folder)
    with Folder(folder).writing():
        assert files(folder) == before, "a lock leaves nothing behind"
        with pytest.raises(BlockingIOError, match=r"run folder .* is being written by another process; wait for its"):
            resume(folder, quiet=True)
    assert files(folder) == before
    assert resume(folder, quiet=True).finished
