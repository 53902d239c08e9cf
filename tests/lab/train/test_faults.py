"""What may go wrong around a run: memory, disks, files, clocks. Each ends in one clear error, and nothing is lost."""

import os
import re
import signal
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multimix.lab.runs.checkpoint import load_newest, previous, save_checkpoint
from multimix.lab.runs.environment import StopRequest, Terminated
from multimix.lab.runs.folder import Metrics
from multimix.lab.train import Engine, TrainingError, resume, train
from multimix.methods import ERM, MultiMix
from train.faults import train_as_nobody, train_while_a_worker_dies, with_room_for
from train.tiny import BATCHES, steady, stopped_after, tiny, weights

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


def flipped(path: Path) -> None:
    """Flip a bit amid the largest record: between records bits mean nothing."""
    with zipfile.ZipFile(path) as archive:
        record = archive.read(max(archive.infolist(), key=lambda info: info.file_size))
    content = bytearray(path.read_bytes())
    content[content.find(record) + len(record) // 2] ^= 16
    path.write_bytes(content)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_said_so(damage, stopped, whole):
    damage(stopped / "last.ckpt")
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged .*; going on from the one before, .*previous\.ckpt"):
        resume(stopped, quiet=True)
    assert weights(stopped) == weights(whole)
    assert steady(stopped) == steady(whole)


def test_a_kill_between_two_names_leaves_the_older_checkpoint(stopped, whole):
    gone(stopped / "last.ckpt")
    assert resume(stopped, quiet=True).finished
    assert weights(stopped) == weights(whole)


def test_a_finished_run_keeps_one_checkpoint(whole):
    assert (whole / "last.ckpt").is_file()
    assert not (whole / "previous.ckpt").exists()


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


def test_a_run_on_a_full_disk_goes_on_once_there_is_room(stopped, whole):
    kind, said = with_room_for(3_000, partial(resume, quiet=True), stopped)
    assert (kind, "cannot be written: File too large" in said) == ("OSError", True)
    resume(stopped, quiet=True)
    assert weights(stopped) == weights(whole)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(0o755)

    kind, said = with_room_for(10**9, train_as_nobody, CONFIG, tmp_path / "run")
    assert (kind, said) == ("PermissionError", f"[Errno 13] Permission denied: '{tmp_path / 'run'}'")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()]
)
def test_out_of_memory_says_what_helps(error, tmp_path, monkeypatch):
    real, count = ERM.__call__, iter(range(1, 100))

    def call(self: ERM, *arguments: Any, **more: Any) -> Any:
        if next(count) == BATCHES + 2:
            raise error
        return real(self, *arguments, **more)

    monkeypatch.setattr(ERM, "__call__", call)
    message = r"^out of memory at mini-batch 5 of erm; the last good checkpoint is .*last\.ckpt\. A smaller batch_size"
    with pytest.raises(TrainingError, match=message):
        train(tiny(), tmp_path / "run", quiet=True)
    assert resume(tmp_path / "run", quiet=True).finished


def test_other_errors_of_a_step_are_not_called_so(tmp_path, monkeypatch):
    def call(self: ERM, *arguments: Any, **more: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(ERM, "__call__", call)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
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
    real, done = Engine.step, iter(range(1, 100))

    def step(self: Engine, *arguments: Any) -> Any:
        if next(done) == 6:
            (pictures / "train" / "a").rename(hidden)
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "step", step)
        with pytest.raises(ValueError, match=rf"{re.escape(str(pictures / 'train' / 'a'))}.*\.png"):
            train(config, folder, quiet=True)
    hidden.rename(pictures / "train" / "a")
    assert load_newest(folder / "last.ckpt")["at"][2] >= 6
    resume(folder, quiet=True)
    assert weights(folder) == weights(expected)


@pytest.mark.slow
def test_a_data_worker_that_dies_is_named_and_the_run_goes_on(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("multimix.lab.data._files.MEMORY_LIMIT", 0)
    settings = {"image_size": 8, "train_size": None, "batch_size": 8, "checkpoint_steps": 1, "workers": 1}
    config = tiny(data=f"folder:{pictures}", **settings)
    folder = tmp_path / "run"
    # In a process of its own: torch raises wherever the main thread is when it hears of the death.
    kind, said = with_room_for(2**40, train_while_a_worker_dies, config, folder)
    assert kind == "RuntimeError"
    assert re.search(r"DataLoader worker .*(killed by signal|exited unexpectedly)", said)
    assert resume(folder, quiet=True).finished


def test_sigterm_stops_behind_a_checkpoint(tmp_path, monkeypatch, whole):
    real, done = Engine.step, iter(range(1, 100))

    def step(self: Engine, *arguments: Any) -> Any:
        if next(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *arguments)

    folder = tmp_path / "run"
    config = tiny(method=MultiMix(tuples=20))  # no checkpoints but at the end of an epoch
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "step", step)
        with pytest.raises(Terminated, match="143") as stop:
            train(config, folder, quiet=True)
    assert stop.value.said == "stopped by SIGTERM at mini-batch 2, behind a checkpoint"
    assert signal.getsignal(signal.SIGTERM) is before
    assert load_newest(folder / "last.ckpt")["at"] == [0, 2, 2]
    resume(folder, quiet=True)
    assert weights(folder) == weights(whole)


def test_outside_the_main_thread_signals_are_left_alone():
    from concurrent.futures import ThreadPoolExecutor

    def enter() -> Any:
        with StopRequest():
            return signal.getsignal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result() is before
