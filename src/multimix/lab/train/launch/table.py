"""How many runs are going: a live table on a terminal, lines elsewhere."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from multimix.lab.train.launch.job import Job, State

_STYLE: dict[State, str] = {"running": "cyan", "failed": "red", "waiting": "dim", "done": "green"}
"""Colours; and what is shown first where not all rows fit."""
_FRAME = 6
"""Lines of the terminal that the table takes beside its rows."""


class LiveTable(AbstractContextManager["LiveTable"]):
    """Shows jobs while they go: a table on a terminal, a line for each change elsewhere, nothing when quiet.

    With ``brief``, for runs that show themselves, only failures that are not the last are told.
    """

    def __init__(self, jobs: Sequence[Job], *, quiet: bool, brief: bool = False) -> None:
        self._jobs, self._quiet, self._brief = jobs, quiet, brief
        self._console = Console(highlight=False, quiet=quiet)
        self._told: dict[Job, tuple[State, int]] = {}
        live = self._console.is_terminal and not quiet and not brief
        self._live = Live(console=self._console, auto_refresh=False, transient=False) if live else None

    def __enter__(self) -> Self:
        """Begin to show."""
        for job in self._jobs:
            job.look()
            self._told[job] = job.state, len(job.failures)
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
        for job in self._jobs:
            fresh = job.look()
            if not self._live:
                self._tell(job, fresh=fresh and not self._brief)
        if self._live:
            self._live.update(table(self._jobs, height=self._console.height - _FRAME), refresh=True)

    def _tell(self, job: Job, *, fresh: bool) -> None:
        lines = []
        if fresh:
            epoch, loss, accuracy = _numbers(job)
            lines.append(f"epoch {epoch}  loss {loss}" + (f"  validation accuracy {accuracy}" if accuracy else ""))
        before, self._told[job] = self._told[job], (job.state, len(job.failures))
        if before[1] < len(job.failures) and job.state != "failed":
            lines.append(f"{job.failures[-1].reason}; it is tried again")
        if before != self._told[job] and job.state != "waiting" and not self._brief:
            lines.append(_status(job) + (f": {job.failures[-1].reason}" if job.state == "failed" else ""))
        for line in lines:
            self._console.print(f"{job.config.title}, seed {job.config.seed}: {line}", markup=False, soft_wrap=True)


def _status(job: Job) -> str:
    """Return a job's state, and which attempt it is."""
    return f"retry {len(job.failures)}" if job.state == "running" and job.failures else job.state


def _numbers(job: Job) -> tuple[str, str, str]:
    """Return a run's epoch, loss and validation accuracy as they are shown."""
    epoch, loss, accuracy = (job.last.get(name) for name in ("epoch", "train_loss", "validation_accuracy"))
    return (
        f"{epoch or 0}/{job.config.epochs}",
        "" if loss is None else f"{loss:.4f}",
        "" if accuracy is None else f"{100 * accuracy:.2f} %",
    )


def table(jobs: Sequence[Job], *, height: int | None = None) -> Table:
    """Return a row for each job, or for as many as fit, and how many are in each state."""
    counts = Counter(job.state for job in jobs)
    shown = Table(caption=", ".join(f"{counts[state]} {state}" for state in _STYLE if counts[state]))
    for name in ("run", "seed", "state", "epoch", "loss", "validation accuracy"):
        shown.add_column(name, justify="left" if name in ("run", "state") else "right", no_wrap=True)
    if height is not None and len(jobs) > max(1, height):
        jobs = sorted(jobs, key=lambda job: list(_STYLE).index(job.state))[: max(1, height)]
    for job in jobs:
        state = Text(_status(job), style=_STYLE[job.state])
        shown.add_row(Text(job.config.title), str(job.config.seed), state, *_numbers(job))
    return shown


def failures(jobs: Sequence[Job]) -> Table:
    """Return the jobs that failed, how often they were tried, and why the last attempt did not go well."""
    shown = Table(title="failed runs", title_justify="left")
    for name in ("run", "seed", "attempts", "reason"):
        shown.add_column(name, justify="right" if name in ("seed", "attempts") else "left", overflow="fold")
    for job in jobs:
        attempts, reason = str(len(job.failures)), Text(job.failures[-1].reason)
        shown.add_row(Text(job.config.title), str(job.config.seed), attempts, reason)
    return shown
