import json
import math
import os
from pathlib import Path

import pytest

from multimix.lab.report import read_records, read_run, records, with_labels, write_records
from multimix.lab.report._records import method_name
from report.factory import ended, epoch, outcome
from report.suites import all_suites

LEFT_OUT = r"ignore:.*(metrics\.jsonl|evaluation|weights)"  # of what is said of the runs that are made here


def test_a_finished_run_is_read_whole(make_run):
    suites = all_suites()
    run = make_run(seed=3, pictures={"mixed.png": "Eight mixed digits."}, evaluations=suites)
    assert (run.label, run.config["seed"], run.recipe, run.version) == ("mixup", 3, "digits", "0.1.0")
    assert run.finished
    assert [event["validation_accuracy"] for event in run.epochs] == [0.5, 0.8]
    assert run.tests[0]["accuracy"] == 0.9
    assert run.end == ended()
    assert run.environment["torch"] == "2.14.1"
    (picture,) = run.pictures
    assert (picture.path.name, picture.caption) == ("mixed.png", "Eight mixed digits.")
    assert (picture.width, picture.height) == (24, 8)
    (run.folder / "pictures" / "captions.json").unlink()
    assert read_run(run.folder).pictures[0].caption == "mixed"
    assert set(run.evaluations) == {name for name, suite in suites.items() if suite.figures}
    found = run.evaluations["adversarial"]
    assert (found.suite, found.weights, found.date) == ("adversarial", "0123456789abcdef", "2025-05-01T11:00:00")
    assert (found.settings, found.figures) == (suites["adversarial"].settings, suites["adversarial"].figures)


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("tail", ['{"event": "epo', '{"event": "epoch", "epoch": 3, "loss": "\xe2', "{", '{"a": [1, 2'])
def test_the_half_line_of_a_killed_run_is_left_out(make_run, tail):
    folder = make_run(events=[epoch(1), epoch(2)]).folder
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(tail.encode("latin-1"))
    assert [event["epoch"] for event in read_run(folder).epochs] == [1, 2]
    assert not read_run(folder).finished


ERM = {"weights": "a", "accuracy": 0.5, "event": "test", "suite": "accuracy"}


@pytest.mark.parametrize(
    ("events", "tail", "says"),
    [
        ([epoch(1)], '{"ev', r"metrics.jsonl, line 2 is cut short and left out: its writer was stopped amid it"),
        ([], "junk", r"metrics.jsonl, line 1 is cut short and left out"),
        ([epoch(1), epoch(1)], "", "line 2: epoch 1 comes again, and counts in place of the one before"),
        ([epoch(1), {"event": "finish"}], "", "line 2: an event 'finish' is not known, and left out"),
        ([epoch(1), ended()], "", "metrics.jsonl: 1 of 2 epochs have no record, the first of them epoch 2"),
        ([outcome(0.9), ended()], "", "metrics.jsonl: 2 of 2 epochs have no record, the first of them epoch 1"),
        ([epoch(1), outcome(0.9, epoch=1)], "", "line 2: a test of epoch 1 is left out: .* those of the last, 2"),
        ([epoch(1), outcome("0.9")], "", "line 2: accuracy: expected a number, got '0.9', and is left out"),
        ([epoch(1), outcome(None)], "", "line 2: accuracy: expected a number, got None, and is left out"),
        ([epoch(1), outcome(10**400)], "", "line 2: accuracy: expected a number, got 1000.*0, and is left out"),
        ([epoch(1), outcome(97.5)], "", "line 2: accuracy: expected a share from 0 to 1, got 97.5, which tables show"),
        ([epoch(1), epoch(9)], "", "line 2: epoch 9 is none of the 2, and left out"),
        ([epoch(1), {"event": "test"}], "", "line 2: a test without any metric is left out"),
        (
            [epoch(1), ERM, ERM | {"suite": "occlusion", "weights": "b"}, ERM | {"suite": "calibration"}],
            "",
            "tests are of different weights, those of accuracy, calibration but not of occlusion: measure it --again",
        ),
    ],
)
def test_what_is_left_out_or_doubtful_is_said(make_run, events, tail, says):
    with pytest.warns(UserWarning, match=says) as caught:
        run = make_run(events=events, tail=tail)
    assert [str(warning.message) for warning in caught] == list(run.notes)
    assert len(run.notes) == 1


def test_nothing_is_said_of_a_whole_run(make_run):
    assert make_run(seed=3, evaluations=all_suites()).notes == ()


@pytest.mark.filterwarnings(LEFT_OUT)
def test_events_are_taken_as_they_came(make_run):
    again = epoch(2, validation_accuracy=0.7)
    run = make_run(events=[epoch(1), epoch(2, validation_accuracy=0.6), epoch(3), {"event": "resume"}, again], epochs=3)
    assert [event["epoch"] for event in run.epochs] == [1, 2, 3]
    assert run.epochs[1] == again
    assert make_run(events=[epoch(1), outcome(0.5)], tail=json.dumps(ended())).finished
    assert not make_run(events=[epoch(1), ended(), epoch(2)], tail="\n\n").finished


def test_settings_leave_out_seed_label_and_places(make_run):
    options = [
        {"seed": 0, "label": "a", "root": "data", "workers": 0},
        {"seed": 1, "label": "b", "root": "elsewhere", "workers": 8},
        {"init": None, "fsdp": False},  # settings that came later, and do what runs did before
        {"init": "runs/first"},
        {"batch_size": 64},
    ]
    hashes = [make_run(**more).settings_hash for more in options]
    assert len({*hashes[:3]}) == 1
    assert len({*hashes}) == 3
    assert len(hashes[0]) == 10


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize(
    "change",
    [{"weights": "fedcba"}, {"settings": {"steps": 1}}, {"suite": "other"}, {"network": "teacher"}],
    ids=lambda change: next(iter(change)),
)
def test_figures_of_another_measurement_than_the_newest_are_left_out(make_run, change):
    suite = all_suites()["occlusion"]
    event = {"event": "test", "weights": suite.weights, "settings": suite.settings, "suite": "occlusion", **change}
    events = [outcome(0.9), ended(), event]
    without = make_run(events=events, evaluations={"occlusion": suite})
    assert without.evaluations == {}
    assert any("occlusion.json: its figures are left out" in note for note in without.notes)
    events.append(suite.event("occlusion"))
    assert set(make_run(events=events, evaluations={"occlusion": suite}).evaluations) == {"occlusion"}


@pytest.mark.bad_input
def test_a_folder_that_is_no_run(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"'.*nowhere' does not exist"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is not a MultiMix run: it holds no config.json"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match=r"expected a run folder, got a file"):
        read_run(tmp_path / "file")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "config.json: not valid JSON"),
        ("config.json", "[" * 100_000, "config.json: not valid JSON"),
        ("config.json", "[1]", "config.json: expected a JSON object, got list"),
        ("config.json", '{"name": "other-project"}', "config.json: not a MultiMix run's configuration"),
        ("config.json", '{"config": {"type": "DetectConfig"}}', "a detection run, of which a report is not made"),
        ("config.json", '{"config": {"label": "a"}}', "config.data: expected str, got None"),
        ("metrics.jsonl", "\n[1]\n", "metrics.jsonl, line 2: expected a JSON object, got list"),
        ("metrics.jsonl", 'oops\n{"event": "end"}', "metrics.jsonl, line 1: not valid JSON"),
        ("metrics.jsonl", '{"event": "end"}\n{"ev\n\n7\nx', "line 2: not valid JSON .*; nor are lines 4, 5"),
        ("metrics.jsonl", '{"epoch": 1}\n', "metrics.jsonl, line 1: event: expected str, got None"),
        ("metrics.jsonl", '{"event": "epoch", "epoch": true}\n', "line 1: epoch: expected int, got True"),
        ("metrics.jsonl", '{"event": "test", "epoch": "1"}\n', r"line 1: epoch: expected int \| None, got '1'"),
        ("metrics.jsonl", '{"event": "test", "suite": [1]}\n', r"line 1: suite: expected str \| None, got \[1\]"),
        ("metrics.jsonl", '{"event": "test", "settings": 3}\n', r"line 1: settings: expected dict \| None, got 3"),
        ("pictures/mixed.png", "<svg>", "mixed.png: not a PNG picture"),
        ("evaluation/ood.json", '{"suite": 1, "figures": {}}', "ood.json: suite: expected str, got 1"),
        ("evaluation/ood.json", '{"suite": "ood"}', "ood.json: figures: expected dict, got None"),
        ("evaluation/ood.json", '{"suite": "ood", "figures": {}, "settings": 3}', "settings: expected dict"),
        ("evaluation/ood.json", '{"suite": "ood", "figures": {"a": [1]}}', "figures.a: expected dict, got"),
    ],
)
def test_a_broken_file_is_named_in_one_line(make_run, name, text, message):
    folder = make_run(pictures={"mixed.png": "x"}, evaluations=all_suites()).folder
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings(LEFT_OUT)
def test_every_number_is_one_flat_record(make_run):
    run = make_run(seed=4, events=[outcome(0.75, nll=0.5), ended()])
    found = records([run])
    numbers = {"accuracy": 0.75, "nll": 0.5, "seconds": 12.0, "step_seconds": 0.03, "peak_mib": 700}
    assert {record["metric"]: record["value"] for record in found} == numbers
    wanted = {"metric": "accuracy", "value": 0.75, "seed": 4, "label": "mixup", "method": "Mixup", "data": "digits"}
    wanted |= {"model": "preact_resnet18", "epochs": 2, "config": run.settings_hash, "suite": "accuracy"}
    wanted |= {"commit": "abc123", "device": "cpu", "torch": "2.14.1", "date": "2025-05-01T10:00:00"}
    assert found[0] == {**wanted, "examples": 360, "settings": None, "images": None}
    (run.folder / "config.json").write_text(
        json.dumps({"config": run.config, "data": {"splits": {"test": {"images": 9, "digest": "ab"}}}})
    )
    assert records([read_run(run.folder)])[0]["images"] == {"test": '{"digest": "ab", "images": 9}'}
    (run.folder / "config.json").write_text(json.dumps({"config": run.config, "data": {"splits": [1]}}))
    assert records([read_run(run.folder)])[0]["images"] is None
    assert {record["suite"] for record in found[2:]} == {"cost"}


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        ([epoch(1), outcome(0.9)], None),  # unfinished
        ([outcome(0.9, epoch=2), outcome(0.99, epoch=1), {"event": "end"}], 0.9),  # of the last epoch
        ([outcome(0.9), {"event": "end"}, outcome(0.8)], 0.8),  # a later evaluation
        ([outcome(0.9, nll=None, note="ok", exact=True), {"event": "end", "peak_mib": None}], 0.9),  # numbers alone
    ],
)
def test_what_counts(make_run, events, wanted):
    found = {record["metric"]: record["value"] for record in records([make_run(epochs=2, events=events)])}
    assert found == ({"accuracy": wanted} if wanted else {})


@pytest.mark.filterwarnings(LEFT_OUT)
def test_names_say_network_split_and_suite(make_run):
    events = [
        outcome(0.9),
        outcome(0.91, network="teacher"),
        outcome(0.92, split="validation"),
        outcome(0.5, suite="corruption", mean_corruption_error=0.4),
        {"event": "test", "suite": "ood", "network": "teacher", "settings": {"sets": 1}, "digits/msp/auroc": 0.7},
        {"event": "end"},
    ]
    found = records([make_run(events=events)])
    assert {record["metric"]: (record["value"], record["settings"]) for record in found} == {
        "accuracy": (0.9, None),
        "teacher_accuracy": (0.91, None),
        "validation_accuracy": (0.92, None),
        "corruption/accuracy": (0.5, None),
        "corruption/mean_corruption_error": (0.4, None),
        "ood/teacher_digits/msp/auroc": (0.7, {"sets": 1}),
    }


@pytest.mark.filterwarnings(LEFT_OUT)
def test_records_survive_the_file(make_run, tmp_path: Path):
    events = [outcome(math.inf, nll=1e-300), ended()]
    odd = make_run(label="µ ± \u2028 \ud800 <b>", events=events)
    runs = [odd, make_run(evaluations=all_suites())]
    path = tmp_path / "new" / "records.jsonl"
    write_records(path, runs)
    assert read_records(path) == records(runs)
    assert len(path.read_text().splitlines()) == len(records(runs))
    assert os.listdir(path.parent) == ["records.jsonl"]
    write_records(path, [make_run(events=[outcome(math.nan), {"event": "end"}])])
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
        (None, "cut short"),
        ({"value": "0.9"}, r"value: expected int \| float, got '0.9'"),
        ({"seed": True}, "seed: expected int, got True"),
        ({"value": 10**400}, "value: expected a number that a float holds, got 1000"),
        ({"suite": [1]}, r"suite: expected str \| None, got \[1\]"),
        ({"settings": [1]}, r"settings: expected dict \| None, got \[1\]"),
    ],
)
def test_a_broken_line_of_records_is_named(make_run, tmp_path: Path, change, message):
    path = tmp_path / "records.jsonl"
    write_records(path, [make_run()])
    first = path.read_text().splitlines()[0]
    with path.open("a") as file:
        file.write("{" if change is None else json.dumps(json.loads(first) | change))
    with pytest.raises(ValueError, match=rf"records.jsonl, line 5(: | is ){message}"):
        read_records(path)


@pytest.mark.bad_input
def test_records_are_missing_or_cannot_be_written(make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = [make_run()]
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
