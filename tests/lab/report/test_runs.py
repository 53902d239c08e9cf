import json
from pathlib import Path

import pytest

from multimix.lab.report import read_run
from report.factory import ended, epoch, outcome
from report.suites import all_suites


def test_a_finished_run_is_read_whole(make_run):
    suites = all_suites()
    run = read_run(make_run(seed=3, pictures={"mixed.png": "Eight mixed digits."}, evaluations=suites))
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
    assert set(run.evaluations) == set(suites)
    found = run.evaluations["adversarial"]
    assert (found.suite, found.weights, found.date) == ("adversarial", "0123456789abcdef", "2025-05-01T11:00:00")
    assert (found.settings, found.figures) == (suites["adversarial"].settings, suites["adversarial"].figures)


@pytest.mark.parametrize("tail", ['{"event": "epo', '{"event": "epoch", "epoch": 3, "loss": "\xe2', "{", '{"a": [1, 2'])
def test_the_half_line_of_a_killed_run_is_left_out(make_run, tail):
    folder = make_run(events=[epoch(1), epoch(2)])
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(tail.encode("latin-1"))
    assert [event["epoch"] for event in read_run(folder).epochs] == [1, 2]
    assert not read_run(folder).finished


def test_events_are_taken_as_they_came(make_run):
    again = epoch(2, validation_accuracy=0.7)
    run = read_run(make_run(events=[epoch(1), epoch(2, validation_accuracy=0.6), epoch(3), {"event": "resume"}, again]))
    assert [event["epoch"] for event in run.epochs] == [1, 2, 3]
    assert run.epochs[1] == again
    assert read_run(make_run(events=[epoch(1), outcome(0.5)], tail=json.dumps(ended()))).finished
    assert not read_run(make_run(events=[epoch(1), ended(), epoch(2)], tail="\n\n")).finished


def test_settings_leave_out_seed_label_and_places(make_run):
    options = [
        {"seed": 0, "label": "a", "root": "data", "workers": 0},
        {"seed": 1, "label": "b", "root": "elsewhere", "workers": 8},
        {"init": None, "fsdp": False},  # settings that came later, and do what runs did before
        {"init": "runs/first"},
        {"batch_size": 64},
    ]
    hashes = [read_run(make_run(**more)).settings_hash for more in options]
    assert len({*hashes[:3]}) == 1
    assert len({*hashes}) == 3
    assert len(hashes[0]) == 10


@pytest.mark.parametrize(
    "change",
    [{"weights": "fedcba"}, {"settings": {"steps": 1}}, {"suite": "other"}, {"network": "teacher"}],
    ids=lambda change: next(iter(change)),
)
def test_figures_of_another_measurement_than_the_newest_are_left_out(make_run, change):
    suite = all_suites()["occlusion"]
    event = {"event": "test", "weights": suite.weights, "settings": suite.settings, "suite": "occlusion", **change}
    events = [outcome(0.9), ended(), event]
    assert read_run(make_run(events=events, evaluations={"occlusion": suite})).evaluations == {}
    events.append(suite.event("occlusion"))
    assert set(read_run(make_run(events=events, evaluations={"occlusion": suite})).evaluations) == {"occlusion"}


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
        ("metrics.jsonl", '{"epoch": 1}\n', "metrics.jsonl, line 1: event: expected str, got None"),
        ("metrics.jsonl", '{"event": "epoch", "epoch": true}\n', "line 1: epoch: expected int, got True"),
        ("pictures/mixed.png", "<svg>", "mixed.png: not a PNG picture"),
        ("evaluation/ood.json", '{"suite": 1, "figures": {}}', "ood.json: suite: expected str, got 1"),
        ("evaluation/ood.json", '{"suite": "ood"}', "ood.json: figures: expected dict, got None"),
        ("evaluation/ood.json", '{"suite": "ood", "figures": {}, "settings": 3}', "settings: expected dict"),
        ("evaluation/ood.json", '{"suite": "ood", "figures": {"a": [1]}}', "figures.a: expected dict, got"),
    ],
)
def test_a_broken_file_is_named_in_one_line(make_run, name, text, message):
    folder = make_run(pictures={"mixed.png": "x"}, evaluations=all_suites())
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)
