"""Stopping a run from outside without losing anything."""

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

from typing_extensions import Self


class Terminated(SystemExit):
    """A run was asked to stop, and did so behind a checkpoint; a batch system expects the exit code of the signal."""

    def __init__(self, said: str, *, code: int = 128 + signal.SIGTERM) -> None:
        super().__init__(code)
        self.said = said


class StopRequest(AbstractContextManager["StopRequest"]):
    """Remembers that the process was sent SIGTERM, as by a batch system before it takes the machine away.

    Python's signals belong to the main thread; in any other one nothing is changed.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: Any = None

    def __enter__(self) -> Self:
        """Begin to listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the signal to whoever had it before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.came = True
