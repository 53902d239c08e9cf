"""``multimix train`` and ``multimix evaluate``: runs, overrides, resuming, and what is refused."""

import contextlib
import io
import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.command import TINY
from multimix.lab.cli import _parser, configured
from multimix.lab.cli.__main__ import main
from multimix.lab.recipes import digits
from multimix.lab.train import TrainConfig, from_json, to_json
from multimix.methods import Alternate, DenseMultiMix, Mixup, MultiMix, Ramp, Until
from train.tiny import events, files, steady, stopped_after, weights

RESULT = r"test: accuracy (\d+\.\d\d) %  NLL (\d\.\d{4})  ECE (\d+\.\d\d) %  \(359 images, epoch 1\)"


def configuration(run: Path) -> TrainConfig:
    return from_json(json.loads((run / "config.json").read_text())["config"])


def test_a_run_is_shown_and_left_in_a_folder(multimix):
    out = multimix.succeeds(f"train digits {TINY} --method mixup --name run")
    shown, result, *where = out.splitlines()
    assert shown.startswith("mixup")
    assert ": epoch 1/1  loss " in shown
    accuracy, nll, ece = map(float, re.fullmatch(RESULT, result).groups())
    (record,) = events(Path("runs/run"), "test")
    wanted = [100 * record["accuracy"], record["nll"], 100 * record["ece"]]
    assert [accuracy, nll, ece] == pytest.approx(wanted, abs=0.006)
    assert where[0] == "run: runs/run"
    written = {"config.json", "metrics.jsonl", "environment.json", "last.ckpt", "model.safetensors"}
    assert written <= set(files(Path("runs/run")))
    recipe, config = digits(), configuration(Path("runs/run"))
    assert (config.label, config.optimizer, config.schedule) == ("mixup", recipe.optimizer, recipe.schedule)


def test_a_run_is_named_after_recipe_method_seed_and_time(multimix):
    multimix.succeeds(f"train --quiet --method erm digits {TINY} --seed 5 --out here")  # options may come first
    (run,) = Path("here").iterdir()
    assert re.fullmatch(r"digits-erm-5-\d{8}-\d{6}", run.name)


def test_quiet_prints_the_result_alone(multimix):
    out = multimix.succeeds(f"train digits {TINY} --method distilled-erm --ema 0.9 --quiet --name run")
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["test", "test (ema)", "test (teacher)", "run"]
    assert "epoch 1/1" not in out


def test_any_field_can_be_overridden(multimix):
    multimix.succeeds(
        f"train digits {TINY} --name run --quiet --method multimix --method.alpha 0.5 2.0 --method.balanced"
        " --optimizer.learning-rate 0.01 --optimizer.nesterov --schedule.warmup_epochs 0.5 --flip --clip 2"
        " --validation 0.2 --seed 3 --label mine"
    )
    config = configuration(Path("runs/run"))
    assert config.method == MultiMix(alpha=(0.5, 2.0), balanced=True)
    assert (config.optimizer.learning_rate, config.optimizer.nesterov) == (0.01, True)
    assert (config.schedule.warmup_epochs, config.flip, config.clip) == (0.5, True, 2.0)
    assert (config.validation, config.seed, config.title, config.recipe) == (0.2, 3, "mine", "digits")


def test_fields_of_the_methods_inside_a_method_can_be_overridden(multimix):
    line = f"train digits {TINY} --quiet --method"
    fields = "--method.gamma 0.25 --method.method.tuples 7 --method.method.alpha 0.1"
    multimix.succeeds(f"{line} distilled-multimix {fields} --name a")
    method = configuration(Path("runs/a")).method
    assert (method.gamma, method.method) == (0.25, MultiMix(tuples=7, alpha=0.1))
    fields = "--method.methods.0.tuples 5 --method.methods.1.alpha 0.5 --method.methods.0.no-shared"
    multimix.succeeds(f"{line} dense-multimix-paper {fields} --method.probabilities 0.25 0.75 --name b")
    paper = {"alpha": (0.5, 2.0), "tuples": 5, "tuples_over": "device"}
    inside = DenseMultiMix(**paper), Mixup(alpha=0.5)
    assert configuration(Path("runs/b")).method == Alternate(inside, (0.25, 0.75))
    multimix.succeeds(f"{line} distilled-multimix-paper --method.method.methods.0.tuples=5 --name c")
    assert configuration(Path("runs/c")).method.method.methods[0] == MultiMix(**paper, balanced=False)


def test_a_method_is_scheduled_by_a_name_and_its_fields():
    ramp = "--method.prob 0.2 1 --method.strength alpha 0.1 2 --method.shape cosine --method.method.mode elem"
    until = "--method.fraction 0.8 --method.method.alpha 0.3"
    for name, line, method in (
        ("ramp-mixup", ramp, Ramp(Mixup(mode="elem"), (0.2, 1.0), ("alpha", 0.1, 2.0), "cosine")),
        ("until-mixup", until, Until(Mixup(alpha=0.3), 0.8)),
    ):
        config = configured("digits", name, line.split(), prog="multimix")
        assert (config.title, to_json(config.method)) == (name, to_json(method))


def test_a_run_that_stopped_is_resumed(multimix):
    line = f"train digits {TINY} --method multimix --quiet --checkpoint-steps 1"
    whole = multimix.succeeds(f"{line} --name whole").splitlines()
    with stopped_after(1):
        multimix(f"{line} --name part")
    again = multimix.succeeds("train --quiet --resume runs/part").splitlines()
    assert again[:2] == [whole[0], "run: runs/part"]
    assert weights(Path("runs/part")) == weights(Path("runs/whole"))
    assert steady(Path("runs/part")) == steady(Path("runs/whole"))
    assert multimix.succeeds("train --resume runs/part").splitlines() == again


def test_a_loss_that_is_no_number_stops_the_run_with_exit_code_1(multimix):
    fields = "--checkpoint-steps 1 --optimizer.learning-rate 1e30 --schedule.warmup-epochs 0"
    said = multimix.complains(f"train digits {TINY} --method erm --quiet --name run {fields}", code=1)
    assert re.match(r"the (loss|predictions|weights) of erm turned \S+ at mini-batch 2; the last good checkpoint", said)
    assert " is runs/run/last.ckpt. " in said


def test_a_finished_run_is_evaluated(multimix, finished):
    shutil.copytree(finished, "run")
    (record,) = events(finished, "test")
    numbers = f"accuracy {record['accuracy']:.4f}  nll {record['nll']:.4f}  ece {record['ece']:.4f}"
    lines = [f"run: accuracy: {numbers}  (359 images)", "report: run/report.html"]
    assert multimix.succeeds("evaluate run run --suites accuracy").splitlines() == lines * 2
    assert len(events(Path("run"), "test")) == 1
    multimix.succeeds("evaluate run --quiet")
    tests = [line for line in multimix.succeeds("train --resume run").splitlines() if line.startswith("test")]
    assert [line[:15] for line in tests] == ["test: accuracy "]


def test_the_home_folder_is_meant_wherever_a_path_is_given(multimix, finished, monkeypatch):
    shutil.copytree(finished, Path("home/runs/a"))
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    multimix.succeeds("evaluate ~/runs/a --quiet --suites accuracy")
    multimix.succeeds("report ~/runs --out=~/page.html --records=~/records.jsonl")
    multimix.succeeds("report ~/records.jsonl")
    multimix.succeeds(f"compare digits --methods erm {TINY} --seeds 1 --out=~/compare --quiet")
    assert {path.name for path in Path("home").iterdir()} >= {"runs", "page.html", "records.jsonl", "compare"}
    assert [path.name for path in Path().iterdir()] == ["home"]


def test_boxes_of_dashes_are_read_too():
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))  # which knows no Unicode
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["train", "digits", "--epoch", "3"]) == 2
    err.flush()
    assert err.buffer.getvalue() == b"multimix: Unrecognized options: --epoch, 3; did you mean --epochs?\n"


def test_what_a_terminal_cannot_show_is_shown_otherwise(multimix, finished):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(out):
        assert main(["report", str(finished)]) == 0
    out.flush()
    assert rb"Accuracy (%) \u2191" in out.buffer.getvalue()


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 12, 1, 2, 51, 31, tzinfo=tz)

    monkeypatch.setattr(_parser, "datetime", Clock)
    given, config = SimpleNamespace(name=None, out=tmp_path), SimpleNamespace(title="mixup", seed=0)
    names = []
    for _ in range(3):
        folder = _parser.run_folder(given, "runs", "digits", config)
        folder.mkdir()
        names.append(folder.name)
    assert names == [f"digits-mixup-0-20261201-025131{end}" for end in ("", "-2", "-3")]
    assert _parser.run_folder(SimpleNamespace(name="mine", out=None), "runs", "digits", config) == Path("runs/mine")
