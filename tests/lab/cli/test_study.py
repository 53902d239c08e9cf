"""``multimix compare STUDY``: trials on the validation split, then the chosen candidates with every seed."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from cli.command import TINY
from multimix.lab.train import from_json
from train.tiny import events

STUDIES = Path(__file__).parents[3] / "studies"
TRIED = f"compare {STUDIES}/comparison.py:digits_all --arms erm mixup --seeds 2 --jobs 1 --out out --quiet {TINY}"
SWEEP = f"compare {STUDIES}/sweeps.py:effective"


MINE = """
from multimix.lab.recipes import Study, arms, digits
from multimix.methods import ERM, Mixup


def one() -> Study:
    return Study(name="one", question="Which?", arms=arms(digits(), {"erm": ERM(), **{}}))
"""


def config_of(folder: Path):
    return from_json(json.loads((folder / "config.json").read_text())["config"])


def test_trials_choose_what_the_seeds_train(multimix):
    out = multimix.succeeds(TRIED)
    assert {path.name for path in Path("out").iterdir()} == {
        "code", "erm-0", "erm-1", "mixup-0", "mixup-1", "trials", "trials.jsonl", "report.html",
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
    multimix.succeeds(f"{SWEEP} --arms erm 'effective 2' --seeds 1 --jobs 1 --out out --quiet {TINY}")
    assert {path.name for path in Path("out").iterdir()} == {"code", "erm-0", "effective 2-0", "report.html"}


def test_the_file_of_a_study_is_kept_and_may_go_on_growing(multimix):
    """What it says of a run counts, not what else it says."""
    line = f"compare mine.py --seeds 1 --jobs 1 --out out --quiet {TINY}"
    Path("mine.py").write_text(MINE)
    multimix.succeeds(line)
    written = json.loads(Path("out/erm-0/config.json").read_text())
    assert written["recipe"] == "mine.py:one"
    assert written["code"] == {"mine.py": sha256(MINE.encode()).hexdigest()}
    for kept in (Path("out/code/mine.py"), Path("out/erm-0/code/mine.py")):
        assert kept.read_text() == MINE
    stamp = Path("out/erm-0/model.safetensors").stat().st_mtime_ns
    more = MINE.replace("{}", '{"mixup": Mixup()}')
    Path("mine.py").write_text(more)
    multimix.succeeds(line)
    assert Path("out/erm-0/model.safetensors").stat().st_mtime_ns == stamp
    assert Path("out/mixup-0/code/mine.py").read_text() == Path("out/code/mine.py").read_text() == more


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"compare {STUDIES}/sweeps.py", "holds more than one study: say which, as in"),
        (f"compare {STUDIES}/sweeps.py:effectiv", "sweeps.py has no 'effectiv'; it has effective, tuples"),
        (f"compare {STUDIES}/seconds.py:COSTS", "COSTS must be a Study, or a function that returns one; got dict"),
        (
            f"{SWEEP} --arms mixup",
            "--arms: study effective has no arm 'mixup'; it has erm, effective 1.5",
        ),
        (f"{SWEEP} --method.alpha 1", "--method.FIELD does not go with a study"),
        (f"{SWEEP} --seed 3", "a study sets --label and --seed of its runs itself"),
        (
            f"compare {STUDIES}/comparison.py:digits_all --validation 0",
            "validation must be above 0 where candidates are chosen by it, got 0",
        ),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(multimix, line, said):
    assert said in multimix.complains(line)
    assert list(multimix.folder.iterdir()) == []
