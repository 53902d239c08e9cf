"""``multimix compare STUDY``: trials on the validation split, then the chosen candidates with every seed."""

import json
from pathlib import Path

import pytest

from cli.command import TINY
from multimix.lab.train import from_json
from train.tiny import events

TRIED = f"compare digits-all --methods erm mixup --seeds 2 --jobs 1 --out out --quiet {TINY}"


def config_of(folder: Path):
    return from_json(json.loads((folder / "config.json").read_text())["config"])


def test_trials_choose_what_the_seeds_train(multimix):
    out = multimix.succeeds(TRIED)
    assert {path.name for path in Path("out").iterdir()} == {
        "erm-0", "erm-1", "mixup-0", "mixup-1", "trials", "trials.jsonl", "report.html",
    }  # fmt: skip
    lines = [json.loads(line) for line in Path("out/trials.jsonl").read_text().splitlines()]
    assert [(line["label"], line["candidate"]) for line in lines] == [
        ("erm", 0),
        ("erm", 1),
        ("mixup", 0),
        ("mixup", 1),
    ]
    for label in ("erm", "mixup"):
        scores = [line["validation_accuracy"] for line in lines if line["label"] == label]
        chosen = [line["candidate"] for line in lines if line["label"] == label and line["chosen"]]
        assert chosen == [scores.index(max(scores))]
        for number, score in enumerate(scores):
            folder = Path("out/trials", f"{label}-{number}")
            assert events(folder, "test") == []
            assert events(folder, "epoch")[-1]["validation_accuracy"] == score
        for seed in (0, 1):
            trained, tried = (
                config_of(Path("out", f"{label}-{seed}")),
                config_of(Path("out/trials", f"{label}-{chosen[0]}")),
            )
            assert (trained.method, trained.optimizer) == (tried.method, tried.optimizer)
            assert (trained.seed, trained.label, trained.test) == (seed, label, True)
    assert "difference to erm with the same seed" in out


def test_a_study_goes_on_where_it_was(multimix):
    first = multimix.succeeds(TRIED)
    stamps = {path: path.stat().st_mtime_ns for path in Path("out").rglob("model.safetensors")}
    assert multimix.succeeds(TRIED) == first
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("model.safetensors")} == stamps


def test_a_study_without_candidates_has_no_trials(multimix):
    multimix.succeeds(f"compare effective --methods erm 'effective 2' --seeds 1 --jobs 1 --out out --quiet {TINY}")
    assert {path.name for path in Path("out").iterdir()} == {"erm-0", "effective 2-0", "report.html"}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("compare efective", "unknown recipe or study 'efective'; did you mean effective"),
        ("compare digits", "the following arguments are required: --methods"),
        (
            "compare effective --methods mixup",
            "--methods: study effective has no arm 'mixup'; it has erm, effective 1.5",
        ),
        ("compare effective --method.alpha 1", "--method.FIELD does not go with a study"),
        ("compare effective --seed 3", "a study sets --label and --seed of its runs itself"),
        ("compare digits-all --validation 0", "validation must be above 0 where candidates are chosen by it, got 0"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(multimix, line, said):
    assert said in multimix.complains(line)
    assert list(multimix.folder.iterdir()) == []
