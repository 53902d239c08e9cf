"""A command line in an empty folder."""

from pathlib import Path

import pytest

from cli.command import Command


@pytest.fixture
def multimix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MULTIMIX_DEBUG", raising=False)
    return Command(tmp_path, capfd)
