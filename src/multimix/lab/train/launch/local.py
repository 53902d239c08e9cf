"""Runs on this machine: one after the other in this process, or several in processes of their own."""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Thread

import torch

from multimix.lab.train.launch.job import Failure, Job, Launcher, Loaded, attempt

_GRACE = 30.0
"""Seconds that a worker has to write its checkpoint after SIGTERM."""


class Here(Launcher):
    """Runs in this process, which load data that they share once and show themselves how they go."""

    slots = 1
    speaks = True

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._data = quiet, Loaded()
        self._jobs: list[Job] = []

    def start(self, jobs: Sequence[Job]) -> None:
        """Keep jobs for the next call of ``ended``."""
        self._jobs += jobs

    def ended(self, seconds: float) -> dict[Path, Failure | None]:
        """Run what was started, however long it takes."""
        jobs, self._jobs = self._jobs, []
        return {job.folder: attempt(job, data=self._data, quiet=self._quiet) for job in jobs}


class Pool(Launcher):
    """Workers that run one job after the other; one that dies is replaced, and the others do not notice."""

    def __init__(self, jobs: int) -> None:
        self.slots = jobs
        self._threads = max(1, (os.cpu_count() or 1) // jobs)
        self._workers: list[Worker] = []

    def start(self, jobs: Sequence[Job]) -> None:
        """Give each job to a worker that has none, or to a new one."""
        for job in jobs:
            worker = self._idle()
            worker.job = job
            with contextlib.suppress(OSError):  # it has just died, which ``ended`` will notice
                worker.pipe.send(job)

    def _idle(self) -> "Worker":
        for worker in [worker for worker in self._workers if worker.job is None]:
            if worker.process.is_alive():
                return worker
            self._dismiss(worker)
        self._workers.append(Worker(self._threads))
        return self._workers[-1]

    def ended(self, seconds: float) -> dict[Path, Failure | None]:
        """Return the outcome of jobs whose workers are done with them, or dead."""
        busy = [(worker, worker.job) for worker in self._workers if worker.job is not None]
        connection.wait([worker.pipe for worker, _ in busy], seconds)
        found: dict[Path, Failure | None] = {}
        for worker, job in busy:
            # Not by the end of the pipe alone, which children of a dead worker may hold open for a while.
            alive = worker.process.is_alive()
            try:
                if worker.pipe.poll():
                    found[job.folder] = worker.pipe.recv()
                    worker.job = None
                elif not alive:
                    raise EOFError
            except (EOFError, OSError):
                found[job.folder] = self._dismiss(worker)
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
        """Stop every worker, with time for a checkpoint."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_GRACE)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers = []


class Worker:
    """A process that runs one job at a time."""

    def __init__(self, threads: int) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.job: Job | None = None
        # Not a daemon, which may have no children: data loaders have some. It ends with this process all the same.
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs, threads, os.getpid()))
        self.process.start()
        theirs.close()


def _work(pipe: "Connection[Failure | None, Job]", threads: int, parent: int) -> None:
    """Run jobs until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    torch.set_num_threads(threads)  # threads that wait for each other cost more than they bring
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    data = Loaded()
    with contextlib.suppress(EOFError):
        while True:
            job = pipe.recv()
            pipe.send(attempt(job, data=data))


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone.

    A worker would go on with its run, and a second command would then find its folder held.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
