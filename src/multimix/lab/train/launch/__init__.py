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
from multimix.lab.train.launch.job import Here, Job, Launcher, Pool
from multimix.lab.train.launch.table import LiveTable, failures

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
    Where runs failed in the end, a table on the error stream says why; the same call goes on.
    """
    jobs = [Job(folder, with_own_data(config)) for folder, config in runs.items()]
    for job in jobs:
        config = job.config
        if config.world_size > 1:  # its processes are copies of the command, each of which would fan out once more
            raise ValueError(
                "devices and nodes must be 1 where many runs share the machines, got"
                f" {config.devices} and {config.nodes}; multimix train takes more"
            )
        RunFolder(job.folder).check_same(config)
    for job in jobs:
        job.state = "done" if job.finished else "waiting"
    waiting = [job for job in jobs if job.state == "waiting"]
    if not waiting:
        return
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
