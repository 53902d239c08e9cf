"""``multimix compare STUDY``: trials on the validation split, then the chosen candidates with every seed."""

import json
from hashlib import sha256
from itertools import product
from pathlib import Path

import pytest

from cli.command import TINY
from multimix.lab.train import from_json
from train.tiny import events

STUDIES = Path(__file__).parents[3] / "studies"
TRIED = f"compare {STUDIES}/comparison.py:digits_all --arms erm mixup --seeds 2 --jobs 1 --out out --quiet {TINY}"
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
    assert [(line["label"], line["candidate"]) for line in lines] == list(product(("erm", "mixup"), (0, 1)))
    for label in ("erm", "mixup"):
        scores = [line["validation_accuracy"] for line in lines if line["label"] == label]
        chosen = [line["candidate"] for line in lines if line["label"] == label and line["chosen"]]
        assert chosen == [scores.index(max(scores))]
        for number, score in enumerate(scores):
            folder = Path("out/trials", f"{label}-{number}")
            assert events(folder, "test") == []
            assert events(folder, "epoch")[-1]["validation_accuracy"] == score
        for seed in (0, 1):
            folders = f"out/{label}-{seed}", f"out/trials/{label}-{chosen[0]}"
            trained, tried = (config_of(Path(folder)) for folder in folders)
            assert (trained.method, trained.optimizer) == (tried.method, tried.optimizer)
            assert (trained.seed, trained.label, trained.test) == (seed, label, True)
    assert "difference to erm with the same seed" in out
    stamps = {path: path.stat().st_mtime_ns for path in Path("out").rglob("model.safetensors")}
    assert multimix.succeeds(TRIED) == out
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("model.safetensors")} == stamps


HALVED = """
from dataclasses import replace

from multimix.lab.recipes import Study, digits
from multimix.lab.train import SGD


def rates() -> Study:
    of = lambda rate: replace(digits(), optimizer=SGD(learning_rate=rate))
    arms = {"low": tuple(map(of, (0.1, 0.01, 0.001, 0.0001))), "high": tuple(map(of, (0.0001, 0.2, 0.3, 0.4)))}
    return Study(name="rates", question="Which?", arms=arms, against="low", seeds=1)
"""


def test_four_candidates_are_halved_twice(multimix):
    Path("mine.py").write_text(HALVED)
    multimix.succeeds(f"compare mine.py --jobs 1 --out out --quiet {TINY}")
    lines = [json.loads(line) for line in Path("out/trials.jsonl").read_text().splitlines()]
    for label in ("low", "high"):
        own = [line for line in lines if line["label"] == label]
        assert [line["candidate"] for line in own] == [0, 1, 2, 3]
        assert sorted(line["trials"] for line in own) == [1, 1, 3, 3]
        first = [accuracy_of(f"out/trials/{label}-{number}") for number in range(4)]
        kept = sorted(range(4), key=lambda number: -first[number])[:2]
        assert {line["candidate"] for line in own if line["trials"] == 3} == set(kept)
        for line in own:
            seeds = ("", "-1001", "-1002")[: line["trials"]]
            found = [accuracy_of(f"out/trials/{label}-{line['candidate']}{seed}") for seed in seeds]
            assert line["validation_accuracy"] == pytest.approx(sum(found) / len(found))
        best = max(line["validation_accuracy"] for line in own if line["trials"] == 3)
        [chosen] = [line for line in own if line["chosen"]]
        assert (chosen["trials"], chosen["validation_accuracy"]) == (3, best)


def accuracy_of(folder: str) -> float:
    return events(Path(folder), "epoch")[-1]["validation_accuracy"]


def test_the_file_of_a_study_is_kept_and_may_go_on_growing(multimix):
    line = f"compare mine.py --seeds 1 --jobs 1 --out out --quiet {TINY}"
    Path("mine.py").write_text(MINE)
    multimix.succeeds(line)
    assert {path.name for path in Path("out").iterdir()} == {"code", "erm-0", "report.html"}  # and no trials
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
