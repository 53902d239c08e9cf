"""A run from a plan in a file: ``python -m multimix.lab.train.launch.worker PLAN OUTCOME``, a task of Slurm.

The plan holds the run folder, the configuration, the user's own files that it is made of, and the command line that
asked for it; the outcome, the failure or null. Whoever reads outcomes knows by the lack of one that the task was cut
off.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from multimix.lab.train.launch.attempt import Failure, Job, Loaded, attempt
from multimix.lab.train.state import replacing


def write_plan(path: Path, job: Job) -> None:
    """Write what a task needs to know."""
    _write(path, {**job.plan(), "folder": str(job.folder.absolute()), "command": sys.argv})


def read_outcome(path: Path) -> Failure | None:
    """Return what a task wrote when it ended.

    Raises:
        FileNotFoundError: If it has not.
    """
    failure = json.loads(path.read_text(encoding="utf-8"))["failure"]
    return None if failure is None else Failure(**failure)


def main(plan: Path, outcome: Path) -> int:
    """Attempt the run of a plan, write the outcome and return the exit code."""
    outcome.unlink(missing_ok=True)
    given = json.loads(plan.read_text(encoding="utf-8"))
    sys.argv = given["command"]
    if cores := os.environ.get("SLURM_CPUS_PER_TASK"):
        torch.set_num_threads(int(cores))
    failure = attempt(Job.of(given), data=Loaded(), quiet=False)
    _write(outcome, {"failure": None if failure is None else asdict(failure)})
    return int(failure is not None)


def _write(path: Path, value: dict[str, Any]) -> None:
    with replacing(path) as file:
        file.write((json.dumps(value) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
