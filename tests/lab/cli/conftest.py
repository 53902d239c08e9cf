"""A command line in an empty folder, and a finished run for all who only look at it."""

import shlex
from pathlib import Path

import pytest

from cli.command import TINY, Command
from multimix.lab.cli.__main__ import main


@pytest.fixture
def multimix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MULTIMIX_DEBUG", raising=False)
    return Command(tmp_path, capfd)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the digits recipe; leave it as it is."""
    out = tmp_path_factory.mktemp("finished")
    assert main(shlex.split(f"train digits {TINY} --method erm --out {out} --name run --quiet")) == 0
    return out / "run"
