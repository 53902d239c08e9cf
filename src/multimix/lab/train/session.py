"""One process' work on a run: epochs, checkpoints, records."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from multimix.lab.evaluate.predict import NonFiniteError
from multimix.lab.train.engine import Engine
from multimix.lab.train.environment import is_out_of_memory, peak_mib
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.log import Board, Display
from multimix.lab.train.measure import clean, test_record
from multimix.lab.train.parallel import any_of, leads, mean_of_all, of_all
from multimix.lab.train.pictures import save_pictures
from multimix.lab.train.state import previous, random_states, save_checkpoint
from multimix.lab.train.stop import StopRequest, Terminated
from multimix.lab.train.weights import digest, save_weights
from multimix.protocols import SILENT, Evaluator, Network

_LOOK_EVERY = 20
"""On a GPU, losses are looked at every so many mini-batches: each look waits for the device."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step, the method and the last good checkpoint."""


@dataclass
class LossLog:
    """The losses of the epoch under way."""

    sums: dict[str, float] = field(default_factory=dict)
    batches: int = 0
    images: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._pending: list[dict[str, Tensor]] = []

    def add(self, losses: dict[str, Tensor], images: int) -> None:
        """Remember the losses of a mini-batch, without looking at them."""
        self._pending.append(losses)
        self.batches += 1
        self.images += images

    def look(self) -> tuple[float | None, int | None]:
        """Return the newest loss, and how many mini-batches ago the first non-finite one was.

        Losses are means over all processes, so that one that is not finite stops them all.
        """
        if not self._pending:
            return None, None
        names = list(self._pending[0])
        rows = [torch.stack([losses[name] for name in names]).float() for losses in self._pending]
        values = mean_of_all(torch.stack(rows)).tolist()
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

    def state(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return {"sums": dict(self.sums), "batches": self.batches, "images": self.images, "seconds": self.seconds}


class Session:
    """One process' work on a run."""

    def __init__(self, run: RunFolder, engine: Engine, *, quiet: bool) -> None:
        self.run, self.engine, self.quiet = run, engine, quiet or not leads()
        self.config, self.splits, self.device = engine.config, engine.splits, engine.fabric.device
        self.log = LossLog()
        self._look_every = 1 if self.device.type == "cpu" else _LOOK_EVERY
        self._stop = StopRequest()

    def finish(self) -> RunFolder:
        """Train to the end, then test, picture and save.

        Raises:
            TrainingError: If a loss or the weights are not finite, or memory does not suffice.
            Terminated: After SIGTERM, behind a checkpoint.
        """
        with self._stop:
            return self._finish()

    def _finish(self) -> RunFolder:
        held_out = self.splits.validation
        validation = None if held_out is None else clean(self.config, self.splits, held_out, self.device)
        board = Board(self.run.path, wanted=self.config.tensorboard and leads())
        batches = len(self.engine.batches)
        done = self.engine.at.epoch * batches + self.engine.at.batch
        title = f"{self.config.title}, seed {self.config.seed}"
        with Display(title, steps=self.config.epochs * batches, done=done, quiet=self.quiet) as display:
            while self.engine.at.epoch < self.config.epochs:
                self._epoch(display)
                record = self._end_epoch(validation if self._validates() else None)
                board.write(record)
                display.epoch(record, epochs=self.config.epochs)
        board.close()
        self._conclude()
        return self.run

    def _epoch(self, display: Display) -> None:
        started, before = time.perf_counter(), self.log.seconds
        for inputs, labels in self.engine.epoch():
            steps = self.engine.at.step
            with self._short_of_memory():
                total, terms = self.engine.step(inputs, labels)
            named = {
                "train_loss": total,
                **({f"train_{k}_loss": v for k, v in terms.items()} if len(terms) > 1 else {}),
            }
            self.log.add(named, len(labels) * self.engine.world)
            self.log.seconds = before + time.perf_counter() - started
            loss = self._look() if self.log.batches % self._look_every == 0 else None
            display.batch(loss=loss, images_per_second=self.log.images / self.log.seconds)
            if self.engine.at.step > steps:  # amid a group of accumulated mini-batches its gradient would be lost
                self._stop_if_asked()
                self._checkpoint_if_due()
        self._look()
        self.log.seconds = before + time.perf_counter() - started

    def _validates(self) -> bool:
        done = self.engine.at.epoch + 1
        return done % self.config.validate_every == 0 or done == self.config.epochs

    def _end_epoch(self, validation: Evaluator | None) -> dict[str, Any]:
        with self._stopping():
            measured = {} if validation is None else dict(validation(self._whole_network()))
        record = {
            "epoch": self.engine.at.epoch + 1,
            "step": self.engine.at.step,
            "learning_rate": self.engine.rate,
            **self.log.record(),
            **{f"validation_{name}": value for name, value in measured.items()},
        }
        if leads():
            self.run.metrics.write("epoch", **record)
        self.engine.end_epoch()
        self.log = LossLog()
        self._checkpoint()
        if any_of(self._stop.came, self.device):
            raise self._terminated()
        return record

    def _whole_network(self) -> Network:
        return cast("Network", self.engine.whole(self.engine.network))

    def _look(self) -> float | None:
        """Look at the losses since the last look.

        Raises:
            TrainingError: If one is not finite; nothing of it has reached a checkpoint.
        """
        loss, ago = self.log.look()
        if ago is None:
            return loss
        raise self._stopped(f"the loss of {self.config.title} turned {loss}", ago=ago)

    def _stopped(self, what: str, *, ago: int = 0) -> TrainingError:
        return TrainingError(
            f"{what} at mini-batch {self._batch() - ago}; {self._kept()}. A lower learning rate, a warm-up or clipping"
            " the gradient may help."
        )

    def _batch(self) -> int:
        """Return the number of the last mini-batch, counted from 1."""
        return self.engine.at.epoch * len(self.engine.batches) + self.engine.at.batch

    def _kept(self) -> str:
        there = self.run.checkpoint.exists()
        return f"the last good checkpoint is {self.run.checkpoint}" if there else "no checkpoint yet"

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Turn predictions that are no numbers into a TrainingError."""
        try:
            yield
        except NonFiniteError as error:
            raise self._stopped(f"the predictions of {self.config.title} turned NaN") from error

    @contextmanager
    def _short_of_memory(self) -> Iterator[None]:
        """Say what to do where a step does not fit into memory."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"out of memory at mini-batch {self._batch()} of {self.config.title}; {self._kept()}. A smaller"
                " batch_size with accumulate, fewer tuples, precision bf16-mixed or a narrower network need less."
            ) from error

    def _stop_if_asked(self) -> None:
        """End behind a checkpoint if the process was told to; several processes ask each other."""
        if self.log.batches % self._look_every or self.engine.at.batch == len(self.engine.batches):
            return  # not yet, or the epoch's own checkpoint comes next
        if any_of(self._stop.came, self.device):
            self._checkpoint()
            raise self._terminated()

    def _terminated(self) -> Terminated:
        said = f"stopped by SIGTERM at mini-batch {self._batch()}, behind a checkpoint"
        # A process that ends with an error makes the launcher kill the first one, which may be writing yet.
        return Terminated(said) if leads() else Terminated(said, code=0)

    def _checkpoint_if_due(self) -> None:
        every = self.config.checkpoint_steps
        if every and self.engine.at.step % every == 0 and self.engine.at.batch < len(self.engine.batches):
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._look()
        state = self.engine.state()
        if not all(bool(value.isfinite().all()) for value in state["network"].values()):
            raise self._stopped(f"the weights of {self.config.title} turned non-finite")
        others = of_all(random_states())[1:] if self.engine.world > 1 else []
        if leads():
            save_checkpoint(self.run.checkpoint, {**state, "log": self.log.state(), "random_of_others": others})

    def _conclude(self) -> None:
        """Write what the run leaves behind; the first process does, which knows all that the others know."""
        self.engine.part()
        if not leads():
            return
        save_weights(self.run.weights, self.engine.network)
        networks = self._networks()
        if self.config.test:
            for name, network in networks:
                self._test(name, network)
            network = cast("Network", self.engine.network)
            save_pictures(self.run.pictures, self.engine.method, network, self.splits, self.device)
        epochs = [event for event in self.run.metrics.read() if event["event"] == "epoch"]
        seconds = sum(event["seconds"] for event in epochs)
        self.run.metrics.write(
            "end",
            seconds=seconds,
            step_seconds=seconds / (len(self.engine.batches) * len(epochs)),
            peak_mib=peak_mib(self.device),
        )
        previous(self.run.checkpoint).unlink(missing_ok=True)

    def _test(self, name: str, network: Network) -> None:
        weights = {"": self.run.weights, "ema": self.run.averaged}.get(name)
        with self._stopping():
            record = test_record(
                self.config,
                clean(self.config, self.splits, self.splits.test, self.device),
                network,
                examples=len(self.splits.test),
                weights=None if weights is None else digest(weights),
                device=self.device,
                monitor=SILENT,
            )
        self.run.metrics.write("test", **record, **({"network": name} if name else {}))

    def _networks(self) -> list[tuple[str, Network]]:
        """Return the network and those that follow it, by name."""
        own = self.engine.ema
        if own is not None:
            save_weights(self.run.averaged, own.network)
        averages = [("ema" if ema is own else "teacher", ema.network) for ema in self.engine.averages()]
        return [(name, cast("Network", network)) for name, network in [("", self.engine.network), *averages]]
