"""A monitor that remembers what a suite tells."""

from collections.abc import Iterable, Iterator
from typing import Any

from multimix.protocols import Monitor


class Kept(Monitor):
    """Remembers the passes over data and the figures."""

    def __init__(self) -> None:
        self.passes: list[str] = []
        self.figures: dict[str, dict[str, Any]] = {}

    def track(self, what: str, batches: Iterable[Any]) -> Iterator[Any]:
        self.passes.append(what)
        return super().track(what, batches)

    def record(self, name: str, data: dict[str, Any]) -> None:
        self.figures[name] = data
