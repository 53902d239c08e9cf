"""One process' work on a detection run: epochs, checkpoints, records."""

import time
from typing import Any

from multimix.lab.detect.engine import DetectEngine
from multimix.lab.detect.folder import DetectFolder
from multimix.lab.detect.measure import detection_record
from multimix.lab.train.environment import peak_mib
from multimix.lab.train.log import Display
from multimix.lab.train.session import LossLog, TrainingError
from multimix.lab.train.state import previous, save_checkpoint
from multimix.lab.train.stop import StopRequest, Terminated
from multimix.lab.train.weights import digest, save_weights


class DetectSession:
    """One process' work on a run."""

    def __init__(self, run: DetectFolder, engine: DetectEngine, *, quiet: bool) -> None:
        self.run, self.engine, self.quiet, self.config = run, engine, quiet, engine.config
        self.log = LossLog()
        self._stop = StopRequest()

    def finish(self) -> DetectFolder:
        """Measure, train to the end, measure again and save.

        Raises:
            TrainingError: If the loss turns non-finite.
            Terminated: After SIGTERM, behind a checkpoint.
        """
        if self.config.evaluate_before and self.engine.at.step == 0:
            self._measure("before")
        with self._stop:  # while it measures, a signal ends it at once, and only that measurement is lost
            self._train()
        save_weights(self.run.weights, self.engine.detector)
        self._measure("after", weights=digest(self.run.weights))
        self._end()
        return self.run

    def _train(self) -> None:
        batches = len(self.engine.batches)
        done = self.engine.at.epoch * batches + self.engine.at.batch
        title = f"{self.config.title}, seed {self.config.seed}"
        with Display(title, steps=self.config.epochs * batches, done=done, quiet=self.quiet) as display:
            while self.engine.at.epoch < self.config.epochs:
                self._epoch(display)
                display.epoch(self._end_epoch(), epochs=self.config.epochs)

    def _measure(self, when: str, **more: Any) -> None:
        """Measure on every set, but for those that an interrupted run has measured already."""
        events = [event for event in self.run.metrics.read() if event["event"] == "detection"]
        there = {(event["when"], event["split"]) for event in events}
        for part, boxes in self.engine.splits.measured(self.config).items():
            if (when, part) not in there:
                record = detection_record(self.engine, boxes, when=when, split=part, quiet=self.quiet)
                self.run.metrics.write("detection", **record, **more)

    def _epoch(self, display: Display) -> None:
        started, before = time.perf_counter(), self.log.seconds
        for batch in self.engine.epoch():
            total, terms = self.engine.step(batch)
            named = {f"train_{name.removeprefix('loss_')}_loss": term for name, term in terms.items()}
            self.log.add({"train_loss": total, **named}, len(batch.images))
            self.log.seconds = before + time.perf_counter() - started
            display.batch(loss=self._look(), images_per_second=self.log.images / self.log.seconds)
            if self.engine.at.batch < len(self.engine.batches):  # the epoch's own checkpoint comes next
                self._checkpoint_if_due()

    def _look(self) -> float | None:
        loss, ago = self.log.look()
        if ago is None:
            return loss
        there = self.run.checkpoint.exists()
        kept = f"the last good checkpoint is {self.run.checkpoint}" if there else "no checkpoint yet"
        raise TrainingError(
            f"the loss of {self.config.title} turned {loss} at mini-batch {self.engine.at.step - 1}; {kept}."
            " A lower learning rate, a longer warm-up or clipping the gradient may help."
        )

    def _end_epoch(self) -> dict[str, Any]:
        record = {
            "epoch": self.engine.at.epoch + 1,
            "step": self.engine.at.step,
            "learning_rate": self.engine.rate,
            **self.log.record(),
        }
        self.run.metrics.write("epoch", **record)
        self.engine.end_epoch()
        self.log = LossLog()
        self._checkpoint()
        self._leave_if_asked()
        return record

    def _checkpoint_if_due(self) -> None:
        every = self.config.checkpoint_steps
        if self._stop.came or (every and self.engine.at.step % every == 0):
            self._checkpoint()
        self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        """End, behind a checkpoint, if the process was told to."""
        if self._stop.came:
            raise Terminated(f"stopped by SIGTERM at mini-batch {self.engine.at.step}, behind a checkpoint")

    def _checkpoint(self) -> None:
        if not all(bool(value.isfinite().all()) for value in self.engine.detector.state_dict().values()):
            raise TrainingError(
                f"the weights of {self.config.title} turned non-finite before step {self.engine.at.step}"
            )
        save_checkpoint(self.run.checkpoint, {**self.engine.state(), "log": self.log.state()})

    def _end(self) -> None:
        epochs = [event for event in self.run.metrics.read() if event["event"] == "epoch"]
        seconds = sum(event["seconds"] for event in epochs)
        self.run.metrics.write(
            "end",
            seconds=seconds,
            step_seconds=seconds / max(self.engine.at.step, 1),
            peak_mib=peak_mib(self.engine.device),
        )
        previous(self.run.checkpoint).unlink(missing_ok=True)
