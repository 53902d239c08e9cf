"""Two processes do not write into one run folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from multimix.lab.train import resume, train
from multimix.lab.train.folder import RunFolder
from train.tiny import tiny

HOLD = """
import sys, time
from pathlib import Path
from multimix.lab.train.folder import RunFolder

with RunFolder(Path(sys.argv[1])).writing():
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def held(tmp_path):
    """A folder that another process is writing into."""
    folder = tmp_path / "run"
    train(tiny(epochs=1), folder, quiet=True)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "held\n"
        yield folder, process
        process.kill()


def test_the_second_is_refused_until_the_first_is_gone(held):
    folder, process = held
    before = {path: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
    with pytest.raises(BlockingIOError, match=r"run folder .* is being written by another process; wait for its end"):
        resume(folder, quiet=True)
    assert {path: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()} == before
    process.kill()
    process.wait()
    assert resume(folder, quiet=True).finished


def test_a_lock_leaves_nothing_behind(tmp_path):
    with RunFolder(tmp_path).writing():
        assert list(tmp_path.iterdir()) == []
    with RunFolder(tmp_path).writing():
        pass
