"""What a run writes down, and what it shows while it goes."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import Self

from multimix.lab.train.state import replacing, unwritable
from multimix.protocols import Monitor

T = TypeVar("T")

_LONG_PASS = 5.0
"""Seconds after which a pass over data is worth a line of its own where there is no progress bar."""


class Metrics:
    """The file ``metrics.jsonl``: one event a line, on disk as soon as it happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """Append an event, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        line = json.dumps({"event": event, **values}) + "\n"
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            if self.path.exists():
                os.truncate(self.path, before)  # half a line would damage the next one
            raise unwritable(self.path, error) from error

    def read(self) -> list[dict[str, Any]]:
        """Return the events so far; a last line that a killed run left half-written is not one.

        Raises:
            ValueError: If another line is not an event.
        """
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        return [self._event(number, line) for number, line in enumerate(lines[:-1], 1) if line]

    def _event(self, number: int, line: str) -> dict[str, Any]:
        try:
            event = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self.path}, line {number} is damaged: {error}") from error
        if not isinstance(event, dict) or "event" not in event:
            raise ValueError(f"{self.path}, line {number} is not an event")
        return event

    def keep(self, wanted: Any) -> None:
        """Rewrite the file with the events for which ``wanted(event)`` holds."""
        kept = [event for event in self.read() if wanted(event)]
        with replacing(self.path) as file:
            file.write("".join(json.dumps(event) + "\n" for event in kept).encode())


class Display(AbstractContextManager["Display"]):
    """A progress bar on a terminal, a plain line an epoch elsewhere, nothing when quiet.

    Training accuracy is not shown: against mixed targets it means nothing.
    """

    def __init__(self, title: str, *, steps: int, done: int = 0, quiet: bool = False) -> None:
        self._console = Console(highlight=False, quiet=quiet)
        self._live = self._console.is_terminal and not quiet
        self._title, self._steps, self._done = title, steps, done
        self._shown = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        """Start the bar."""
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=self._steps, completed=self._done, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def batch(self, *, loss: float | None, images_per_second: float) -> None:
        """Advance by one mini-batch."""
        self._done += 1
        now = time.perf_counter()
        if self._live and now - self._shown > 0.2:
            self._shown = now
            shown = "" if loss is None else f"loss {loss:.3f}  "
            self._bar.update(self._task, completed=self._done, note=f"{shown}{images_per_second:,.0f} images/s")

    def epoch(self, record: dict[str, Any], *, epochs: int) -> None:
        """Say how an epoch went."""
        validation = record.get("validation_accuracy")
        seen = "" if validation is None else f"  validation accuracy {100 * validation:.2f} %"
        self.say(
            f"{self._title}: epoch {record['epoch']}/{epochs}  loss {record['train_loss']:.4f}{seen}"
            f"  {record['images_per_second']:,.0f} images/s  {record['seconds']:.1f} s"
        )

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False, soft_wrap=True)


class Passes(Monitor, AbstractContextManager["Passes"]):
    """Shows passes over data: a progress bar on a terminal, elsewhere a plain line for passes that take long."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self._console = Console(highlight=False, quiet=quiet)
        self._live = self._console.is_terminal and not quiet
        self._title = title
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        """Start the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line above the bar, quiet or not."""
        (Console(highlight=False) if self._console.quiet else self._console).print(line, markup=False, soft_wrap=True)

    def track(self, what: str, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of a pass, and show how many have been taken."""
        total = len(batches) if isinstance(batches, Sized) else None
        task = self._bar.add_task(f"{self._title}: {what}", total=total)
        started = time.perf_counter()
        try:
            for batch in batches:
                yield batch
                self._bar.advance(task)
        finally:
            self._bar.remove_task(task)
        seconds = time.perf_counter() - started
        if not self._live and seconds > _LONG_PASS:
            self._console.print(f"{self._title}: {what}  {seconds:.1f} s", markup=False, soft_wrap=True)


def board_writer() -> Any:
    """Return the class that writes TensorBoard's files.

    Raises:
        ValueError: If the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard=True needs the package: pip install tensorboard") from error
    return SummaryWriter


class Board:
    """TensorBoard event files, if wanted."""

    def __init__(self, folder: Path, *, wanted: bool) -> None:
        self._writer: Any = board_writer()(str(folder / "tensorboard")) if wanted else None

    def write(self, record: dict[str, Any]) -> None:
        """Write the numbers of an epoch."""
        if self._writer is None:
            return
        for name, value in record.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
