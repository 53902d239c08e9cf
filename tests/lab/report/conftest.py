from collections.abc import Callable
from pathlib import Path

import pytest

from multimix.lab.report import Run, read_run
from report.factory import write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """A factory of runs, each read from a folder of its own."""
    count = iter(range(1000))
    return lambda **options: read_run(write_run(tmp_path / "runs" / f"run-{next(count)}", **options))
