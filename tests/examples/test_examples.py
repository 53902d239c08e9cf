"""Every example and the notebook run: for one epoch here, as they are and to what they learn in ``make test-all``."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ("own_loop.py", "segmentation.py", "tabular.py", "text_classifier.py", "time_series.py", "timm_finetune.py")


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
    if name == "timm_finetune.py":  # which trains a model of its own first
        train = example.train
        monkeypatch.setattr(example, "train", lambda *given, epochs, **more: train(*given, epochs=1, **more))
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
    chance = {"segmentation.py": 20, "own_loop.py": 60, "timm_finetune.py": 60}.get(name, 45)
    assert min(scores(done.stdout)) > chance


def run_notebook(epochs: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Return every method's test accuracies, epoch by epoch."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((EXAMPLES / "multimix.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            code = "".join(cell["source"]).replace("epochs=12", f"epochs={epochs}")
            exec(compile(code, "multimix.ipynb", "exec"), names)  # noqa: S102
    curves = {name: curve for name, (_, curve) in names["trained"].items()}
    assert {len(curve) for curve in curves.values()} == {epochs}
    return curves


def test_notebook_runs_from_top_to_bottom_and_no_example_is_left_out(monkeypatch):
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SCRIPTS)
    assert len(run_notebook(1, monkeypatch)) == 6


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_methods_of_the_notebook_learn(monkeypatch):
    curves = run_notebook(12, monkeypatch)
    assert curves["MultiMix"][-1] > 0.8
    assert curves["plain"][-1] > 0.8
