"""The command line, called in this process."""

import shlex
from pathlib import Path

import pytest

from multimix.lab.cli.__main__ import main

TINY = "--train-size 100 --width 2 --strides 1 2 2 2 --epochs 1 --batch-size 50 --device cpu"
"""Two mini-batches of one epoch of the digits recipe."""


class Command:
    """Runs command lines in a folder and looks at what comes out."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.folder, self._captured = folder, captured

    def __call__(self, line: str) -> tuple[int, str, str]:
        """Return exit code, output and errors."""
        self._captured.readouterr()
        code = main(shlex.split(line))
        said = self._captured.readouterr()
        return code, said.out, said.err

    def succeeds(self, line: str) -> str:
        """Run what must go well in silence but for its output."""
        code, out, err = self(line)
        assert (code, err) == (0, "")
        return out

    def complains(self, line: str, *, code: int = 2) -> str:
        """Run what must fail in one line; return the line."""
        found, out, err = self(line)
        assert (found, out) == (code, "")
        assert err.startswith("multimix: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert "Traceback" not in err
        return err.removeprefix("multimix: ").rstrip("\n")
