"""One attempt at a run, in whichever process a launcher chose for it, and what launchers have in common."""

import os
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimix.lab._code import Code
from multimix.lab.data import Splits
from multimix.lab.runs.codec import code_of, from_json, to_json
from multimix.lab.runs.environment import is_out_of_memory
from multimix.lab.runs.loop import TrainingError
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.network import load_data, same_data
from multimix.lab.train.run import resume, train

_FINAL = (
    *(ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError),
    PermissionError,
)
"""What is wrong with the input stays wrong."""
_PATIENCE = 20.0
"""Seconds to wait for a folder that another process writes into: children of a killed one hold it a little longer."""


@dataclass(frozen=True)
class Job:
    """A run to bring to its end."""

    folder: Path
    config: TrainConfig

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process make it, which does not know the classes of the user's own files."""
        return Job.of, (self.plan(),)

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
        """Return whether it has come to its end."""
        try:
            return self.folder.is_dir() and RunFolder(self.folder).finished
        except ValueError:  # damaged records are for the run to complain of
            return False


@dataclass(frozen=True)
class Failure:
    """Why an attempt did not bring its run to the end."""

    reason: str
    """One line."""
    final: bool = False
    """Whether another attempt would fail as well: the training has diverged, or the input is wrong."""
    wrong: bool = False
    """Whether the input is wrong."""


class Launcher:
    """Starts jobs elsewhere and says which have ended, and how; a job is known by its run folder.

    It knows nothing of retries, which :func:`multimix.lab.train.launch.run_all` sees to for all launchers alike.
    """

    slots: int
    """How many jobs it takes at the same time."""
    speaks: bool = False
    """Whether runs show themselves how they go, so that nobody else has to."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin jobs, or put them into a queue."""
        raise NotImplementedError

    def ended(self, seconds: float) -> dict[Path, Failure | None]:
        """Return what ended since the last call, after waiting so long for something to: None where all went well."""
        raise NotImplementedError

    def queued(self) -> Collection[Path]:
        """Return which of the jobs are not yet running, as far as known."""
        return ()

    def close(self) -> None:
        """Stop what is under way, which can be resumed, and let go of everything."""


class Loaded:
    """The data set that was loaded last, for runs that share it."""

    def __init__(self) -> None:
        self._known: tuple[TrainConfig, Splits] | None = None

    def __call__(self, config: TrainConfig) -> Splits:
        """Return the data set of a configuration."""
        if self._known is None or not same_data(self._known[0], config):
            self._known = None  # two large sets need not fit into memory
            self._known = config, load_data(config)
        return self._known[1]


def attempt(job: Job, *, data: Loaded, quiet: bool = True) -> Failure | None:
    """Train a run, or resume it, and return why it did not come to its end; None if it did.

    What is no ``Exception``, as a stop by the keyboard, goes through.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if RunFolder(job.folder).config_file.is_file():
                # Trusted by the command that named it, which compared the two.
                resume(job.folder, quiet=quiet, trust_code=True)
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
