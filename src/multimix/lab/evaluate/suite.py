"""What the suites of ``multimix evaluate`` have in common."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from typing_extensions import Self

from multimix.lab.evaluate.source import Source
from multimix.protocols import SILENT, Monitor, Network


@dataclass(frozen=True, kw_only=True)
class SuiteSettings:
    """What can be set of every suite."""

    examples: int | None = None
    """Measure only so many test images, the same share of each class; by default all."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.examples is not None and self.examples < 1:
            raise ValueError(f"examples must be at least 1, got {self.examples}")


class Suite(Protocol):
    """An evaluator that can be made of a finished run: a frozen dataclass of data and settings."""

    name: ClassVar[str]
    """What command line, records and report call it."""
    Settings: ClassVar[type[SuiteSettings]]
    """The class of its settings: plain values with defaults, written into its record."""

    @property
    def settings(self) -> SuiteSettings:
        """The settings in force."""
        ...

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite with a run's data.

        Raises:
            ValueError: If data and settings do not fit each other.
        """
        ...

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield (name of the metric, value), as every evaluator does."""
        ...
