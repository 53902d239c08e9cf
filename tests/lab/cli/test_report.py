"""``multimix report`` of evaluation suites."""

import csv
import io
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from multimix.lab.cli.report import reference
from multimix.lab.report import read_run, write_records
from report.factory import ended, epoch, outcome, write_run
from report.suites import all_suites

SCRIPT = Path(__file__).parents[3] / "scripts" / "fill_tables.py"
NEEDS_SCRIPT = pytest.mark.skipif(not SCRIPT.is_file(), reason="an installed package has no scripts")


@pytest.fixture
def runs(multimix):
    chosen = {name: one for name, one in all_suites().items() if name in ("occlusion", "ood")}
    return [write_run(Path("runs") / label, label=label, evaluations=chosen) for label in ("erm", "mixup")]


def test_the_main_table_comes_first_and_then_that_of_every_suite(multimix, runs):
    out = multimix.succeeds("report runs --records r.jsonl")
    headings = [line for line in out.splitlines() if line.startswith("digits, ")]
    found = [line.partition("epochs")[2].partition(" last")[0] for line in headings]
    assert found == [":", ", ood: AUROC (%) ↑;", ", ood: FPR95 (%) ↓;", ", occlusion:"]
    assert "Average accuracy (%) ↑" in out
    assert multimix.succeeds("report r.jsonl").strip() == out[: out.index("records: ")].strip()


def test_one_suite_is_printed_whole(multimix, runs):
    write_records("r.jsonl", [read_run(run) for run in runs])
    assert multimix.succeeds("report r.jsonl --suite ood --format markdown").count("**digits, ") == 5
    assert multimix.succeeds("report r.jsonl --suite accuracy").startswith("digits, preact_resnet18, 2 epochs: last")
    assert len(multimix.succeeds("report r.jsonl --format csv").strip().splitlines()) == 3
    assert "occlusion/area/accuracy_mean" in multimix.succeeds("report r.jsonl --format csv --suite occlusion")


@pytest.fixture
def seeds(multimix):
    """Three methods with two seeds each; mixup is two points better than erm, cutmix three worse."""
    ood = all_suites()["ood"].event("ood")

    def run(label: str, value: float, seed: int) -> Path:
        events = [epoch(1), epoch(2), outcome(value + seed / 100, nll=1 - value, epoch=2), ended(), ood]
        return write_run(Path("seeds") / f"{label}-{seed}", label=label, seed=seed, events=events)

    values = {"mixup": 0.92, "erm": 0.90, "cutmix": 0.87}
    return [run(label, value, seed) for label, value in values.items() for seed in range(2)]


def test_the_differences_stand_behind_the_main_table_and_in_the_page(multimix, seeds):
    plain = multimix.succeeds("report seeds")
    out = multimix.succeeds("report seeds --paired erm --records r.jsonl")
    headings = [line.partition("epochs")[2][:12] for line in out.splitlines() if line.startswith("digits, ")]
    assert headings == [": last epoch", ": difference", ", ood: AUROC", ", ood: FPR95"]
    assert "+2.00 [+2.00, +2.00]*" in out
    assert "-3.00 [-3.00, -3.00] ▼" in out
    assert "difference to erm" in Path("report.html").read_text()
    assert multimix.succeeds("report r.jsonl --paired erm").strip() == out[: out.index("records: ")].strip()
    assert "difference" not in plain


def test_the_columns_of_the_differences_may_be_of_any_suite(multimix, seeds):
    line = "--paired mixup --metrics ood/digits/msp/auroc nll"
    out = multimix.succeeds(f"report seeds {line} --format csv")
    found = list(csv.DictReader(io.StringIO(out[: out.index("report: ")])))
    assert [row["label"] for row in found] == ["cutmix", "erm"]
    assert [float(row["nll_difference_mean"]) for row in found] == pytest.approx([0.05, 0.02])
    assert [float(row["ood/digits/msp/auroc_difference_mean"]) for row in found] == [0, 0]
    assert "accuracy_difference_mean" not in found[0]
    assert "Δ OOD digits MSP AUROC (points)" in Path("report.html").read_text()
    out = multimix.succeeds("report seeds --suite ood --paired erm --metrics ood/digits/msp/auroc --format markdown")
    assert "**digits, preact_resnet18, 2 epochs, ood: difference to erm with the same seed" in out


@pytest.mark.bad_input
@pytest.mark.parametrize("option", ["--out page.html", "--records again.jsonl"])
def test_records_in_a_file_make_no_page(multimix, seeds, option):
    write_records("r.jsonl", [read_run(run) for run in seeds])
    assert "--out and --records are of run folders" in multimix.complains(f"report r.jsonl {option}")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--suite odo", "suite: no record of 'odo'; there are ood"),
        ("--paired emr", "against: expected one of cutmix, erm, mixup, got 'emr'; did you mean erm?"),
        ("--metrics nll", "--metrics are the columns of the paired table: expected --paired LABEL too, got none"),
        ("--suite ood --paired erm", "exact_match and bce are not among them"),
    ],
)
def test_what_cannot_be_compared_leaves_no_page(multimix, seeds, options, said):
    assert said in multimix.complains(f"report seeds {options}")
    assert not Path("report.html").exists()


def test_methods_are_compared_with_erm_else_with_the_first(seeds):
    mixup, erm, cutmix = (seeds[at : at + 2] for at in (0, 2, 4))
    odd = write_run(Path("odd"), label="erm", seed=3, learning_rate=1.0)
    other = write_run(Path("other"), label="erm", data="cifar10")
    assert (reference(seeds), reference(seeds, "cutmix")) == ("erm", "cutmix")
    assert reference([*mixup, *cutmix]) == reference([*mixup, *cutmix, odd]) == "mixup"
    for folders in (erm, [mixup[0], erm[0]], [*seeds, odd], [*seeds, other]):  # "erm" and odd are two rows of one label
        assert reference(folders) is None


@pytest.mark.filterwarnings("default:1 of 6 runs")
def test_unfinished_runs_are_named_where_tables_are_printed(multimix, seeds):
    (seeds[0] / "metrics.jsonl").unlink()
    said = f"multimix: warning: 1 of 6 runs are unfinished, and in no table: {seeds[0]}\n"
    assert multimix("report seeds")[::2] == (0, said)


@pytest.fixture
def script(monkeypatch):
    script = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
    monkeypatch.setitem(script.filled.__globals__, "ROOT", Path.cwd())
    return script


def rows_between(script, words):
    """Titles and rows of the table that a mark with these words gets."""
    filled = script.filled(f"<!-- records: r.jsonl{words} -->\nold\n<!-- end -->\n")
    assert filled.endswith("\n<!-- end -->\n")
    assert script.filled(filled) == filled
    lines = filled.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [cells[0], *cells[2:]]


@NEEDS_SCRIPT
def test_a_mark_may_choose_suite_rows_columns_and_differences(multimix, seeds, script):
    write_records("r.jsonl", [read_run(run) for run in seeds])
    assert [row[0] for row in rows_between(script, "")] == ["Method", "mixup", "erm", "cutmix"]
    assert rows_between(script, " labels=cutmix,mixup metrics=nll,accuracy") == [
        ["Method", "n", "NLL ↓", "Accuracy (%) ↑"],
        ["cutmix", "2", "0.130 ± 0.000", "87.5 ± 0.7"],
        ["mixup", "2", "**0.080 ± 0.000**", "**92.5 ± 0.7**"],
    ]
    assert rows_between(script, " paired=erm metrics=nll labels=cutmix,mixup") == [
        ["Method", "n", "Δ NLL ↓"],
        ["cutmix", "2", "+0.0300 \\[+0.0300, +0.0300\\] ▼"],
        ["mixup", "2", "**-0.0200 \\[-0.0200, -0.0200\\]**"],
    ]
    of_suite = rows_between(script, " suite=ood metrics=ood/digits/msp/auroc paired=erm labels=mixup")
    assert [row[0] for row in of_suite] == ["Method", "mixup"]


@NEEDS_SCRIPT
@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (" labels=erm,cutmx", "labels: expected one of mixup, erm, cutmix, got 'cutmx'; did you mean cutmix"),
        (" pared=erm", "labels=..., lengths=..., beside=..., got 'pared=erm'"),
        (" paired", "got 'paired'"),
    ],
)
def test_a_mark_that_asks_for_what_is_not_there_is_an_error(multimix, seeds, script, words, said):
    write_records("r.jsonl", [read_run(run) for run in seeds])
    with pytest.raises(ValueError, match=re.escape(said)):
        rows_between(script, words)
    Path("r.jsonl").write_text('{"suite": "ood", "ours": 1.0, "theirs": 1.0}\n')
    with pytest.raises(ValueError, match=r"r\.jsonl: expected no words, since it is not of runs|got 'pa"):
        rows_between(script, words)
