"""``multimix compare`` and ``multimix report``."""

import json
import shutil
from pathlib import Path

import pytest

from cli.command import TINY
from multimix.lab.cli.__main__ import main
from multimix.lab.train import from_json
from train.tiny import events, files, steady, stopped_after, weights

LINE = f"compare digits --methods erm distilled-multimix erm --seeds 2 --out out --quiet {TINY}"


def runs_in(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("*/model.safetensors"))}


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    """Two methods with two seeds; leave them as they are."""
    out = tmp_path_factory.mktemp("compared") / "out"
    assert main(LINE.replace("--out out", f"--out {out}").split()) == 0
    return out


def test_every_method_is_trained_with_every_seed(compared):
    assert list(runs_in(compared)) == ["distilled-multimix-0", "distilled-multimix-1", "erm-0", "erm-1"]
    for folder in compared.glob("*-?"):
        config = from_json(json.loads((folder / "config.json").read_text())["config"])
        assert (config.title, config.seed) == (folder.name[:-2], int(folder.name[-1]))
        assert events(folder)[-1]["event"] == "end"
    assert len(set(runs_in(compared).values())) == 4


def test_a_run_is_the_same_alone_as_among_others(multimix, compared):
    multimix.succeeds(f"train digits --method distilled-multimix {TINY} --seed 1 --quiet --out . --name alone")
    assert weights(Path("alone")) == weights(compared / "distilled-multimix-1")
    assert steady(Path("alone")) == steady(compared / "distilled-multimix-1")


def test_the_table_has_a_row_for_each_method_and_the_report_is_one_file(multimix, compared):
    shutil.copytree(compared, "out")
    before = runs_in(Path("out"))
    Path("out/report.html").unlink()
    out = multimix.succeeds(LINE)
    rows = [line for line in out.splitlines() if line.startswith(("erm", "distilled"))]
    assert [row.split()[:2] for row in rows] == [["erm", "2"], *[["distilled-multimix", "2"]] * 2]
    assert "difference to erm with the same seed" in out
    accuracies = [event["accuracy"] for seed in (0, 1) for event in events(compared / f"erm-{seed}", "test")]
    assert f"{100 * sum(accuracies) / 2:.1f} ±" in rows[0]
    assert out.splitlines()[-1] == "report: out/report.html"
    assert "1 epoch: difference to erm with the same seed" in Path("out/report.html").read_text()
    assert runs_in(Path("out")) == before


def test_a_comparison_that_stopped_half_way_is_finished_and_no_more(multimix, compared):
    shutil.copytree(compared, "out")
    before = runs_in(Path("out"))
    stamps = {path: path.stat().st_mtime_ns for path in Path("out").glob("*-0/model.safetensors")}
    for name in ("erm-1", "distilled-multimix-1"):
        shutil.rmtree(Path("out", name))
    with stopped_after(3):  # erm-1 takes two mini-batches
        multimix(LINE)
    assert set(before) - set(runs_in(Path("out"))) == {"distilled-multimix-1"}
    assert Path("out/distilled-multimix-1/config.json").exists()
    multimix.succeeds(LINE)
    assert runs_in(Path("out")) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.bad_input
def test_runs_with_other_settings_are_refused_and_left(multimix, compared):
    shutil.copytree(compared, "out")
    before = files(Path("out"))
    said = "holds a run with another epochs (1, not 2); give another --out, or take it further with --extend"
    assert said in multimix.complains(f"{LINE} --epochs 2")
    assert files(Path("out")) == before


def test_a_run_that_fails_is_reported_and_the_same_command_goes_on(multimix, compared):
    Path("out/erm-1/model.safetensors.part/full").mkdir(parents=True)  # in the way of its weights
    shutil.copy(compared / "erm-1/config.json", "out/erm-1")
    code, out, err = multimix(LINE)
    assert (code, out) == (1, "")
    *table, last = err.splitlines()
    assert last.startswith("multimix: 1 of 4 runs failed; those that finished are kept, and the same command goes on")
    assert [line.split()[1:9:2] for line in table if line.startswith("│ erm")] == [["erm", "1", "1", "[Errno"]]
    whole = runs_in(compared)
    assert runs_in(Path("out")) == {name: whole[name] for name in whole if name != "erm-1"}
    shutil.rmtree("out/erm-1/model.safetensors.part")
    multimix.succeeds(LINE)
    assert runs_in(Path("out")) == whole


def test_report_takes_a_run_or_folders_of_runs(multimix, compared):
    for where, count in ((compared, "2"), (compared / "erm-0", "1")):
        out = multimix.succeeds(f"report {where} --out page{count}.html")
        assert out.splitlines()[-1] == f"report: page{count}.html"
        assert [line.split()[:2] for line in out.splitlines() if line.startswith("erm")] == [["erm", count]]
    assert {path.name for path in multimix.folder.iterdir()} == {"page1.html", "page2.html"}


def test_the_records_of_a_report_can_be_kept_and_reported_again(multimix, compared):
    out = multimix.succeeds(f"report {compared} --records records.jsonl --format csv")
    assert "records: records.jsonl" in out
    again = multimix.succeeds("report records.jsonl --format csv")
    assert again.strip() == out[: out.index("records: ")].strip()
    assert len(Path("records.jsonl").read_text().splitlines()) >= 6  # four students and two teachers


def test_a_run_that_has_not_finished_makes_a_page_but_no_table(multimix):
    with stopped_after(1):
        multimix(f"train digits --method erm {TINY} --out . --name run --quiet")
    said = "no run has finished yet: there is no table\nreport: report.html\n"
    assert multimix.succeeds("report run") == said
