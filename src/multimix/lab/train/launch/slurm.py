"""Runs as tasks of a Slurm array, which share a file system with whoever submits them.

Everything lies in one folder: a plan and an outcome for each run, the scripts that were submitted, what the tasks
printed, and which task has which run, so that a call that was cut off finds its tasks again.
"""

import contextlib
import getpass
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from multimix.lab.runs.folder import write_json_lines
from multimix.lab.train.launch.job import Failure, Job, Launcher, Loaded, attempt

_OWN = ("array", "chdir", "job-name", "open-mode", "output", "requeue", "no-requeue", "signal")
"""Options of sbatch that the script sets itself."""

_EVERY = 10.0
"""Seconds between two looks at the queue."""

SCRIPT = """\
#!/bin/bash
{options}
# Slurm warns this shell alone, a minute before it ends the task: pass it on, for the run to write its checkpoint.
trap 'told=1; kill -TERM "$child" 2>/dev/null' TERM
task=$SLURM_ARRAY_TASK_ID
work='from multimix.lab.train.launch.slurm import work; work()'
{python} -c "$work" {folder}/plans/"$task".json {folder}/outcomes/"$task".json &
child=$!
[ -z "$told" ] || kill -TERM "$child"
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do
  wait "$child"
  code=$?
done
exit "$code"
"""


class OnSlurm(Launcher):
    """Array tasks of Slurm, watched through its queue and the files that they write."""

    def __init__(self, folder: Path, *, jobs: int, options: str = "") -> None:
        self.slots = sys.maxsize  # Slurm itself keeps to ``jobs``
        self._folder, self._jobs, self._options = folder.absolute(), jobs, parsed(options)
        self._underway: dict[int, Job] = {}
        self._missed: dict[int, int] = {}
        self._looked = 0.0
        self._tasks: dict[int, str] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit jobs as one array, but for those that an earlier call submitted and that are still in the queue."""
        for name in ("plans", "outcomes", "logs"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        numbers = {self._number(job): job for job in jobs}
        self._tasks = self._known()
        states = self._queue() if self._tasks else {}
        if states is None:
            raise RuntimeError("squeue does not answer, so tasks of an earlier call cannot be found again; try later")
        fresh = [n for n in numbers if self._outcome(n).exists() or self._tasks.get(n) not in states]
        if fresh:
            self._submit(fresh)
        self._underway |= numbers
        self._see(states)
        self._missed |= dict.fromkeys(numbers, 0)

    def poll(self, seconds: float) -> dict[Job, Failure | None]:
        """Return the outcome of tasks that wrote one, or that have left the queue without."""
        time.sleep(seconds)
        if time.monotonic() - self._looked >= _EVERY:
            self._see(self._queue())
        found: dict[Job, Failure | None] = {}
        for number, job in list(self._underway.items()):
            try:
                failure = json.loads(self._outcome(number).read_text(encoding="utf-8"))["failure"]
                found[job] = None if failure is None else Failure(**failure)
            except FileNotFoundError:
                if self._missed[number] < 2:  # looks at the queue that missed it: files may come late
                    continue
                found[job] = self._unknown(self._tasks[number])
            del self._underway[number]
        return found

    def close(self) -> None:
        """Cancel the tasks that have not ended."""
        going = [self._tasks[number] for number in self._underway if number in self._tasks]
        if going:
            with contextlib.suppress(RuntimeError):
                _call("scancel", *going)

    def _see(self, states: Mapping[str, str] | None) -> None:
        """Take in what the queue says of each task; None where Slurm does not answer."""
        self._looked = time.monotonic()
        if states is None:
            return
        for number, job in self._underway.items():
            state = states.get(self._tasks.get(number, ""))
            self._missed[number] = 0 if state else self._missed.get(number, 0) + 1
            job.state = "running" if state in ("RUNNING", "COMPLETING") else "waiting"

    def _number(self, job: Job) -> int:
        """Return the number of a job, which names its plan and is its index in every array; write the plan."""
        folder = str(job.folder.absolute())
        plans = {int(path.stem): path for path in (self._folder / "plans").glob("*.json")}
        known = (n for n, path in plans.items() if json.loads(path.read_text(encoding="utf-8"))["folder"] == folder)
        number = next(known, max(plans, default=-1) + 1)
        plan = {**job.plan(), "folder": folder, "command": sys.argv}
        write_json_lines(self._folder / "plans" / f"{number}.json", [plan])
        return number

    def _submit(self, numbers: Sequence[int]) -> None:
        count = len(list(self._folder.glob("array-*.sh")))
        path = self._folder / f"array-{count}.sh"
        path.write_text(script(self._folder, numbers, jobs=self._jobs, options=self._options), encoding="utf-8")
        for number in numbers:
            self._outcome(number).unlink(missing_ok=True)
        if shutil.which("sbatch") is None:
            raise RuntimeError(f"sbatch is not here; {path} is written, for a machine of the cluster to submit")
        job = _call("sbatch", "--parsable", str(path)).split()[-1].split(";")[0]
        self._tasks = self._known() | {number: f"{job}_{number}" for number in numbers}  # others submit here too
        write_json_lines(self._folder / "tasks.json", [self._tasks])

    def _known(self) -> dict[int, str]:
        """Return the task of each number, as any call has submitted it."""
        path = self._folder / "tasks.json"
        tasks = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return {int(number): task for number, task in tasks.items()}

    def _outcome(self, number: int) -> Path:
        return self._folder / "outcomes" / f"{number}.json"

    def _queue(self) -> dict[str, str] | None:
        """Return the state of each task in the queue; None where Slurm does not answer."""
        try:
            lines = _call("squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i %T")
        except RuntimeError:
            return None
        return dict(line.split(maxsplit=1) for line in lines.splitlines() if line.strip())

    def _unknown(self, task: str) -> Failure:
        """Say what Slurm knows of a task that was cut off."""
        state = ""
        with contextlib.suppress(RuntimeError):
            state = _call("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={task}", "--format=State")
        how = " ".join(state.split()) or "left the queue without an outcome"
        return Failure(f"Slurm task {task}: {how}; see {self._folder / 'logs'}/{task}.log")


def work() -> None:
    """Attempt the run of a plan and write the outcome: what a task does, called with both files."""
    plan, outcome = map(Path, sys.argv[1:])
    outcome.unlink(missing_ok=True)
    given = json.loads(plan.read_text(encoding="utf-8"))
    sys.argv = given["command"]
    if cores := os.environ.get("SLURM_CPUS_PER_TASK"):
        torch.set_num_threads(int(cores))
    failure = attempt(Job.of(given), data=Loaded(), quiet=False)
    write_json_lines(outcome, [{"failure": None if failure is None else asdict(failure)}])
    sys.exit(int(failure is not None))


def parsed(options: str) -> dict[str, str | None]:
    """Return options of sbatch by name, without a value where they have none."""
    found: dict[str, str | None] = {}
    for word in shlex.split(options):
        name, given, value = word.partition("=")
        if not re.fullmatch("[a-z][a-z-]*", name):
            raise ValueError(f"slurm must hold long options of sbatch such as time=4:00:00, without --, got {word!r}")
        if name in _OWN:
            raise ValueError(f"slurm must not hold {name}, which multimix sets itself, got {word!r}")
        found[name] = value if given else None
    return found


def script(folder: Path, numbers: Sequence[int], *, jobs: int, options: Mapping[str, Any]) -> str:
    """Return the script that sbatch takes: one array, a task for each number."""
    own: dict[str, Any] = {
        "job-name": "multimix",
        "array": f"{','.join(map(str, sorted(numbers)))}%{jobs}",
        "chdir": Path.cwd(),
        "output": folder / "logs" / "%A_%a.log",
        "open-mode": "append",
        "requeue": None,
        "signal": "B:TERM@60",
    }
    lines = [
        f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in {**own, **options}.items()
    ]
    return SCRIPT.format(options="\n".join(lines), python=shlex.quote(sys.executable), folder=shlex.quote(str(folder)))


def _call(program: str, *arguments: str) -> str:
    """Return what a program of Slurm prints."""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=True)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{program} failed: {' '.join(error.stderr.split())}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{program} cannot be called: {error}") from error
    return done.stdout
