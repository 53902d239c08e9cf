"""The studies without images: their records are those of runs, and splits are the same for all methods."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from multimix.lab.report import paired_table, read_records, summarise
from multimix.methods import ERM

FOLDER = Path(__file__).parents[2] / "studies"
SCRIPT = FOLDER / "vectors.py"


@pytest.fixture
def script(monkeypatch):
    """The script with the smallest of its data and a single epoch."""
    spec = importlib.util.spec_from_file_location("vectors", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "vectors", script)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "TABLES", {"iris": load_iris})
    monkeypatch.setattr(script, "TABULAR", {**script.TABULAR, "epochs": 1, "hidden": (8,)})
    monkeypatch.setattr(script, "SEQUENCE", {**script.SEQUENCE, "epochs": 1, "hidden": 8, "batch_size": 512})
    threads = torch.get_num_threads()
    yield script
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("case", "data"), [("tabular", "iris"), ("sequence", "digits-rows")])
def test_records_make_the_tables_of_runs(script, monkeypatch, tmp_path, case, data):
    out = tmp_path / "new" / "records.jsonl"
    monkeypatch.setattr(sys, "argv", ["vectors.py", case, "--out", str(out), "--seeds", "2"])
    script.main()
    rows = read_records(out)
    (comparison,) = summarise(rows).comparisons
    names = script.METHODS if case == "tabular" else script.SEQUENCE_METHODS
    assert [row.name for row in comparison.rows] == ["erm", *names]
    assert all(row.seeds == (0, 1) for row in comparison.rows)
    assert (comparison.data, comparison.metrics) == (data, ("accuracy", "nll", "ece"))
    assert paired_table(summarise(rows), "erm").startswith(f"**{data}, ")
    assert {(row["device"], row["torch"]) for row in rows} == {("cpu", torch.__version__)}
    assert {row["examples"] for row in rows} == {45 if case == "tabular" else 540}
    assert all("date" in row and "commit" in row for row in rows)


def test_splits_are_stratified_and_follow_from_the_seed(script):
    first, again, other = (script.split(load_iris, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first.train, other.train)
    assert np.bincount(first.test_classes).tolist() == [15, 15, 15]


def test_a_loop_of_ones_own_learns_sequences(script, monkeypatch):
    monkeypatch.setattr(script, "SEQUENCE", {**script.SEQUENCE, "epochs": 6, "hidden": 16, "batch_size": 64})
    monkeypatch.setattr(script, "methods", lambda _: {"erm": ERM()})
    accuracy, *_ = script.sequence(1)
    assert accuracy["metric"] == "accuracy"
    assert accuracy["value"] > 0.6  # 0.1 is chance
