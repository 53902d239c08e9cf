"""Many runs: each trained or resumed, several at the same time, in this process, in several, on Ray or on Slurm.

A launcher only starts jobs and says which have ended. What runs have reached is read from their folders.
"""

import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from multimix._declared import Checked, Count, Ge
from multimix.lab.about import SUITES, judged_by
from multimix.lab.about.kinds import Metric
from multimix.lab.runs.codec import with_own_data
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.launch.job import Here, Job, Launcher, Loaded, Pool, State
from multimix.lab.train.network import data_settings

Name = Literal["local", "ray", "slurm"]

LAUNCHERS: tuple[Name, ...] = get_args(Name)
_POLL = 1.0
"""Seconds between two looks at how runs go."""
_STYLE: dict[State, str] = {"running": "cyan", "failed": "red", "waiting": "dim", "done": "green"}
"""Colours; and what is shown first where not all rows fit."""


@dataclass(frozen=True, kw_only=True)
class Launch(Checked):
    """How many runs are to be brought to their end."""

    launcher: Name = "local"
    """Where: processes of this machine, Ray, or Slurm."""
    jobs: Count = 1
    """Runs at the same time."""
    retries: Annotated[int, Ge(0)] = 1
    """How often a run that failed is resumed; wrong input and diverged training are not."""
    quiet: bool = False
    """Show nothing but failures."""
    scratch: Path = field(default_factory=lambda: Path("runs"))
    """Folder in which a launcher may keep a folder of its own, such as ``slurm``."""
    extend: bool = False
    """Take runs that have fewer epochs than they are to have further, finished ones too."""
    slurm: str = ""
    """More options of sbatch, as in ``partition=gpu time=4:00:00``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slurm and self.launcher != "slurm":
            raise ValueError(f"options of Slurm go with launcher slurm, not {self.launcher}; got {self.slurm!r}")


class LiveTable(AbstractContextManager["LiveTable"]):
    """Shows jobs while they go: a table on a terminal, a line for each change elsewhere, only retries when brief."""

    def __init__(self, jobs: Sequence[Job], *, quiet: bool, brief: bool = False) -> None:
        self._jobs, self._quiet, self._brief = jobs, quiet, brief
        self._console = Console(highlight=False, quiet=quiet)
        self._told: dict[Job, tuple[State, int]] = {}
        live = self._console.is_terminal and not quiet and not brief
        self._live = Live(console=self._console, auto_refresh=False, transient=False) if live else None

    def __enter__(self) -> Self:
        for job in self._jobs:
            job.look()
            self._told[job] = job.state, len(job.failures)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
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
            self._live.update(table(self._jobs, height=self._console.height - 6), refresh=True)  # of title and frame

    def _tell(self, job: Job, *, fresh: bool) -> None:
        lines = []
        if fresh:
            epoch, loss, judged = _numbers(job)
            judged = judged and f"  validation {_judge([job]).spoken} {judged}"
            lines.append(f"epoch {epoch}  loss {loss}{judged}")
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
    """Return a run's epoch, loss and what it is judged by on the validation split as they are shown."""
    judge = _judge([job])
    epoch, loss, judged = (job.last.get(name) for name in ("epoch", "train_loss", f"validation_{judge.name}"))
    return (
        f"{epoch or 0}/{job.config.epochs}",
        "" if loss is None else f"{loss:.4f}",
        "" if judged is None else f"{judge.factor * judged:.2f} {judge.unit}",
    )


def _judge(jobs: Sequence[Job]) -> Metric:
    """Return what jobs are judged by on the validation split: accuracy, unless the first says otherwise."""
    names = {name for job in jobs[:1] for name in job.last}
    return (*judged_by(names, "validation_"), *SUITES["accuracy"].metrics)[0]


def table(jobs: Sequence[Job], *, height: int | None = None) -> Table:
    """Return a row for each job, or for as many as fit, and how many are in each state."""
    counts = Counter(job.state for job in jobs)
    shown = Table(caption=", ".join(f"{counts[state]} {state}" for state in _STYLE if counts[state]))
    for name in ("run", "seed", "state", "epoch", "loss", f"validation {_judge(jobs).spoken}"):
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
        told = Text(job.failures[-1].reason)
        shown.add_row(Text(job.config.title), str(job.config.seed), str(len(job.failures)), told)
    return shown


class FailedRunsError(RuntimeError):
    """Some runs did not come to their end."""


def run_all(runs: Mapping[Path, TrainConfig], launch: Launch) -> None:
    """Bring every run to its end; a table on the error stream says why some failed, which do not hold up the others."""
    jobs, load = [Job(folder, with_own_data(config)) for folder, config in runs.items()], Loaded()
    for job in jobs:
        config = job.config
        if config.world_size > 1:  # its processes are copies of the command, each of which would fan out once more
            raise ValueError(
                "devices and nodes must be 1 where many runs share the machines, got"
                f" {config.devices} and {config.nodes}; multimix train takes more"
            )
        RunFolder(job.folder).check_same(config, load, extend=launch.extend)
        job.state = "done" if job.finished else "waiting"
    waiting = [job for job in jobs if job.state == "waiting"]
    if not waiting:
        return
    for job in sorted(jobs, key=lambda job: str(data_settings(job.config))):
        if job.state == "done":  # others look themselves as they go on
            with suppress(FileNotFoundError):  # data may lie where the runs go, and not here
                RunFolder(job.folder).check_data(load(job.config), "give another --out")
    with (
        closing(_launcher(launch, waiting)) as launcher,
        LiveTable(jobs, quiet=launch.quiet, brief=launcher.speaks) as board,
    ):
        _fan_out(waiting, launcher, board, retries=launch.retries)
    failed = [job for job in jobs if job.state == "failed"]
    if not failed:
        return
    reasons = {job.failures[-1].reason for job in failed}
    if len(failed) == len(jobs) and len(reasons) == 1 and all(job.failures[-1].wrong for job in failed):
        raise ValueError(reasons.pop())
    Console(stderr=True, highlight=False).print(failures(failed))
    raise FailedRunsError(
        f"{len(failed)} of {len(jobs)} runs failed; those that finished are kept, and the same command goes on with"
        " the others"
    )


def fitting_jobs(device: str) -> int:
    """Return how many runs at the same time suit this machine: threads of one run wait for each other, runs do not."""
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return 1 if on_gpu else min(4, os.cpu_count() or 1)


def _launcher(launch: Launch, jobs: Sequence[Job]) -> Launcher:
    if launch.launcher == "ray":
        from multimix.lab.train.launch.ray import OnRay

        return OnRay(launch.jobs, {job.config.device for job in jobs})
    if launch.launcher == "slurm":
        from multimix.lab.train.launch.slurm import OnSlurm

        return OnSlurm(launch.scratch / "slurm", jobs=launch.jobs, options=launch.slurm)
    return Here(quiet=launch.quiet) if launch.jobs == 1 else Pool(launch.jobs)


def _fan_out(jobs: Sequence[Job], launcher: Launcher, board: LiveTable, *, retries: int) -> None:
    """Keep the launcher's slots full until no job waits."""
    waiting, underway = deque(jobs), set[Job]()
    while waiting or underway:
        fresh = [waiting.popleft() for _ in range(min(len(waiting), launcher.slots - len(underway)))]
        if fresh:
            for job in fresh:
                job.state = "running"
            launcher.submit(fresh)
            underway.update(fresh)
        board.show()
        for job, failure in launcher.poll(_POLL).items():
            underway.remove(job)
            job.conclude(failure, retries=retries)
            if job.state == "waiting":
                waiting.append(job)
    board.show()
