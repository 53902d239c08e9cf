"""Finding the command, help, and what becomes of errors."""

import os
import subprocess
import sys
from typing import Any

import pytest

import multimix as package
from multimix.lab.cli import list as list_command
from multimix.lab.cli.__main__ import COMMANDS, main
from multimix.lab.data import DATASETS
from multimix.lab.evaluate import SUITES
from multimix.lab.recipes import RECIPES
from multimix.lab.recipes.detection import DETECTION_RECIPES
from multimix.methods import METHODS
from multimix.models import MODELS
from multimix.names import METHOD_NAMES

HEAVY = {"torch", "tyro", "numpy", "lightning_fabric", "timm", "sklearn", "matplotlib", "rich", "argparse"}


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE"))}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.mark.parametrize("line", ["", "--help", "-h", "help"])
def test_help_names_every_command(multimix, line):
    out = multimix.succeeds(line)
    assert out.startswith("usage: multimix COMMAND ...")
    for name, about in COMMANDS.items():
        assert any(row.split() == [name, *about.split()] for row in out.splitlines())


@pytest.mark.parametrize("line", ["--version", "-V"])
def test_version(multimix, line):
    assert multimix.succeeds(line) == f"multimix {package.__version__}\n"


@pytest.mark.parametrize("command", [*COMMANDS, "train digits", "detect coco"])
def test_every_command_has_help(multimix, command):
    out = multimix.succeeds(f"{command} --help")
    assert f"usage: multimix {command}" in out


def test_help_of_a_recipe_names_every_field_and_its_value(multimix):
    out = multimix.succeeds("train cifar100-paper --help")
    for text in ("--epochs INT", "(default: 2000)", "--optimizer.learning-rate FLOAT", "(default: cifar100)"):
        assert text in out


def test_help_comes_without_waiting_for_torch():
    """A process of its own, as everything heavy has been loaded into this one."""
    code = "import sys; from multimix.__main__ import main; code = main(sys.argv[1:]); print(*sys.modules); exit(code)"
    done = python(code, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: multimix COMMAND" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "multimix.lab.cli.__main__" in loaded
    assert HEAVY & loaded == set()


@pytest.mark.parametrize("module", ["multimix", "multimix.lab.cli"])
def test_a_mistyped_command_is_answered_without_waiting_either(module):
    done = subprocess.run([sys.executable, "-m", module, "trian"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "multimix: unknown command 'trian'; did you mean train?\n"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("evalute run", "unknown command 'evalute'; did you mean evaluate?"),
        ("xyzzy", "unknown command 'xyzzy'; see multimix --help"),
        ("list methods", "unrecognized arguments: methods; see multimix list --help"),
        ("compare digits", "the following arguments are required: --methods; see multimix compare --help"),
    ],
)
def test_wrong_commands_and_arguments(multimix, line, said):
    assert multimix.complains(line) == said
    assert list(multimix.folder.iterdir()) == []


def test_list_names_everything_that_goes_by_a_name(multimix):
    out = multimix.succeeds("list")
    listed = {row.split()[0] for row in out.splitlines() if row.startswith("  ")}
    recipes = {*RECIPES, *DETECTION_RECIPES}
    wanted = {*(cls.name for cls in METHODS), *METHOD_NAMES, *recipes, *DATASETS, *MODELS, *(s.name for s in SUITES)}
    assert wanted | {"timm:NAME", "torchvision:NAME"} == listed
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
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
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
    """As in ``multimix list | head -1``, with a command that says more than a pipe holds."""
    child: Any = subprocess.Popen([sys.executable, "-c", MUCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == b"much\n"
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(timeout=120) == 0
    child.stderr.close()
