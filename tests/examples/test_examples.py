"""Every example and the notebook run as they are, and say what they measured."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
WANTED = {"own_loop.py", "timm_finetune.py", "text_classifier.py", "time_series.py", "tabular.py", "segmentation.py"}


def test_there_is_one_of_each():
    assert set(SCRIPTS) == WANTED


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCRIPTS)
def test_example(name, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    scores = [float(number) for number in re.findall(r"(?:accuracy|IoU)\s+([\d.]+)%", done.stdout)]
    assert len(scores) >= 3
    chance = {"segmentation.py": 20, "own_loop.py": 60, "timm_finetune.py": 60}.get(name, 45)
    assert min(scores) > chance
    assert max(scores) <= 100


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_notebook_runs_from_top_to_bottom(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((EXAMPLES / "multimix.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), "multimix.ipynb", "exec"), names)  # noqa: S102
    curves = {name: curve for name, (_, curve) in names["trained"].items()}
    assert curves["MultiMix"][-1] > 0.8
    assert curves["plain"][-1] > 0.8
