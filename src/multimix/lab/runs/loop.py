"""The loop that every kind of run goes through: epochs, records, checkpoints, and what stops it."""

import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from multimix.lab.evaluate.passes import NonFiniteError
from multimix.lab.runs import processes
from multimix.lab.runs.checkpoint import load_newest, previous, random_states, restore_random_states, save_checkpoint
from multimix.lab.runs.display import Display
from multimix.lab.runs.environment import Terminated, describe, is_out_of_memory, peak_mib, sigterm_noted
from multimix.lab.runs.folder import Folder
from multimix.lab.runs.loggers import Loggers
from multimix.lab.runs.optim import learning_rate

F = TypeVar("F", bound=Folder)


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the mini-batch, the run and the last good checkpoint."""


@dataclass
class Position:
    """How many epochs of a run are done, mini-batches of the epoch under way, and optimiser steps."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


class Task:
    """What a kind of run trains: everything that changes during it, and how one mini-batch changes it.

    A subclass sets the attributes and defines ``step``, ``images`` and ``conclude``.
    """

    config: Any
    """The run's settings: ``title``, ``seed``, ``epochs``, ``optimizer``, ``schedule``, ``checkpoint_steps``, ..."""
    device: torch.device
    batches: Any
    """Mini-batches, whose number is their length; ``epoch(number, start=)`` yields what is left of an epoch."""
    optimizer: Optimizer
    at: Position
    look_every: int = 1
    """Losses are looked at every so many mini-batches: on a GPU each look waits for the device."""
    weights_entry: ClassVar[str]
    """The attribute that is the network, and the entry of the state with its weights, of which all must be finite."""
    saves_memory: ClassVar[str]
    """What needs less memory, for a message."""

    step: Callable[..., tuple[Tensor, dict[str, Tensor]]]
    """Trains on one mini-batch, given as arguments, and returns the loss and its terms, detached."""
    images: Callable[..., int]
    """Returns how many images a mini-batch has, over all processes."""
    conclude: Callable[..., None]
    """Writes the weights into the run's folder, which is given with ``quiet``, and measures them."""

    def begin(self, run: Any, *, quiet: bool) -> None:
        """Do what comes before training."""

    def validate(self) -> dict[str, float]:
        """Return what is measured at the end of the epoch under way, by name."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, besides the global random states; all processes have to ask."""
        return {
            "at": [self.at.epoch, self.at.batch, self.at.step],
            self.weights_entry: getattr(self, self.weights_entry).state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned, but for the position, which is there already."""
        getattr(self, self.weights_entry).load_state_dict(state[self.weights_entry])
        self.optimizer.load_state_dict(state["optimizer"])

    def load(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`; one of another run is a ValueError."""
        try:
            self.at = Position(*state["at"])
            self.restore(state)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"the checkpoint belongs to another run: {' '.join(str(error).split())[:160]}") from error
        self.set_learning_rate()

    @property
    def steps_per_epoch(self) -> int:
        """Return how many optimiser steps an epoch has."""
        return -(-len(self.batches) // getattr(self.config, "accumulate", 1))

    def set_learning_rate(self) -> None:
        """Set the learning rate of the step that comes next."""
        rate = learning_rate(self.config, self.at.step, steps_per_epoch=self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def epoch(self) -> Iterator[Any]:
        """Yield what is left of the epoch under way, each mini-batch as the arguments of :meth:`step`."""
        return self.batches.epoch(self.at.epoch, start=self.at.batch)

    def end_epoch(self) -> None:
        """Go on to the next epoch."""
        self.at.epoch, self.at.batch = self.at.epoch + 1, 0


@dataclass
class LossLog:
    """The losses of the epoch under way."""

    sums: dict[str, float] = field(default_factory=dict)
    batches: int = 0
    images: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._pending: list[dict[str, Tensor]] = []

    def add(self, total: Tensor, terms: dict[str, Tensor], images: int) -> None:
        """Remember the loss of a mini-batch and its terms, if there are several, without looking at them."""
        named = {f"train_{name}_loss": term for name, term in terms.items()} if len(terms) > 1 else {}
        self._pending.append({"train_loss": total, **named})
        self.batches += 1
        self.images += images

    def look(self) -> tuple[float | None, int | None]:
        """Return the newest loss, and how many mini-batches ago the first non-finite one was."""
        if not self._pending:
            return None, None
        names = list(self._pending[0])
        rows = [torch.stack([losses[name] for name in names]).float() for losses in self._pending]
        # Means over all processes, so that a loss that is not finite stops them all.
        values = processes.all_mean(torch.stack(rows)).tolist()
        self._pending = []
        for ago, row in zip(range(len(values) - 1, -1, -1), values, strict=True):
            if not math.isfinite(row[0]):
                return row[0], ago
            for name, value in zip(names, row, strict=True):
                self.sums[name] = self.sums.get(name, 0.0) + value
        return values[-1][0], None

    def record(self) -> dict[str, float]:
        """Return the mean losses and the speed of the epoch so far."""
        means = {name: total / max(self.batches, 1) for name, total in self.sums.items()}
        return {**means, "images_per_second": self.images / max(self.seconds, 1e-9), "seconds": self.seconds}


def go_on(run: F, build: Callable[[dict[str, Any] | None], Task], *, quiet: bool, further: bool = False) -> F:
    """Continue a run, a finished one only ``further``, with what ``build`` makes of its last checkpoint, or of None."""
    with processes.entered_by_main(run.writing()):
        if further or not processes.broadcast(run.finished):
            saved = load_newest(run.checkpoint)
            loop = Loop(run, build(saved), quiet=quiet)
            if saved is not None:
                loop.log = LossLog(**saved["log"])
                rank, _ = processes.rank_and_world()
                restore_random_states([saved["random"], *saved.get("random_of_others", ())][rank])
            if processes.is_main_process():
                if not run.environment_file.exists():
                    run.write_json(run.environment_file, describe(loop.task.device))
                done = loop.task.at.epoch  # what was recorded after the checkpoint comes again
                run.metrics.keep(lambda e: e.get("when") == "before" or (e["event"] == "epoch" and e["epoch"] <= done))
                if saved is None and run.weights.exists():
                    lost = f"{run.path} has neither records of its end nor a checkpoint: it is trained anew"
                    warnings.warn(lost, stacklevel=2)
            loop.measure_again()
            loop.finish()
    return run


class Loop:
    """One process' work on a run."""

    def __init__(self, run: Folder, task: Task, *, quiet: bool) -> None:
        self.run, self.task, self.config = run, task, task.config
        self.quiet = quiet or not processes.is_main_process()
        self.log = LossLog()

    def measure_again(self) -> None:
        """Say which of the epochs that the checkpoint has behind it have no record; of a last one, validate again."""
        task, recorded = self.task, {event["epoch"] for event in processes.broadcast(self.run.metrics.read("epoch"))}
        lost = [number for number in range(1, task.at.epoch + 1) if number not in recorded]
        if not lost:
            return
        record: dict[str, Any] = {"epoch": task.at.epoch, "step": task.at.step}
        if task.at.epoch in lost:
            task.at.epoch -= 1
            record |= {f"validation_{name}": value for name, value in task.validate().items()}
            task.at.epoch += 1
        if processes.is_main_process():
            warnings.warn(
                f"{self.run.metrics.path} has no record of {len(lost)} of {task.at.epoch} epochs that were trained:"
                " their losses and times stay unknown, and what is validated and tested is measured again",
                stacklevel=3,
            )
            if task.at.epoch in lost:
                self.run.metrics.write("epoch", **record)

    def finish(self) -> None:
        """Train to the end, measure and save."""
        with Loggers(self.run, self.config) as loggers:
            self.task.begin(self.run, quiet=self.quiet)
            loggers.tell()
            self._train(loggers)
            with self._explained():  # a signal ends this at once: only a measurement is lost
                self.task.conclude(self.run, quiet=self.quiet)
            loggers.tell()
        if processes.is_main_process():
            timed = [event["seconds"] for event in self.run.metrics.read("epoch") if "seconds" in event]
            cost = {"seconds": sum(timed)} if len(timed) == self.config.epochs else {}
            cost |= {"step_seconds": sum(timed) / (len(self.task.batches) * len(timed))} if timed else {}
            self.run.metrics.write("end", **cost, peak_mib=peak_mib(self.task.device))
            previous(self.run.checkpoint).unlink(missing_ok=True)

    def _train(self, loggers: Loggers) -> None:
        """Go through the epochs that are left."""
        task, batches, epochs = self.task, len(self.task.batches), self.config.epochs
        title, done = f"{self.config.title}, seed {self.config.seed}", task.at.epoch * batches + task.at.batch
        display = Display(title, steps=epochs * batches, done=done, quiet=self.quiet)
        with sigterm_noted() as self._stop, display as shown:
            while task.at.epoch < epochs:
                started, before = time.perf_counter(), self.log.seconds
                for batch in task.epoch():
                    steps = task.at.step
                    with self._explained():
                        total, terms = task.step(*batch)
                    self.log.add(total, terms, task.images(*batch))
                    self.log.seconds = before + time.perf_counter() - started
                    self._after_batch(shown, stepped=task.at.step > steps)
                self._look()
                self.log.seconds = before + time.perf_counter() - started
                shown.epoch(self._end_epoch(), epochs=epochs)
                loggers.tell()

    def _after_batch(self, shown: Display, *, stepped: bool) -> None:
        """Look at losses and write a checkpoint where it is time, or end behind one where that is asked for."""
        every, look = self.config.checkpoint_steps, self.log.batches % self.task.look_every == 0
        loss = self._look() if look else None
        shown.batch(loss=loss, images_per_second=self.log.images / self.log.seconds)
        # Amid a group of accumulated mini-batches its gradient would be lost; after the last one of an epoch the
        # epoch's own checkpoint comes next.
        if not stepped or self.task.at.batch == len(self.task.batches):
            return
        asked = look and any(processes.all_gather(self._stop.is_set()))
        if asked or (every and self.task.at.step % every == 0):
            self._checkpoint()
        if asked:
            self._stop_here()

    def _end_epoch(self) -> dict[str, Any]:
        with self._explained():
            measured = self.task.validate()
        record = {
            "epoch": self.task.at.epoch + 1,
            "step": self.task.at.step,
            "learning_rate": float(self.task.optimizer.param_groups[0]["lr"]),
            **self.log.record(),
            **{f"validation_{name}": value for name, value in measured.items()},
        }
        if processes.is_main_process():
            self.run.metrics.write("epoch", **record)
        self.task.end_epoch()
        self.log = LossLog()
        self._checkpoint()
        if any(processes.all_gather(self._stop.is_set())):
            self._stop_here()
        return record

    def _stop_here(self) -> None:
        # A process that ends with an error makes the launcher kill the main one, which may be writing yet.
        code = 128 + signal.SIGTERM if processes.is_main_process() else 0
        raise Terminated(f"stopped by SIGTERM at mini-batch {self._batch()}, behind a checkpoint", code)

    def _look(self) -> float | None:
        """Return the newest loss, if there is one since the last look; one that is not finite ends the run."""
        loss, ago = self.log.look()
        if ago is not None:
            raise self._diverged(f"the loss of {self.config.title} turned {loss}", ago=ago)
        return loss

    def _checkpoint(self) -> None:
        self._look()
        state = self.task.state()
        if not all(bool(value.isfinite().all()) for value in state[self.task.weights_entry].values()):
            raise self._diverged(f"the weights of {self.config.title} turned non-finite")
        others = processes.all_gather(random_states())[1:]
        if processes.is_main_process():
            save_checkpoint(self.run.checkpoint, {**state, "log": asdict(self.log), "random_of_others": others})

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what to do where memory does not suffice or predictions are no numbers."""
        try:
            yield
        except NonFiniteError as error:
            raise self._diverged(f"the predictions of {self.config.title} turned NaN") from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"out of memory at mini-batch {self._batch()} of {self.config.title}; {self._kept()}."
                f" {self.task.saves_memory} need less."
            ) from error

    def _diverged(self, what: str, *, ago: int = 0) -> TrainingError:
        return TrainingError(
            f"{what} at mini-batch {self._batch() - ago}; {self._kept()}. A lower learning rate, a warm-up or clipping"
            " the gradient may help."
        )

    def _batch(self) -> int:
        """Return the number of the last mini-batch, counted from 1."""
        return self.task.at.epoch * len(self.task.batches) + self.task.at.batch

    def _kept(self) -> str:
        there = self.run.checkpoint.exists()
        return f"the last good checkpoint is {self.run.checkpoint}" if there else "no checkpoint yet"
