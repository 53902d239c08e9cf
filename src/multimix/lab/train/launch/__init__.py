"""Ways to bring many runs to their end: in this process, in several, on Ray, on Slurm.

A launcher takes jobs and says which of them have ended, and how; it knows nothing of retries, which
:func:`multimix.lab.train.many.run_all` sees to for all of them alike. What runs have reached is read from their
folders.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, get_args

from multimix.lab.train.launch.attempt import Failure, Job

Name = Literal["local", "ray", "slurm"]

LAUNCHERS: tuple[Name, ...] = get_args(Name)


class Launcher(Protocol):
    """Starts jobs elsewhere; a job is known by its run folder."""

    slots: int
    """How many jobs it takes at the same time."""
    speaks: bool
    """Whether runs show themselves how they go, so that nobody else has to."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin jobs, or put them into a queue."""

    def ended(self, seconds: float) -> dict[Path, Failure | None]:
        """Return what ended since the last call, after waiting so long for something to: None where all went well."""

    def queued(self) -> Collection[Path]:
        """Return which of the jobs are not yet running, as far as known."""

    def close(self) -> None:
        """Stop what is under way, which can be resumed, and let go of everything."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How many runs are to be brought to their end.

    Raises:
        ValueError: If a setting is none.
    """

    launcher: Name = "local"
    """Where: processes of this machine, Ray, or Slurm."""
    jobs: int = 1
    """Runs at the same time."""
    retries: int = 1
    """How often a run that failed is resumed; wrong input and diverged training are not."""
    quiet: bool = False
    """Show nothing but failures."""
    scratch: Path = field(default_factory=lambda: Path("runs"))
    """Folder in which a launcher may keep a folder of its own, such as ``slurm``."""
    slurm: str = ""
    """More options of sbatch, as in ``partition=gpu time=4:00:00``."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.launcher not in LAUNCHERS:
            raise ValueError(f"launcher must be one of {', '.join(LAUNCHERS)}, got {self.launcher!r}")
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        if self.retries < 0:
            raise ValueError(f"retries must not be negative, got {self.retries}")
        if self.slurm and self.launcher != "slurm":
            raise ValueError(f"options of Slurm go with launcher slurm, not {self.launcher}; got {self.slurm!r}")
