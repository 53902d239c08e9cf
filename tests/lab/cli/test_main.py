"""Finding the command, help, and what becomes of errors."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import multimix as package
from cli.command import TINY
from multimix.lab.cli import list as list_command
from multimix.lab.cli.__main__ import COMMANDS, main
from multimix.lab.data import DATASETS
from multimix.lab.evaluate import SUITES
from multimix.lab.recipes import RECIPES
from multimix.lab.recipes.detection import DETECTION_RECIPES
from multimix.models import MODELS
from multimix.names import AROUND, METHOD_NAMES

HEAVY = {"torch", "tyro", "numpy", "lightning_fabric", "timm", "sklearn", "matplotlib", "rich", "argparse"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE"))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("line", ["", "--help", "-h", "help"])
def test_help_names_every_command(multimix, line):
    first, *rows = multimix.succeeds(line).splitlines()
    assert first == "usage: multimix COMMAND ..."
    assert all([name, *about.split()] in [row.split() for row in rows] for name, about in COMMANDS.items())


@pytest.mark.parametrize("line", ["--version", "-V"])
def test_version(multimix, line):
    assert multimix.succeeds(line) == f"multimix {package.__version__}\n"


@pytest.mark.parametrize("command", [*COMMANDS, "train digits", "detect coco"])
def test_every_command_has_help(multimix, command):
    assert f"usage: multimix {command}" in multimix.succeeds(f"{command} --help")
    if command in ("train", "detect"):
        assert multimix.succeeds(command) == multimix.succeeds(f"{command} -h")


def test_help_of_a_recipe_names_every_field_and_its_value(multimix):
    out = multimix.succeeds("train cifar100-paper --help")
    texts = "--epochs INT", "(default: 2000)", "--optimizer.learning-rate FLOAT", "(default: cifar100)"
    assert all(text in out for text in texts)


def test_help_comes_without_waiting_for_torch():
    code = "import sys; from multimix.__main__ import main; code = main(sys.argv[1:]); print(*sys.modules); exit(code)"
    done = python("-c", code, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: multimix COMMAND" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "multimix.lab.cli.__main__" in loaded
    assert HEAVY & loaded == set()


@pytest.mark.parametrize("module", ["multimix", "multimix.lab.cli"])
def test_a_mistyped_command_is_answered_without_waiting_either(module):
    done = python("-m", module, "trian")
    said = "multimix: unknown command 'trian'; did you mean train?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


SMALL = f"train digits {TINY} --name run"
COMPARE = "compare digits --methods erm"
STUDIES = Path(__file__).parents[3] / "studies"
SWEEP = f"compare {STUDIES}/sweeps.py:effective"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("xyzzy", "unknown command 'xyzzy'; see multimix --help"),
        ("list methods", "unrecognized arguments: methods; see multimix list --help"),
        ("train digit", "unknown recipe 'digit'; did you mean digits"),
        (f"{SMALL} --method mutlimix", "unknown method 'mutlimix'; did you mean multimix"),
        (f"{SMALL} --data cifar10 --root nowhere", "cifar10 is not, or not whole, under nowhere: pass --download"),
        (f"{SMALL} --epoch 3", "Unrecognized options: --epoch, 3; did you mean --epochs?"),
        (f"{SMALL} --epochs x", "Error parsing --epochs: invalid literal for int() with base 10: 'x'"),
        (f"{SMALL} --train-size 5", "train_size=5 does not fit: 5 of 1294 images cannot hold each of the 10 classes"),
        (f"{SMALL} --optimizer.learning-rate 0", "Error parsing optimizer: learning_rate must be above 0 and finite"),
        (f"{SMALL} --method erm --method.alpha 1", "Unrecognized options: --method.alpha, 1"),
        (f"{SMALL} --method distilled-multimix --method.method.tuples 0", "tuples must be at least 1, got 0"),
        (f"{SMALL} --method distilled-multimix --method.method.tuple 1",
         "Unrecognized options: --method.method.tuple, 1; did you mean --method.method.tuple-length?"),
        (f"{SMALL} --method mixup --method.method.alpha 1", "--method.method does not exist: mixup has no method in"),
        (f"{SMALL} --method multimix-paper --method.methods.2.alpha 1",
         "--method.methods.2 does not exist: there are 2 methods, counted from 0"),
        ("train --resume nowhere", "there is no run folder nowhere"),
        ("train --resume", "argument --resume: expected one argument"),
        ("train --resume . --width 3", "--resume takes the run's own configuration, and beside it --quiet, --data,"),
        ("train --resume .", ". is not a run folder: it has no config.json"),
        ("evaluate nowhere", "there is no run folder nowhere"),
        ("evaluate ~nosuchuser/x", "there is no run folder ~nosuchuser/x"),
        ("data folder:~nosuchuser/x", "folder:~nosuchuser/x is not a folder"),
        ("report nowhere", "run folder 'nowhere' does not exist"),
        ("bench opps", "invalid choice: 'opps'"),
        ("detect coco-minni --backbone x", "unknown recipe of detection 'coco-minni'; did you mean coco-mini"),
        ("detect coco-mini", "backbone must be the folder of a finished training run: --backbone RUN"),
        ("detect coco-mini --backbone x", "there is no run folder x"),
        ("compare digits", "the following arguments are required: --methods; see multimix compare --help"),
        ("compare digit --methods erm", "unknown recipe 'digit'; did you mean digits"),
        (f"{COMPARE} mixupp", "unknown method 'mixupp'; did you mean mixup"),
        (f"{COMPARE} --jobs 0", "argument --jobs: must be at least 1, got 0"),
        (f"{COMPARE} --retries -1", "argument --retries: must be at least 0, got -1"),
        (f"{COMPARE} --slurm time=1", "--slurm goes with --launcher slurm, got --launcher local"),
        (f"{COMPARE} --launcher slurm --slurm array=1-3", "slurm must not hold array, which"),
        (f"{COMPARE} --arms erm", "--arms names arms of a study, which is a file"),
        (f"{COMPARE} mixup --label x", "--label does not go with several of them"),
        (f"compare {STUDIES}/sweeps.py", "holds more than one study: say which, as in"),
        (SWEEP[:-1], "sweeps.py has no 'effectiv'; it has effective, tuples"),
        (f"compare {STUDIES}/seconds.py:COSTS", "COSTS must be a Study, or a function that returns one; got dict"),
        (f"{SWEEP} --arms mixup", "--arms: study effective has no arm 'mixup'; it has erm, effective 1.5"),
        (f"{SWEEP} --method.alpha 1", "--method.FIELD does not go with a study"),
        (f"{SWEEP} --seed 3", "a study sets --label and --seed of its runs itself"),
        (f"compare {STUDIES}/comparison.py:digits_all --validation 0",
         "validation must be above 0 where candidates are chosen by it, got 0"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_nothing_is_written(multimix, line, said):
    assert said in multimix.complains(line)
    assert list(multimix.folder.iterdir()) == []


def test_list_names_everything_that_goes_by_a_name(multimix):
    out = multimix.succeeds("list")
    listed = {row.split()[0] for row in out.splitlines() if row.startswith("  ")}
    wanted = {*METHOD_NAMES, *RECIPES, *DETECTION_RECIPES, *DATASETS, *MODELS, *(suite.name for suite in SUITES)}
    assert wanted | {"timm:NAME", "torchvision:NAME"} | {f"{name}-NAME" for name in AROUND} == listed
    for heading in ("methods", "recipes", "detection recipes", "data sets", "models", "suites"):
        assert f"\n{heading}" in f"\n{out}"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("epochs must\n  be at least 1"), 2, "epochs must be at least 1"),
        (TypeError("method must be a method"), 2, "method must be a method"),
        (PermissionError(13, "Permission denied", "/run"), 2, "[Errno 13] Permission denied: '/run'"),
        (RuntimeError("the loss turned nan"), 1, "the loss turned nan"),
        (ValueError(), 2, "ValueError"),
        (AssertionError("height"), 1, "AssertionError: height (with MULTIMIX_DEBUG=1 it says where)"),
        (KeyError("key"), 1, "KeyError: 'key' (with MULTIMIX_DEBUG=1 it says where)"),
        (KeyboardInterrupt(), 130, "stopped; a run goes on with: multimix train --resume RUN"),
    ],
)
def test_no_error_ends_in_a_traceback(multimix, monkeypatch, error, code, said):
    def fail(_: list[str]) -> None:
        raise error

    monkeypatch.setattr(list_command, "main", fail)
    assert multimix.complains("list", code=code) == said


def test_whoever_debugs_gets_the_traceback(multimix, monkeypatch):
    monkeypatch.setenv("MULTIMIX_DEBUG", "1")
    with pytest.raises(ValueError, match="unrecognized arguments"):
        main(["list", "--all"])


@pytest.mark.parametrize(("stop", "code"), [(None, 0), (0, 0), (3, 3), ("no", 1)])
def test_exits_inside_become_exit_codes(multimix, monkeypatch, stop, code):
    def leave(_: list[str]) -> None:
        raise SystemExit(stop)

    monkeypatch.setattr(list_command, "main", leave)
    assert multimix("list")[0] == code


MUCH = """
import sys, types
from multimix.lab.cli.__main__ import main

stub = types.ModuleType("multimix.lab.cli.list")
stub.main = lambda _: print("much\\n" * 100_000)
sys.modules[stub.__name__] = stub
sys.exit(main(["list"]))
"""


def test_a_reader_who_has_seen_enough_is_no_error():
    child: Any = subprocess.Popen([sys.executable, "-c", MUCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == b"much\n"
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(timeout=120) == 0
    child.stderr.close()
