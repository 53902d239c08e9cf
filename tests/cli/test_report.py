"""``multimix report`` of evaluation suites."""

import importlib.util
from pathlib import Path

import pytest

from multimix.report import read_run, records, write_records
from report.factory import write_run
from report.suites import all_suites

SCRIPT = Path(__file__).parents[2] / "scripts" / "fill_tables.py"


@pytest.fixture
def runs(multimix):
    chosen = {name: one for name, one in all_suites().items() if name in ("occlusion", "ood")}
    return [write_run(Path("runs") / label, label=label, evaluations=chosen) for label in ("erm", "mixup")]


def test_the_main_table_comes_first_and_then_that_of_every_suite(multimix, runs):
    out = multimix.succeeds("report runs --records r.jsonl")
    headings = [line for line in out.splitlines() if line.startswith("digits, ")]
    assert [line.partition("epochs")[2].partition(" last")[0] for line in headings] == [
        ":",
        ", ood: AUROC (%) ↑;",
        ", ood: FPR95 (%) ↓;",
        ", occlusion:",
    ]
    assert "Average accuracy (%) ↑" in out
    assert multimix.succeeds("report r.jsonl").strip() == out[: out.index("records: ")].strip()


def test_one_suite_is_printed_whole(multimix, runs):
    write_records("r.jsonl", [read_run(run) for run in runs])
    out = multimix.succeeds("report r.jsonl --suite ood --format markdown")
    assert out.count("**digits, ") == 5
    assert "Step (ms)" not in out
    assert multimix.succeeds("report r.jsonl --suite accuracy").startswith("digits, preact_resnet18, 2 epochs: last")
    assert len(multimix.succeeds("report r.jsonl --format csv").strip().splitlines()) == 3
    assert "occlusion/area/accuracy_mean" in multimix.succeeds("report r.jsonl --format csv --suite occlusion")


@pytest.mark.bad_input
def test_a_suite_that_measured_nothing_leaves_no_page(multimix, runs):
    assert "suite: no record of 'odo'; there are ood and occlusion" in multimix.complains("report runs --suite odo")
    assert not Path("report.html").exists()


@pytest.mark.skipif(not SCRIPT.is_file(), reason="an installed package has no scripts")
def test_a_mark_in_a_page_may_name_a_suite(multimix, runs, monkeypatch):
    spec = importlib.util.spec_from_file_location("fill_tables", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "ROOT", Path.cwd())
    write_records("r.jsonl", [read_run(run) for run in runs])
    assert records([read_run(run) for run in runs])
    filled = script.filled("<!-- records: r.jsonl suite=occlusion -->\nold\n<!-- end -->\n")
    assert filled.startswith(
        "<!-- records: r.jsonl suite=occlusion -->\n**digits, preact_resnet18, 2 epochs, occlusion"
    )
    assert filled.endswith("\n<!-- end -->\n")
    assert "Accuracy (%) ↑ | NLL" not in filled
    assert script.filled(filled) == filled
