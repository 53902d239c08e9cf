import json
import math
import os
from pathlib import Path

import pytest

from multimix.lab.report import read_records, read_run, records, write_records
from multimix.lab.report._records import method_name
from report.factory import ended, epoch, outcome


def values(folder):
    return {record["metric"]: record["value"] for record in records([read_run(folder)])}


def test_every_number_is_one_flat_record(make_run):
    run = read_run(make_run(seed=4, events=[outcome(0.75, nll=0.5), ended()]))
    found = records([run])
    assert [(record["metric"], record["value"]) for record in found] == [
        ("accuracy", 0.75),
        ("nll", 0.5),
        ("seconds", 12.0),
        ("step_seconds", 0.03),
        ("peak_mib", 700),
    ]
    assert found[0] == {
        "metric": "accuracy",
        "value": 0.75,
        "seed": 4,
        "label": "mixup",
        "method": "Mixup",
        "data": "digits",
        "model": "preact_resnet18",
        "epochs": 2,
        "config": run.settings_hash,
        "commit": "abc123",
        "device": "cpu",
        "torch": "2.14.1",
        "date": "2025-05-01T10:00:00",
        "examples": 360,
        "suite": "accuracy",
        "settings": None,
    }


def test_unfinished_runs_give_no_record(make_run):
    assert records([read_run(make_run(events=[epoch(1), outcome(0.9)]))]) == []


def test_only_the_last_epoch_counts(make_run):
    events = [outcome(0.9, epoch=2), outcome(0.99, epoch=1), {"event": "end"}]
    assert values(make_run(epochs=2, events=events)) == {"accuracy": 0.9}


def test_the_later_evaluation_counts(make_run):
    assert values(make_run(events=[outcome(0.9), {"event": "end"}, outcome(0.8)])) == {"accuracy": 0.8}


def test_names_say_network_split_and_suite(make_run):
    events = [
        outcome(0.9),
        outcome(0.91, network="teacher"),
        outcome(0.92, split="validation"),
        outcome(0.5, suite="corruption", mean_corruption_error=0.4),
        outcome(0.9, suite="calibration", brier=0.2),
        {"event": "test", "suite": "ood", "network": "teacher", "digits/msp/auroc": 0.7},
        {"event": "end"},
    ]
    assert values(make_run(events=events)) == {
        "accuracy": 0.9,
        "teacher_accuracy": 0.91,
        "validation_accuracy": 0.92,
        "corruption/accuracy": 0.5,
        "corruption/mean_corruption_error": 0.4,
        "calibration/accuracy": 0.9,
        "calibration/brier": 0.2,
        "ood/teacher_digits/msp/auroc": 0.7,
    }


def test_what_is_no_number_is_no_metric(make_run):
    events = [outcome(0.9, nll=None, note="ok", exact=True), {"event": "end", "peak_mib": None}]
    assert values(make_run(events=events)) == {"accuracy": 0.9}


def test_records_survive_the_file(make_run, tmp_path: Path):
    runs = [read_run(make_run(label="µ ± \u2028 \ud800 <b>", events=[outcome(math.inf, nll=1e-300), ended()]))]
    path = tmp_path / "new" / "records.jsonl"
    write_records(path, runs)
    assert read_records(path) == records(runs)
    assert len(path.read_text().splitlines()) == 5
    assert os.listdir(path.parent) == ["records.jsonl"]


def test_not_a_number_survives_the_file(make_run, tmp_path: Path):
    write_records(tmp_path / "r", [read_run(make_run(events=[outcome(math.nan), {"event": "end"}]))])
    assert math.isnan(read_records(tmp_path / "r")[0]["value"])


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ({"type": "ERM"}, "ERM"),
        ({"type": "SelfDistilled", "gamma": 0.5, "method": {"type": "DenseMultiMix"}}, "SelfDistilled(DenseMultiMix)"),
        ({"type": "Alternate", "methods": [{"type": "MultiMix"}, {"type": "Mixup"}]}, "Alternate(MultiMix, Mixup)"),
        ({"type": "MultiMix", "alpha": [0.5, 2.0]}, "MultiMix"),
        ({}, "method"),
        ("erm", ""),
    ],
)
def test_a_method_is_called_by_its_types(method, name):
    assert method_name(method) == name


@pytest.mark.bad_input
def test_a_records_file_that_is_missing_or_broken(make_run, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"'.*none.jsonl' does not exist"):
        read_records(tmp_path / "none.jsonl")
    path = tmp_path / "records.jsonl"
    write_records(path, [read_run(make_run())])
    whole = path.read_text()
    path.write_text(whole + '{"metric"')
    with pytest.raises(ValueError, match=r"records.jsonl, line 5: not valid JSON"):
        read_records(path)
    path.write_text(whole + json.dumps(json.loads(whole.splitlines()[0]) | {"value": "0.9"}))
    with pytest.raises(ValueError, match=r"records.jsonl, line 5: value: expected int or float, got '0.9'"):
        read_records(path)
    path.write_text(whole + json.dumps(json.loads(whole.splitlines()[0]) | {"settings": [1]}))
    with pytest.raises(ValueError, match=r"records.jsonl, line 5: settings: expected an object, got \[1\]"):
        read_records(path)


@pytest.mark.bad_input
def test_records_are_not_written_over_a_folder(make_run, tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected a file to write, got a folder"):
        write_records(tmp_path, [read_run(make_run())])


def test_a_failed_write_leaves_the_old_file(make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "records.jsonl"
    path.write_text("old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"disk full"):
        write_records(path, [read_run(make_run())])
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(".*.tmp"))
