from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from report.factory import write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A factory of run folders, each in a place of its own."""
    count = iter(range(1000))

    def make(**options: Any) -> Path:
        return write_run(tmp_path / "runs" / f"run-{next(count)}", **options)

    return make
