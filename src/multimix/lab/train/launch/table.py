"""How many runs are going: a live table on a terminal, lines elsewhere."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from multimix.lab.train.folder import RunFolder
from multimix.lab.train.launch.job import Failure, Job

State = Literal["waiting", "running", "done", "failed"]

_STYLE: dict[State, str] = {"running": "cyan", "failed": "red", "waiting": "dim", "done": "green"}
"""Colours; and what is shown first where not all rows fit."""
_FRAME = 6
"""Lines of the terminal that the table takes beside its rows."""


@dataclass
class Row:
    """What is known of a run."""

    job: Job
    state: State = "waiting"
    failures: list[Failure] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    """The newest epoch in its records."""
    _size: int = -1

    @property
    def name(self) -> str:
        """Return what lines call it."""
        return f"{self.job.config.title}, seed {self.job.config.seed}"

    @property
    def status(self) -> str:
        """Return its state, and which attempt it is."""
        again = len(self.failures)
        return f"retry {again}" if self.state == "running" and again else self.state

    @property
    def stage(self) -> tuple[State, int]:
        """Return its state and how many attempts have failed."""
        return self.state, len(self.failures)

    @property
    def numbers(self) -> tuple[str, str, str]:
        """Return its epoch, loss and validation accuracy as they are shown."""
        epoch, loss, accuracy = (self.last.get(name) for name in ("epoch", "train_loss", "validation_accuracy"))
        return (
            f"{epoch or 0}/{self.job.config.epochs}",
            "" if loss is None else f"{loss:.4f}",
            "" if accuracy is None else f"{100 * accuracy:.2f} %",
        )

    def conclude(self, failure: Failure | None, *, retries: int) -> None:
        """Take in how an attempt ended: done, failed, or waiting for the next."""
        if failure is None:
            self.state = "done"
            return
        self.failures.append(failure)
        self.state = "failed" if failure.final or len(self.failures) > retries else "waiting"

    def look(self) -> bool:
        """Read the run's records if they have changed; return whether there is a newer epoch."""
        records = RunFolder(self.job.folder).metrics
        try:
            size = records.path.stat().st_size
            if size == self._size:
                return False
            epochs = records.read("epoch")
        except (OSError, ValueError):  # not there yet; or damaged, of which the run itself complains
            return False
        self._size, before = size, self.last
        self.last = epochs[-1] if epochs else {}
        return bool(epochs) and self.last.get("epoch") != before.get("epoch")


class LiveTable(AbstractContextManager["LiveTable"]):
    """Shows rows while runs go: a table on a terminal, a line for each change elsewhere, nothing when quiet.

    With ``brief``, for runs that show themselves, only failures that are not the last are told.
    """

    def __init__(self, rows: Sequence[Row], *, quiet: bool, brief: bool = False) -> None:
        self._rows = rows
        self._console = Console(highlight=False, quiet=quiet)
        self._quiet, self._brief = quiet, brief
        self._told: dict[int, tuple[State, int]] = {}
        live = self._console.is_terminal and not quiet and not brief
        self._live = Live(console=self._console, auto_refresh=False, transient=False) if live else None

    def __enter__(self) -> Self:
        """Begin to show."""
        for number, row in enumerate(self._rows):
            row.look()
            self._told[number] = row.stage
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the table as it was last."""
        if self._live:
            self.show()
            self._live.stop()

    def show(self) -> None:
        """Look at every run and show what is new."""
        if self._quiet:
            return
        for number, row in enumerate(self._rows):
            fresh = row.look()
            if not self._live:
                self._tell(number, row, fresh=fresh and not self._brief)
        if self._live:
            self._live.update(table(self._rows, height=self._console.height - _FRAME), refresh=True)

    def _tell(self, number: int, row: Row, *, fresh: bool) -> None:
        if fresh:
            epoch, loss, accuracy = row.numbers
            seen = f"  validation accuracy {accuracy}" if accuracy else ""
            self._say(f"{row.name}: epoch {epoch}  loss {loss}{seen}")
        before, self._told[number] = self._told[number], row.stage
        if before == row.stage:
            return
        if before[1] < len(row.failures) and row.state != "failed":
            self._say(f"{row.name}: {row.failures[-1].reason}; it is tried again")
        if row.state != "waiting" and not self._brief:
            why = f": {row.failures[-1].reason}" if row.state == "failed" else ""
            self._say(f"{row.name}: {row.status}{why}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def table(rows: Sequence[Row], *, height: int | None = None) -> Table:
    """Return a row for each run, or for as many as fit, and how many are in each state."""
    counts = Counter(row.state for row in rows)
    shown = Table(caption=", ".join(f"{counts[state]} {state}" for state in _STYLE if counts[state]))
    for name in ("run", "seed", "state", "epoch", "loss", "validation accuracy"):
        shown.add_column(name, justify="left" if name in ("run", "state") else "right", no_wrap=True)
    fitting = list(rows)
    if height is not None and len(fitting) > max(1, height):
        fitting = sorted(fitting, key=lambda row: list(_STYLE).index(row.state))[: max(1, height)]
    for row in fitting:
        config, state = row.job.config, Text(row.status, style=_STYLE[row.state])
        shown.add_row(Text(config.title), str(config.seed), state, *row.numbers)
    return shown


def failures(rows: Sequence[Row]) -> Table:
    """Return the runs that failed, how often they were tried, and why the last attempt did not go well."""
    shown = Table(title="failed runs", title_justify="left")
    for name in ("run", "seed", "attempts", "reason"):
        shown.add_column(name, justify="right" if name in ("seed", "attempts") else "left", overflow="fold")
    for row in rows:
        if row.state == "failed":
            config, tried = row.job.config, row.failures
            shown.add_row(Text(config.title), str(config.seed), str(len(tried)), Text(tried[-1].reason))
    return shown
