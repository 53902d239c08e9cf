"""Runs in processes of their own: which die with their parent, and without the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
import torch

from multimix.lab.train import Engine, TrainConfig, TrainingError, train
from multimix.lab.train.launch import FailedRunsError, Launch, run_all
from multimix.lab.train.launch.job import Job, Loaded, attempt
from train.tiny import steady, stopped_after, tiny, weights

PARENT = """
import sys, time
from pathlib import Path
from multimix.lab.train import TrainConfig
from multimix.lab.train.launch.job import Job, Pool

if __name__ == "__main__":
    pool = Pool(1)
    pool.submit([Job(Path(sys.argv[1]), TrainConfig(epochs=1000, device="cpu"))])
    print(pool._workers[0].process.pid, flush=True)
    time.sleep(120)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def writer(folder: Path, *, within: float = 500.0) -> int:
    """The process that writes into a run folder, which it holds open as long as it does."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if any(handle.readlink() == folder for handle in (process / "fd").iterdir()):
                    return int(process.name)
            except OSError:  # it, or a file of its, is gone
                continue
        time.sleep(0.1)
    raise AssertionError(f"no process wrote into {folder} within {within} s")


def kill_amid(folder: Path) -> Thread:
    """Kill the process that writes into a run folder once it has finished an epoch; join the thread in the end."""

    def kill() -> None:
        pid = writer(folder)
        while not (folder / "last.ckpt").exists():
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)

    thread = Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.timeout(900)
def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    with parent:
        worker = int(parent.stdout.readline())
        assert writer(tmp_path / "run") == worker
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 30
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive(worker)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_is_replaced_and_its_run_ends_as_if_nothing_had_been(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2 * torch.get_num_threads())  # so that each has as many as here
    runs = {tmp_path / f"run-{seed}": tiny(seed=seed, epochs=12 if seed == 0 else 2, label="run") for seed in range(2)}
    killer = kill_amid(tmp_path / "run-0")
    run_all(runs, Launch(jobs=2))
    killer.join()
    said = capfd.readouterr().out.splitlines()
    assert [line for line in said if "tried again" in line] == [
        "run, seed 0: its process was killed by SIGKILL; it is tried again"
    ]
    ends = {line for line in said if line.endswith(("done", "retry 1"))}
    assert ends == {"run, seed 0: retry 1", "run, seed 0: done", "run, seed 1: done"}
    capfd.readouterr()
    assert_as_alone(runs, tmp_path / "alone")
    assert capfd.readouterr() == ("", "")


def assert_as_alone(runs: dict[Path, TrainConfig], out: Path) -> None:
    """Runs have ended as they do one after the other, with nothing that disturbs them."""
    run_all({out / folder.name: config for folder, config in runs.items()}, Launch(quiet=True))
    for folder in runs:
        assert weights(folder) == weights(out / folder.name)
        assert steady(folder) == steady(out / folder.name)


def failing(error: Exception, monkeypatch) -> list[Path]:
    """Let every run begin by raising; return the list of those that began."""
    begun = []

    def fail(config: TrainConfig, folder: Path, **_: object) -> None:
        begun.append(folder)
        raise error

    monkeypatch.setattr("multimix.lab.train.launch.job.train", fail)
    return begun


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(OSError("disk"), 3), (KeyError("bug"), 3), (RuntimeError("memory"), 3), (FileNotFoundError("data"), 1)],
)
def test_only_what_may_pass_is_tried_again(error, attempts, tmp_path, monkeypatch, capfd):
    runs = {tmp_path / "one": tiny(label="one"), tmp_path / "two": tiny(label="two")}
    train(runs[tmp_path / "two"], tmp_path / "two", quiet=True)
    begun = failing(error, monkeypatch)
    with pytest.raises(FailedRunsError, match="1 of 2 runs failed"):
        run_all(runs, Launch(retries=2, quiet=True))
    assert begun == [tmp_path / "one"] * attempts
    table = capfd.readouterr().err
    assert f"one │    0 │        {attempts} │ " in table
    assert str(error) in table


def test_wrong_input_of_every_run_is_an_error_of_the_whole(tmp_path, monkeypatch):
    begun = failing(ValueError("data must be there"), monkeypatch)
    with pytest.raises(ValueError, match=r"^data must be there$"):
        run_all({tmp_path / "one": tiny(), tmp_path / "two": tiny()}, Launch(quiet=True))
    assert begun == [tmp_path / "one", tmp_path / "two"]


@pytest.mark.parametrize(
    ("error", "said", "final"),
    [(MemoryError(), "out of memory at mini-batch", False), (TrainingError("the loss turned nan"), "the loss", True)],
)
def test_training_that_diverges_would_again_and_memory_may_be_free_then(error, said, final, tmp_path, monkeypatch):
    def step(engine: Engine, *given: object) -> None:
        raise error

    monkeypatch.setattr(Engine, "step", step)
    failure = attempt(Job(tmp_path / "run", tiny()), data=Loaded())
    assert failure.reason.startswith(said)
    assert (failure.final, failure.wrong) == (final, False)


@pytest.mark.parametrize(("patience", "reason"), [(20.0, None), (0.0, "held")])
def test_a_folder_that_another_process_holds_is_waited_for_a_while(patience, reason, tmp_path, monkeypatch):
    with stopped_after(2):
        train(tiny(), tmp_path / "run", quiet=True)
    tries = iter([BlockingIOError("held"), BlockingIOError("held")])

    def resume(folder: Path, *, quiet: bool, trust_code: bool) -> None:
        for error in tries:
            raise error

    monkeypatch.setattr("multimix.lab.train.launch.job.resume", resume)
    monkeypatch.setattr("multimix.lab.train.launch.job._PATIENCE", patience)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    failure = attempt(Job(tmp_path / "run", tiny()), data=Loaded())
    assert (failure and failure.reason, failure is not None and failure.final) == (reason, False)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"launcher": "cloud"}, "launcher must be one of local, ray, slurm, got 'cloud'"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"slurm": "time=1"}, "options of Slurm go with launcher slurm, not local; got 'time=1'"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        Launch(**settings)


@pytest.mark.bad_input
def test_runs_on_several_devices_or_of_another_configuration_are_refused(tmp_path, finished):
    with pytest.raises(ValueError, match="devices and nodes must be 1 where many runs share the machines, got 2 and 1"):
        run_all({tmp_path / "run": tiny(devices=2)}, Launch())
    with pytest.raises(ValueError, match=r"another recipe \('test', not 'custom'\); give another --out"):
        run_all({finished: tiny()}, Launch())
    assert list(tmp_path.iterdir()) == []
