import json
import math
import os
from pathlib import Path

import pytest

from multimix.lab.report import read_records, read_run, records, with_labels, write_records
from multimix.lab.report._records import method_name
from report.factory import ended, epoch, outcome
from report.suites import all_suites


def values(folder):
    return {record["metric"]: record["value"] for record in records([read_run(folder)])}


def test_every_number_is_one_flat_record(make_run):
    run = read_run(make_run(seed=4, events=[outcome(0.75, nll=0.5), ended()]))
    found = records([run])
    numbers = {"accuracy": 0.75, "nll": 0.5, "seconds": 12.0, "step_seconds": 0.03, "peak_mib": 700}
    assert {record["metric"]: record["value"] for record in found} == numbers
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
    assert {record["suite"] for record in found[2:]} == {"cost"}


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        pytest.param([epoch(1), outcome(0.9)], {}, id="unfinished"),
        pytest.param([outcome(0.9, epoch=2), outcome(0.99, epoch=1), {"event": "end"}], 0.9, id="last-epoch"),
        pytest.param([outcome(0.9), {"event": "end"}, outcome(0.8)], 0.8, id="later-evaluation"),
        pytest.param(
            [outcome(0.9, nll=None, note="ok", exact=True), {"event": "end", "peak_mib": None}], 0.9, id="numbers"
        ),
    ],
)
def test_what_counts(make_run, events, wanted):
    assert values(make_run(epochs=2, events=events)) == ({"accuracy": wanted} if wanted else {})


def test_names_say_network_split_and_suite(make_run):
    events = [
        outcome(0.9),
        outcome(0.91, network="teacher"),
        outcome(0.92, split="validation"),
        outcome(0.5, suite="corruption", mean_corruption_error=0.4),
        {"event": "test", "suite": "ood", "network": "teacher", "settings": {"sets": 1}, "digits/msp/auroc": 0.7},
        {"event": "end"},
    ]
    found = records([read_run(make_run(events=events))])
    assert {record["metric"]: (record["value"], record["settings"]) for record in found} == {
        "accuracy": (0.9, None),
        "teacher_accuracy": (0.91, None),
        "validation_accuracy": (0.92, None),
        "corruption/accuracy": (0.5, None),
        "corruption/mean_corruption_error": (0.4, None),
        "ood/teacher_digits/msp/auroc": (0.7, {"sets": 1}),
    }


def test_records_survive_the_file(make_run, tmp_path: Path):
    events = [outcome(math.inf, nll=1e-300), ended()]
    odd = read_run(make_run(label="µ ± \u2028 \ud800 <b>", events=events))
    runs = [odd, read_run(make_run(evaluations=all_suites()))]
    path = tmp_path / "new" / "records.jsonl"
    write_records(path, runs)
    assert read_records(path) == records(runs)
    assert len(path.read_text().splitlines()) == len(records(runs))
    assert os.listdir(path.parent) == ["records.jsonl"]
    write_records(path, [read_run(make_run(events=[outcome(math.nan), {"event": "end"}]))])
    assert math.isnan(read_records(path)[0]["value"])


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ({"type": "SelfDistilled", "gamma": 0.5, "method": {"type": "DenseMultiMix"}}, "SelfDistilled(DenseMultiMix)"),
        ({"type": "Alternate", "methods": [{"type": "MultiMix"}, {"type": "Mixup"}]}, "Alternate(MultiMix, Mixup)"),
        ({"type": "MultiMix", "alpha": [0.5, 2.0]}, "MultiMix"),
        ({}, "method"),
        ("erm", ""),
    ],
)
def test_a_method_is_called_by_its_types(method, name):
    assert method_name(method) == name


def test_labels_choose_and_order_rows():
    rows = [{"label": label, "value": value} for label, value in (("a", 1), ("b", 2), ("c", 3), ("a", 4))]
    assert [row["value"] for row in with_labels(rows, ["c", "a", "c"])] == [3, 1, 4]
    with pytest.raises(ValueError, match=r"^labels: expected one of a, b, c, got 'd'$"):
        with_labels(rows, ["a", "d"])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "not valid JSON"),
        ({"value": "0.9"}, r"value: expected int \| float, got '0.9'"),
        ({"seed": True}, "seed: expected int, got True"),
        ({"settings": [1]}, r"settings: expected dict \| None, got \[1\]"),
    ],
)
def test_a_broken_line_of_records_is_named(make_run, tmp_path: Path, change, message):
    path = tmp_path / "records.jsonl"
    write_records(path, [read_run(make_run())])
    first = path.read_text().splitlines()[0]
    with path.open("a") as file:
        file.write("{" if change is None else json.dumps(json.loads(first) | change))
    with pytest.raises(ValueError, match=rf"records.jsonl, line 5: {message}"):
        read_records(path)


@pytest.mark.bad_input
def test_records_are_missing_or_cannot_be_written(make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = [read_run(make_run())]
    with pytest.raises(FileNotFoundError, match=r"'.*none.jsonl' does not exist"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match=r"expected a file to write, got a folder"):
        write_records(tmp_path, runs)
    (tmp_path / "records.jsonl").write_text("old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"disk full"):
        write_records(tmp_path / "records.jsonl", runs)
    assert (tmp_path / "records.jsonl").read_text() == "old"
    assert not list(tmp_path.glob("*.part"))
