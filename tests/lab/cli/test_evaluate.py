"""``multimix evaluate``: suites, their settings, what is kept, what is left out and what is refused."""

import json
import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest

from multimix.lab.evaluate import SUITES
from train.tiny import events

QUICK = (
    "--examples 40 --adversarial.steps 2 --adversarial.curve 0 0.1 --adversarial.curve-examples 10"
    " --ood.ood-examples 30 --ood.train-examples 60 --ood.knn-neighbours 5 --corruption.severities 1"
    " --embedding.picture-examples 30 --intrusion.mixing-batches 2 --intrusion.mixing-batch 16"
)
"""Settings with which every suite takes a second or so."""

KNOWN = ", ".join(suite.name for suite in SUITES)


@pytest.fixture
def run(finished, multimix) -> Path:
    """A finished run of one's own, in the folder the command runs in."""
    shutil.copytree(finished, "run")
    return Path("run")


def records_of(run: Path) -> dict[str, dict]:
    found = events(run, "test")
    assert len({event["suite"] for event in found}) == len(found)
    return {event["suite"]: event for event in found}


def test_every_suite_that_suits_the_data(multimix, run):
    out = multimix.succeeds(f"evaluate run --suites all {QUICK}")
    lines = [line for line in out.splitlines() if re.match(r"run: \w+: ", line)]
    assert lines[0].startswith("run: localisation: left out: localisation needs images from files")
    measured = [suite.name for suite in SUITES if suite.name != "localisation"]
    shown = [line for line in lines if line.endswith("(40 images)")]
    assert [line.split(": ")[1] for line in shown] == measured
    assert any(re.match(r"run: fit: right about .* under-fitted", line) for line in lines)
    assert out.splitlines()[-1] == "report: run/report.html"
    records = records_of(run)
    assert set(records) == set(measured)
    assert all(record["settings"]["examples"] == record["examples"] == 40 for record in records.values())
    assert records["adversarial"]["settings"]["steps"] == 2
    figures = json.loads((run / "evaluation/adversarial.json").read_text())["figures"]
    assert figures["epsilon_curve"]["epsilon"] == [0.0, 0.1]
    page = (run / "report.html").read_text()
    assert all(f">{title}</h2>" in page for title in ("Calibration", "Robustness", "Corruptions", "Embedding"))


def test_what_is_there_is_kept_until_asked_for_again(multimix, run):
    first = multimix.succeeds("evaluate run --suites calibration occlusion")
    before = records_of(run)["occlusion"]
    assert multimix.succeeds("evaluate run --suites calibration occlusion") == first
    assert records_of(run)["occlusion"] == before
    assert multimix.succeeds("evaluate run --suites calibration occlusion --again") == first
    after = records_of(run)["occlusion"]
    assert after["seconds"] != before["seconds"]
    assert after["50/accuracy"] == before["50/accuracy"]


def test_a_suite_keeps_its_own_number_of_examples(multimix, run):
    multimix.succeeds("evaluate run --suites accuracy occlusion --examples 50 --occlusion.examples 20")
    assert {suite: record["examples"] for suite, record in records_of(run).items()} == {"accuracy": 50, "occlusion": 20}


def test_what_a_small_set_changes_is_said_and_kept_and_what_is_given_stays(multimix, run):
    few = "evaluate run --suites embedding intrusion --examples 12 --intrusion.mixing-batches 1"
    out = multimix.succeeds(few)
    notes = [line for line in out.splitlines() if ": note: " in line]
    assert "run: intrusion: note: --intrusion.mixing-batch is 12 in place of 128, as there are only 12" in notes[-1]
    records = records_of(run)
    assert [record["settings"]["neighbours"] for record in records.values() if "knn_accuracy" in record] == [1]
    assert len(notes) == sum(len(records[suite]["notes"]) for suite in ("embedding", "intrusion"))
    assert multimix.succeeds(few) == out
    assert records_of(run) == records
    said = multimix.complains(f"{few} --embedding.neighbours 20")
    assert said.startswith("--embedding.neighbours=20 must be from 1 to 11, as there are only 11 images")


def test_help_names_every_suite_and_setting(multimix):
    out = multimix.succeeds("evaluate --help")
    for suite in SUITES:
        assert f"{suite.name} options" in out
        assert all(f"--{suite.name}.{name.replace('_', '-')}" in out for name in vars(suite.Settings()))


def test_a_set_that_is_the_test_set_is_measured_and_warned_of(multimix, run):
    code, out, err = multimix("evaluate run --suites ood --ood.sets digits --ood.scores msp --quiet")
    assert (code, "ood: " in out) == (0, True)
    said = [line.removeprefix("run: ood: note: ") for line in out.splitlines()]
    assert (err, said[1]) == ("", "digits is the data set of the run itself")
    assert said[2].startswith("359 of the 359 images of digits are in the test set too; ")
    assert records_of(run)["ood"]["notes"] == said[1:3]
    assert records_of(run)["ood"]["digits/msp/auroc"] == pytest.approx(0.5)


def test_a_stop_says_how_it_goes_on(multimix, run, monkeypatch):
    stop = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("multimix.lab.evaluate.Occlusion.__call__", stop)
    code, out, err = multimix("evaluate run --suites calibration occlusion")
    assert (code, err) == (130, "multimix: stopped; the same command goes on with the suites that are not done\n")
    assert "run: calibration: " in out
    assert list(records_of(run)) == ["accuracy", "calibration"]
    monkeypatch.undo()
    monkeypatch.chdir(multimix.folder)
    monkeypatch.setattr("multimix.lab.evaluate.Calibration.__call__", stop)  # it is there already
    assert "run: occlusion: " in multimix.succeeds("evaluate run --suites calibration occlusion")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--suites acuracy", f"unknown suite acuracy; known are {KNOWN}; did you mean accuracy?"),
        ("--suites ood --ood.set digits", "Unrecognized options: --ood.set, digits; did you mean --ood.sets?"),
        ("--suites localisation", "localisation needs images from files, with a box for each:"),
        ("--suites ood --ood.sets nowhere", "--ood.sets: unknown set 'nowhere'; known are gaussian-noise, "),
        ("--ood.scores msp", "--ood.FIELD: ood is not measured here: expected it among --suites"),
        ("--suites embedding --embedding.neighbours 0", "--embedding.neighbours must be at least 1, got 0"),
        ("--suites accuracy --examples 400", "--accuracy.examples=400 does not fit: there are 359 images"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line_and_change_nothing(multimix, run, arguments, said):
    before = (run / "metrics.jsonl").read_bytes()
    assert said in multimix.complains(f"evaluate run {arguments}")
    assert (run / "metrics.jsonl").read_bytes() == before
