"""A run on two processes from the command line: it ends, is killed, is stopped, and goes on to the same weights."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from multimix.lab.train.folder import RunFolder
from parallel.jobs import whole
from parallel.together import together
from train.tiny import weights

SETTINGS = shlex.split(
    "train digits --method multimix --method.tuples 20 --train-size 100 --width 2 --strides 1 2 2 2 --epochs 8"
    " --batch-size 32 --device cpu --devices 2 --checkpoint-steps 1 --quiet --validate-every 8"
)


def begin(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "multimix.lab.cli", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, cwd=folder, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    said, complained = process.communicate(timeout=200)
    return process.returncode, said, complained


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_stopped_it_goes_on_to_the_same_weights(tmp_path):
    newest = tmp_path / "run" / "last.ckpt"
    process = begin(tmp_path, *SETTINGS, "--out", ".", "--name", "run")
    wait_for(newest.exists, process)
    os.kill(int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]), signal.SIGKILL)
    code, _, _ = ended(process)
    assert code != 0
    assert not (tmp_path / "run" / "model.safetensors").exists()

    before = newest.stat().st_mtime_ns
    process = begin(tmp_path, "train", "--resume", "run", "--quiet")
    # For a moment between two names there is no newest checkpoint.
    wait_for(lambda: newest.exists() and newest.stat().st_mtime_ns != before, process)
    process.terminate()
    code, _, complained = ended(process)
    assert code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM at mini-batch" in complained
    assert "a run goes on with: multimix train --resume RUN" in complained

    code, said, complained = ended(begin(tmp_path, "train", "--resume", "run", "--quiet"))
    assert (code, complained) == (0, "")
    assert said.count("test: accuracy") == 1  # the first process speaks, the others do not
    together(2, whole, RunFolder(tmp_path / "run").read_config(), tmp_path / "whole")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == list(range(1, 9))
    assert load_file(tmp_path / "run" / "model.safetensors")
