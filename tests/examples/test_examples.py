"""Every example runs: for one epoch here, as they are and to what they learn in ``make test-all``."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ("segmentation.py", "tabular.py", "time_series.py")


def scores(said: str) -> list[float]:
    """The accuracies that an example prints, at least three, in percent."""
    found = [float(number) for number in re.findall(r"(?:accuracy|IoU)\s+([\d.]+)%", said)]
    assert len(found) >= 3
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_example_runs_for_an_epoch(name, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location(f"example_{name.removesuffix('.py')}", EXAMPLES / name)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert example.EPOCHS > 1
    monkeypatch.setattr(example, "EPOCHS", 1)
    example.main()
    assert 0 <= min(scores(capsys.readouterr().out)) <= 100


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCRIPTS)
def test_example_learns(name, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert min(scores(done.stdout)) > (20 if name == "segmentation.py" else 45)


def test_no_example_is_left_out():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SCRIPTS)
