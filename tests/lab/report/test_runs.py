import json
from pathlib import Path

import pytest

from multimix.lab.report import read_run
from report.factory import ended, epoch, outcome


def test_a_finished_run_is_read_whole(make_run):
    run = read_run(make_run(seed=3, pictures={"mixed.png": "Eight mixed digits."}))
    assert (run.label, run.config["seed"], run.recipe, run.version) == ("mixup", 3, "digits", "0.1.0")
    assert run.finished
    assert [event["validation_accuracy"] for event in run.epochs] == [0.5, 0.8]
    assert run.tests[0]["accuracy"] == 0.9
    assert run.end == ended()
    assert run.environment["torch"] == "2.14.1"
    (picture,) = run.pictures
    assert (picture.path.name, picture.caption, picture.width, picture.height) == (
        "mixed.png",
        "Eight mixed digits.",
        24,
        8,
    )


def test_a_picture_without_caption_is_called_by_its_name(make_run):
    folder = make_run(pictures={"mixed.png": "x"})
    (folder / "pictures" / "captions.json").unlink()
    assert read_run(folder).pictures[0].caption == "mixed"


@pytest.mark.parametrize("tail", ['{"event": "epo', '{"event": "epoch", "epoch": 3, "loss": "\xe2', "{", '{"a": [1, 2'])
def test_the_half_line_of_a_killed_run_is_left_out(make_run, tail):
    run = read_run(make_run(events=[epoch(1), epoch(2)], tail=tail))
    assert [event["epoch"] for event in run.epochs] == [1, 2]
    assert not run.finished


def test_half_a_letter_at_the_end_is_left_out_too(make_run):
    folder = make_run(events=[epoch(1)])
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write('{"event": "é'.encode()[:-1])
    assert len(read_run(folder).epochs) == 1


def test_a_whole_last_line_without_line_end_counts(make_run):
    run = read_run(make_run(events=[epoch(1), outcome(0.5)], tail=json.dumps(ended())))
    assert run.finished


def test_the_later_of_two_equal_epochs_counts_and_epochs_are_in_order(make_run):
    again = epoch(2, validation_accuracy=0.7)
    run = read_run(make_run(events=[epoch(1), epoch(2, validation_accuracy=0.6), epoch(3), again]))
    assert [event["epoch"] for event in run.epochs] == [1, 2, 3]
    assert run.epochs[1] == again


def test_a_run_taken_further_after_its_end_is_unfinished_again(make_run):
    assert not read_run(make_run(events=[epoch(1), ended(), epoch(2)])).finished


def test_a_run_killed_before_its_first_epoch_is_a_run(make_run):
    folder = make_run()
    (folder / "metrics.jsonl").unlink()
    (folder / "environment.json").unlink()
    run = read_run(folder)
    assert (run.epochs, run.tests, run.end, run.environment) == ((), (), None, {})


def test_unknown_events_and_blank_lines_are_passed_over(make_run):
    assert len(read_run(make_run(events=[{"event": "resume"}, epoch(1)], tail="\n\n")).epochs) == 1


def test_settings_leave_out_seed_label_and_places(make_run):
    first = read_run(make_run(seed=0, label="a", root="data", workers=0))
    second = read_run(make_run(seed=1, label="b", root="elsewhere", workers=8))
    third = read_run(make_run(batch_size=64))
    assert first.settings_hash == second.settings_hash != third.settings_hash
    assert len(first.settings_hash) == 10


@pytest.mark.bad_input
def test_a_folder_that_is_no_run(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"'.*nowhere' does not exist"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is not a MultiMix run: it holds no config.json"):
        read_run(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"expected a run folder, got a file"):
        read_run(tmp_path / "file")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json: not valid JSON"),
        ("[" * 100_000, "config.json: not valid JSON"),
        ("[1]", "config.json: expected a JSON object, got list"),
        ('{"name": "other-project"}', "config.json: not a MultiMix run's configuration"),
        ('{"config": {"label": "a"}}', "config.data: expected str, got None"),
    ],
)
def test_a_broken_or_foreign_config(make_run, text, message):
    folder = make_run()
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize("seed", ["0", None, True, 0.5])
def test_a_config_with_a_wrong_field(make_run, seed):
    with pytest.raises(ValueError, match=r"config.seed: expected int, got"):
        read_run(make_run(seed=seed))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("oops", "metrics.jsonl, line 2: not valid JSON"),
        ("[1]", "metrics.jsonl, line 2: expected a JSON object, got list"),
        ('{"epoch": 1}', "metrics.jsonl, line 2: expected a text under 'event', got None"),
        ('{"event": "epoch", "epoch": "1"}', "metrics.jsonl, line 2: epoch: expected a whole number, got '1'"),
        ('{"event": "epoch"}', "metrics.jsonl, line 2: epoch: expected a whole number, got None"),
    ],
)
def test_a_broken_line_names_file_and_line(make_run, line, message):
    folder = make_run(events=[epoch(1)], tail=f"{line}\n{json.dumps(ended())}\n")
    with pytest.raises(ValueError, match=message):
        read_run(folder)


@pytest.mark.bad_input
def test_a_broken_last_line_with_its_line_end_is_no_killed_run(make_run):
    with pytest.raises(ValueError, match=r"line 2: not valid JSON"):
        read_run(make_run(events=[epoch(1)], tail='{"event": "epo\n'))


@pytest.mark.bad_input
def test_a_picture_that_is_none(make_run):
    folder = make_run(pictures={"mixed.png": "x"})
    (folder / "pictures" / "mixed.png").write_bytes(b"<svg>")
    with pytest.raises(ValueError, match=r"mixed.png: not a PNG picture"):
        read_run(folder)


def test_a_setting_that_came_later_changes_no_hash_where_it_does_what_earlier_runs_did(make_run):
    before, after, other = (read_run(make_run(**more)) for more in ({}, {"init": None}, {"init": "runs/first"}))
    assert before.settings_hash == after.settings_hash != other.settings_hash
