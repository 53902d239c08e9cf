"""``multimix detect``."""

from pathlib import Path

import pytest

from detect.small import coco_squares, stopped_after
from multimix.lab.recipes.detection import DETECTION_RECIPES, detection_recipe_named
from multimix.lab.report import read_records
from multimix.lab.train import from_json, to_json
from train.tiny import events, weights

SMALL = (
    "--train-split train --test-split val --epochs 1 --batch-size 2 --channels 8 --hidden 16 --proposals 40"
    " --sampled 16 --min-size 48 --max-size 64 --coarsest 16 --device cpu --finest 1"
)


@pytest.fixture
def line(multimix, finished) -> str:
    """A command line of a run that takes a second."""
    coco_squares(Path("."), "train", 0)
    coco_squares(Path("."), "val", 1, images=3)
    return f"detect coco-mini --backbone {finished} --data coco:. {SMALL}"


def test_a_run_is_trained_and_says_what_it_found_before_and_after(multimix, line):
    out = multimix.succeeds(f"{line} --name run").splitlines()
    assert out[0].startswith("run, seed 0: epoch 1/1  loss ")
    assert [row.split(":")[0] for row in out[1:5]] == ["test before", "train before", "test after", "train after"]
    after = events(Path("runs/detect/run"), "detection")[-1]
    assert f"AP {100 * after['ap']:.2f} %  AP50 {100 * after['ap50']:.2f} %" in out[4]
    assert out[4].endswith("(6 images)")
    assert out[5:] == ["run: runs/detect/run"]


def test_a_stopped_run_is_resumed(multimix, line):
    multimix.succeeds(f"{line} --name whole --quiet")
    with stopped_after(2):
        multimix(f"{line} --name run --quiet --out .")
    out = multimix.succeeds("detect --resume run --quiet")
    assert out.splitlines()[-1] == "run: run"
    assert weights(Path("run")) == weights(Path("runs/detect/whole"))
    assert multimix.succeeds("detect --resume run") == out


def test_its_numbers_become_records_that_a_report_reads(multimix, line):
    multimix.succeeds(f"{line} --name run --quiet --data coco:{multimix.folder}")
    out = multimix.succeeds("detect --resume runs/detect/run --records records.jsonl")
    assert out.splitlines()[-1] == "records: records.jsonl"
    rows = {row["metric"]: row for row in read_records("records.jsonl")}
    for event in events(Path("runs/detect/run"), "detection"):
        row = rows[f"detection/{event['split']}/{event['when']}/ap50"]
        assert (row["value"], row["examples"], row["date"]) == (event["ap50"], event["examples"], event["date"])
    assert {"seconds", "step_seconds", "peak_mib"} < set(rows)
    assert rows["seconds"]["model"] == "preact_resnet18"
    assert rows["seconds"]["data"] == f"coco:{multimix.folder.name}"
    assert all(row["seed"] == 0 and row["commit"] and row["device"] == "cpu" for row in rows.values())


def test_whoever_stops_it_is_told_how_it_goes_on(multimix, monkeypatch):
    def stop(_: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("multimix.lab.cli.detect.main", stop)
    assert multimix.complains("detect", code=130) == "stopped; a run goes on with: multimix detect --resume RUN"


def test_what_was_left_out_is_said(multimix, line):
    file = Path("annotations/instances_train.json")
    file.write_text(file.read_text().replace('"category_id": 3', '"iscrowd": 1, "category_id": 3'))
    code, _, err = multimix(line)
    assert code == 0
    assert err == "coco:. train: 3 images without an object to train on left out\n"


@pytest.mark.parametrize("name", DETECTION_RECIPES)
def test_a_recipe_says_where_it_is_from_and_how_it_is_run(name):
    said = " ".join(DETECTION_RECIPES[name].__doc__.split())
    assert said.startswith("Return ")
    for part in ("Source: ", f"``multimix detect {name} --backbone RUN", "Hardware: "):
        assert part in said
    config = detection_recipe_named(name.upper())
    assert config.recipe == name
    assert from_json(to_json(config.optimizer)) == config.optimizer
