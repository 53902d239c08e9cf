"""Where a run took place, with and without git, and what it shows of passes that take long."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from multimix.lab.runs import display, environment
from multimix.lab.runs.display import Display


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A repository that the code seems to run from."""
    source = tmp_path / "package/train/environment.py"
    source.parent.mkdir(parents=True)
    source.write_text("# code\n")
    (tmp_path / "records.jsonl").write_text("{}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(environment, "__file__", str(source))
    return tmp_path


FAULTS = """
import resource, torch
from multimix.lab.runs import environment

environment.keep_freed_memory()
for _ in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept():
    """Once it has settled, 64 MiB come without faults of pages; given back to the system, with one for every 4 KiB.

    At first, the C library keeps back up to seven slivers beside blocks, which are then too narrow for the next one.
    """
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert max(map(int, done.stdout.split()[-10:])) < 1000


def test_the_commit_of_a_checkout(checkout, monkeypatch):
    head = git(checkout, "rev-parse", "HEAD")
    assert environment.commit() == head[:12]
    (checkout / "notes.txt").write_text("not of the code")
    (checkout / "records.jsonl").write_text("{}\n{}\n")
    assert environment.commit() == head[:12]
    (checkout / "package/train/environment.py").write_text("# other code\n")
    assert environment.commit() == f"{head[:12]}-dirty"
    installed = checkout / "installed.py"  # as in a virtual environment inside someone's repository
    installed.write_text("# installed\n")
    monkeypatch.setattr(environment, "__file__", str(installed))
    assert environment.commit() is None


def test_without_a_repository_or_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert environment.commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit() is None


def test_packages_that_are_not_there_have_no_version(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("numpy", "no-such-package"))
    found = environment.describe(torch.device("cpu"))
    assert found["no-such-package"] is None
    assert found["numpy"].count(".") >= 1


@pytest.mark.parametrize(
    ("argv", "command"),
    [(["/usr/bin/multimix", "train", "digits"], "multimix train digits"), (["pytest", "-q"], None)],
)
def test_the_command_line_is_kept_if_it_was_ours(argv, command, monkeypatch):
    monkeypatch.setattr("sys.argv", argv)
    assert environment.describe(torch.device("cpu"))["command"] == command


def test_peak_memory_covers_what_was_held():
    held = torch.ones(2**26)  # 256 MiB
    del held
    assert 256 < environment.peak_mib(torch.device("cpu")) < 2**20


@pytest.mark.parametrize(("least", "quiet", "lines"), [(-1.0, False, 1), (-1.0, True, 0), (60.0, False, 0)])
def test_a_pass_that_takes_long_has_a_line_and_what_is_said_is_never_quiet(least, quiet, lines, capfd, monkeypatch):
    monkeypatch.setattr(display, "_LONG_PASS", least)
    with Display("run", quiet=quiet) as shown:
        assert list(shown.track("test", [1, 2])) == [1, 2]
        shown.say("run: accuracy [0.5]")
    *passes, said = capfd.readouterr().out.splitlines()
    assert said == "run: accuracy [0.5]"
    assert [line.startswith("run: test  ") for line in passes] == [True] * lines
