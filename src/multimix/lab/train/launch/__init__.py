"""Many runs: each trained or resumed, several at the same time, in this process, in several, on Ray or on Slurm.

A launcher only starts jobs and says which have ended. What runs have reached is read from their folders.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
from rich.console import Console

from multimix._declared import Checked, Count, Ge
from multimix.lab.runs.codec import with_own_data
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.launch.job import Job, Launcher
from multimix.lab.train.launch.local import Here, Pool
from multimix.lab.train.launch.table import LiveTable, Row, failures

Name = Literal["local", "ray", "slurm"]

LAUNCHERS: tuple[Name, ...] = get_args(Name)
_POLL = 1.0
"""Seconds between two looks at how runs go."""


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
    slurm: str = ""
    """More options of sbatch, as in ``partition=gpu time=4:00:00``."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if self.slurm and self.launcher != "slurm":
            raise ValueError(f"options of Slurm go with launcher slurm, not {self.launcher}; got {self.slurm!r}")


class FailedRunsError(RuntimeError):
    """Some runs did not come to their end."""


def run_all(runs: Mapping[Path, TrainConfig], launch: Launch) -> None:
    """Bring every run to its end, several at the same time; those that have ended are left as they are.

    A run that fails, or whose process dies, does not hold up the others: it is resumed up to ``launch.retries`` times.

    Raises:
        ValueError: If a folder holds a run with another configuration, or a run asks for several devices; then none is
            begun. If every run is refused for one and the same reason.
        FailedRunsError: If runs failed in the end; a table on the error stream says why. The same call goes on.
    """
    runs = {folder: with_own_data(config) for folder, config in runs.items()}
    for folder, config in runs.items():
        if config.world_size > 1:  # its processes are copies of the command, each of which would fan out once more
            raise ValueError(
                "devices and nodes must be 1 where many runs share the machines, got"
                f" {config.devices} and {config.nodes}; multimix train takes more"
            )
        RunFolder(folder).check_same(config)
    rows = [Row(Job(folder, config)) for folder, config in runs.items()]
    for row in rows:
        row.state = "done" if row.job.finished else "waiting"
    waiting = [row for row in rows if row.state == "waiting"]
    if not waiting:
        return
    with (
        closing(_launcher(launch, waiting)) as launcher,
        LiveTable(rows, quiet=launch.quiet, brief=launcher.speaks) as board,
    ):
        _fan_out(waiting, launcher, board, retries=launch.retries)
    failed = [row for row in rows if row.state == "failed"]
    if not failed:
        return
    reasons = {row.failures[-1].reason for row in failed}
    if len(failed) == len(rows) and len(reasons) == 1 and all(row.failures[-1].wrong for row in failed):
        raise ValueError(reasons.pop())
    Console(stderr=True, highlight=False).print(failures(failed))
    raise FailedRunsError(
        f"{len(failed)} of {len(rows)} runs failed; those that finished are kept, and the same command goes on with"
        " the others"
    )


def fitting_jobs(device: str) -> int:
    """Return how many runs at the same time suit this machine: threads of one run wait for each other, runs do not."""
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return 1 if on_gpu else min(4, os.cpu_count() or 1)


def _launcher(launch: Launch, rows: Sequence[Row]) -> Launcher:
    if launch.launcher == "ray":
        from multimix.lab.train.launch.ray import OnRay

        return OnRay(launch.jobs, {row.job.config.device for row in rows})
    if launch.launcher == "slurm":
        from multimix.lab.train.launch.slurm import OnSlurm

        return OnSlurm(launch.scratch / "slurm", jobs=launch.jobs, options=launch.slurm)
    return Here(quiet=launch.quiet) if launch.jobs == 1 else Pool(launch.jobs)


def _fan_out(rows: Sequence[Row], launcher: Launcher, board: LiveTable, *, retries: int) -> None:
    """Keep the launcher's slots full until no row waits."""
    waiting, underway = deque(rows), dict[Path, Row]()
    while waiting or underway:
        fresh = [waiting.popleft() for _ in range(min(len(waiting), launcher.slots - len(underway)))]
        if fresh:
            launcher.start([row.job for row in fresh])
            underway |= {row.job.folder: row for row in fresh}
        queued = launcher.queued()
        for folder, row in underway.items():
            row.state = "waiting" if folder in queued else "running"
        board.show()
        for folder, failure in launcher.ended(_POLL).items():
            row = underway.pop(folder)
            row.conclude(failure, retries=retries)
            if row.state == "waiting":
                waiting.append(row)
    board.show()
