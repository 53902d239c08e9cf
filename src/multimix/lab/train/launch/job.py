"""A run to bring to its end, one attempt at it, and the launchers of this machine."""

import os
import signal
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, Literal, Protocol

import torch

from multimix.lab._code import Code
from multimix.lab.data import Splits
from multimix.lab.runs.codec import code_of, from_json, to_json
from multimix.lab.runs.environment import is_out_of_memory
from multimix.lab.runs.loop import TrainingError
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.engine import resume, train
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.network import data_settings, load_data

State = Literal["waiting", "running", "done", "failed"]

_FINAL = (
    *(ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError),
    PermissionError,
)
"""What is wrong with the input stays wrong."""
_PATIENCE = 20.0
"""Seconds to wait for a folder that another process writes into: children of a killed one hold it a little longer."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt did not bring its run to the end, whether another would not either, and if the input is wrong."""

    reason: str
    final: bool = False
    wrong: bool = False


@dataclass(eq=False)
class Job:
    """A run to bring to its end, and how far it is."""

    folder: Path
    config: TrainConfig
    state: State = "waiting"
    failures: list[Failure] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    """The newest epoch in its records."""
    _size: int = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return Job.of, (self.plan(),)  # another process does not know the classes of the user's own files

    def plan(self) -> dict[str, Any]:
        """Return the job as JSON, with the user's own files that its configuration is made of."""
        code = {name: source.decode("utf-8", "surrogateescape") for name, source in code_of(self.config).items()}
        return {"folder": str(self.folder), "config": to_json(self.config), "code": code}

    @classmethod
    def of(cls, plan: dict[str, Any]) -> "Job":
        """Return the job that :meth:`plan` describes; its files are run, as whoever planned it ran them."""
        folder = Path(plan["folder"])
        code = {name: text.encode("utf-8", "surrogateescape") for name, text in plan.get("code", {}).items()}
        return cls(folder, from_json(plan["config"], Code(code, RunFolder(folder).code)))

    @property
    def finished(self) -> bool:
        """Return whether the run has come to its end, after as many epochs as it is to have."""
        run = RunFolder(self.folder)
        try:
            return self.folder.is_dir() and run.finished and run.read_config().epochs >= self.config.epochs
        except ValueError:  # damaged records are for the run to complain of
            return False

    def conclude(self, failure: Failure | None, *, retries: int) -> None:
        """Take in how an attempt ended: done, failed, or waiting for the next."""
        if failure is None:
            self.state = "done"
            return
        self.failures.append(failure)
        self.state = "failed" if failure.final or len(self.failures) > retries else "waiting"

    def look(self) -> bool:
        """Read the run's records if they have changed; return whether there is a newer epoch."""
        records = RunFolder(self.folder).metrics
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


class Loaded:
    """The data set that was loaded last, for runs that share it."""

    def __init__(self) -> None:
        self._known: tuple[Any, Splits] | None = None

    def __call__(self, config: TrainConfig) -> Splits:
        """Return the data set of a configuration."""
        wanted = config.data, data_settings(config), code_of(config.data)
        if self._known is None or self._known[0] != wanted:
            self._known = None  # two large sets need not fit into memory
            self._known = wanted, load_data(config)
        return self._known[1]


def attempt(job: Job, *, data: Loaded, quiet: bool = True) -> Failure | None:
    """Train a run, or resume it, and return why it did not come to its end; None if it did."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if (run := RunFolder(job.folder)).config_file.is_file():
                # Trusted by the command that named it, which compared the two.
                there, names = run.read_config(), ("data", "root", "epochs")
                changed: Any = {n: getattr(job.config, n) for n in names if getattr(there, n) != getattr(job.config, n)}
                resume(job.folder, **changed, quiet=quiet, trust_code=True)
            else:
                train(job.config, job.folder, quiet=quiet, splits=data(job.config))
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                return Failure(_line(error))
        except Exception as error:
            if os.environ.get("MULTIMIX_DEBUG"):
                traceback.print_exc()
            wrong = isinstance(error, _FINAL)
            # Training that diverged would diverge again; memory may be free by then.
            short = error.__cause__ is not None and is_out_of_memory(error.__cause__)
            return Failure(_line(error), final=wrong or (isinstance(error, TrainingError) and not short), wrong=wrong)
        else:
            return None
        time.sleep(1)


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split())
    told = isinstance(error, (ValueError, TypeError, OSError, RuntimeError)) and said
    return said if told else f"{type(error).__name__}: {said}".removesuffix(": ")


class Launcher(Protocol):
    """Starts jobs and says which have ended; retries are seen to for all launchers alike."""

    slots: int
    """How many jobs it takes at the same time."""
    speaks: bool = False
    """Whether runs show themselves how they go, so that nobody else has to."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Begin jobs, or put them into a queue and set their state to "waiting"."""

    def poll(self, seconds: float) -> dict[Job, Failure | None]:
        """Return what ended since the last call, after waiting so long for something to: None where all went well."""

    def close(self) -> None:
        """Stop what is under way, which can be resumed, and let go of everything."""
        return


class Here(Launcher):
    """Runs in this process, which load data that they share once and show themselves how they go."""

    slots = 1
    speaks = True

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._data = quiet, Loaded()
        self._jobs: Sequence[Job] = ()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Keep jobs for the next call of ``poll``."""
        self._jobs = jobs

    def poll(self, seconds: float) -> dict[Job, Failure | None]:
        """Run what was submitted, however long it takes."""
        return {job: attempt(job, data=self._data, quiet=self._quiet) for job in self._jobs}


class Pool(Launcher):
    """Workers that run one job after the other; one that dies is replaced, and the others do not notice."""

    def __init__(self, jobs: int) -> None:
        self.slots = jobs
        self._workers: list[Worker] = []

    def submit(self, jobs: Sequence[Job]) -> None:
        """Give each job to a worker that has none, or to a new one."""
        for worker in [worker for worker in self._workers if worker.job is None and not worker.process.is_alive()]:
            self._dismiss(worker)
        idle = [worker for worker in self._workers if worker.job is None]
        for job in jobs:
            if not idle:
                idle = [Worker(threads=max(1, (os.cpu_count() or 1) // self.slots))]
                self._workers += idle
            worker = idle.pop()
            worker.job = job
            with suppress(OSError):  # it has just died, which ``poll`` will notice
                worker.pipe.send(job)

    def poll(self, seconds: float) -> dict[Job, Failure | None]:
        """Return the outcome of jobs whose workers are done with them, or dead."""
        busy = [(worker, worker.job) for worker in self._workers if worker.job is not None]
        connection.wait([worker.pipe for worker, _ in busy], seconds)
        found: dict[Job, Failure | None] = {}
        for worker, job in busy:
            # Not by the end of the pipe alone, which children of a dead worker may hold open for a while.
            alive = worker.process.is_alive()
            try:
                if worker.pipe.poll():
                    found[job] = worker.pipe.recv()
                    worker.job = None
                elif not alive:
                    raise EOFError
            except (EOFError, OSError):
                found[job] = self._dismiss(worker)
        return found

    def _dismiss(self, worker: "Worker") -> Failure:
        """Let go of a dead worker and say how it died."""
        self._workers.remove(worker)
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return Failure(f"its process {how}")

    def close(self) -> None:
        """Stop every worker, behind a checkpoint."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(30.0)  # the time that a checkpoint may take
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers = []


class Worker:
    """A process that runs one job at a time."""

    def __init__(self, *, threads: int) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.job: Job | None = None
        # Not a daemon, which may have no children: data loaders have some. It ends with this process all the same.
        self.process = context.Process(target=_work, args=(theirs, threads, os.getpid()))
        self.process.start()
        theirs.close()


def _work(pipe: "Connection[Failure | None, Job]", threads: int, parent: int) -> None:
    """Run jobs until the pipe ends, or the process that started this one is gone: its run would go on unseen."""

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    torch.set_num_threads(threads)  # threads that wait for each other cost more than they bring
    Thread(target=end_with_parent, daemon=True).start()
    data = Loaded()
    with suppress(EOFError):
        while True:
            pipe.send(attempt(pipe.recv(), data=data))
