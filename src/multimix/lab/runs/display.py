"""What a run shows while it goes: progress bars and lines."""

import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import Self

from multimix.lab.about import judged_by
from multimix.protocols import Monitor

T = TypeVar("T")

_LONG_PASS = 5.0
"""Seconds after which a pass over data is worth a line of its own where there is no progress bar."""


class Display(Monitor, AbstractContextManager["Display"]):
    """Progress bars on a terminal, plain lines elsewhere, nothing when quiet.

    Training accuracy is not shown: against mixed targets it means nothing.
    """

    def __init__(self, title: str, *, steps: int | None = None, done: int = 0, quiet: bool = False) -> None:
        self._console = Console(highlight=False, quiet=quiet)
        self._live = self._console.is_terminal and not quiet
        self._title, self._steps, self._done, self._shown = title, steps, done, 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        if self._steps is not None:
            self._task = self._bar.add_task(self._title, total=self._steps, completed=self._done, note="")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def batch(self, *, loss: float | None, images_per_second: float) -> None:
        """Advance training by one mini-batch."""
        self._done += 1
        now = time.perf_counter()
        if self._live and now - self._shown > 0.2:
            self._shown = now
            shown = "" if loss is None else f"loss {loss:.3f}  "
            self._bar.update(self._task, completed=self._done, note=f"{shown}{images_per_second:,.0f} images/s")

    def epoch(self, record: dict[str, Any], *, epochs: int) -> None:
        """Say how an epoch went."""
        judges = judged_by(record, "validation_")[:1]
        seen = "".join(f"  validation {judge.of(record[f'validation_{judge.name}'])}" for judge in judges)
        if not self._console.quiet:
            self.say(
                f"{self._title}: epoch {record['epoch']}/{epochs}  loss {record['train_loss']:.4f}{seen}"
                f"  {record['images_per_second']:,.0f} images/s  {record['seconds']:.1f} s"
            )

    def track(self, what: str, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of a pass, and show how many have been taken."""
        total = len(batches) if isinstance(batches, Sized) else None
        task = self._bar.add_task(f"{self._title}: {what}", total=total, note="")
        started = time.perf_counter()
        try:
            for batch in batches:
                yield batch
                self._bar.advance(task)
        finally:
            self._bar.remove_task(task)
        seconds = time.perf_counter() - started
        if not self._live and not self._console.quiet and seconds > _LONG_PASS:
            self.say(f"{self._title}: {what}  {seconds:.1f} s")

    def say(self, line: str) -> None:
        """Print a line above the bar, quiet or not."""
        console = Console(highlight=False) if self._console.quiet else self._console
        console.print(line, markup=False, soft_wrap=True)
