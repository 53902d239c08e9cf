"""``python studies/anatomy``."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import anatomy.__main__ as command
from anatomy import AnatomySettings
from cli.command import TINY

FOLDER = Path(__file__).parents[3] / "studies" / "anatomy"
FEW = "--batches 1 --tuples 50"


def test_methods_are_trained_measured_shown_and_recorded(tmp_path, capsys, monkeypatch):
    quick = partial(AnatomySettings, dense_tuples=5, expected_tuples=50, noise_tuples=(5, 10), noise_draws=2)
    monkeypatch.setattr(command, "AnatomySettings", quick)
    file = tmp_path / "there" / "records.jsonl"
    command.main(f"--methods erm multimix --out {file} {FEW} {TINY}".split())
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert {(record["label"], record["seed"]) for record in records} == {("erm", 0), ("multimix", 0)}
    out = capsys.readouterr().out
    assert out.count("trained with") == 3
    assert out.count("│ multimix") == 3 * 3  # at the start, half-way and at the end
    assert "\x1b" not in out


def test_it_is_run_by_its_folder_from_anywhere(tmp_path):
    done = subprocess.run(
        [sys.executable, str(FOLDER), "--seeds", "0"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "multimix: --seeds must be at least 1, got 0\n")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--recipe digit", "unknown recipe 'digit'"),
        (f"{TINY} --batches 0", "batches must be at least 1, got 0"),
        (f"--methods erm multimix --label same {TINY}", "methods are told apart by their labels"),
    ],
)
def test_mistakes_are_refused(line, said):
    with pytest.raises(ValueError, match=said):
        command.main(line.split())
