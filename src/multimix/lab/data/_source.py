"""What a source of images is asked for and what it gives."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from multimix.lab.data._sets import ImageSet

__all__ = ["IMAGENET_STATISTICS", "Parts", "Request", "Statistics", "one_line"]

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""

IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def one_line(error: Exception) -> str:
    """Return what another library has to say, on one line, for the end of a message."""
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class Request:
    """The arguments of ``load`` that a source may need."""

    root: Path
    download: bool
    split_seed: int


@dataclass(frozen=True)
class Parts:
    """The sets of a source, before a validation set is held out of the training set."""

    train: ImageSet
    test: ImageSet
    validation: ImageSet | None = None
    """The source's own, where it has one."""
    statistics: Statistics | None = None
    """Those the field uses, where it agrees on some."""

    def mapped(self, change: Callable[[ImageSet], ImageSet]) -> "Parts":
        """Return the parts with ``change`` made to each set."""
        validation = None if self.validation is None else change(self.validation)
        return replace(self, train=change(self.train), test=change(self.test), validation=validation)
