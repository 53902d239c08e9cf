"""What the suites of ``multimix evaluate`` have in common: a run's data, settings, and what a suite is."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import Self

from multimix._declared import Checked, Count
from multimix.lab.data import Batches, ImageSet, Splits, first_of
from multimix.lab.evaluate.passes import LabelledBatches
from multimix.protocols import SILENT, Method, Monitor, Network


@dataclass(frozen=True)
class Source:
    """A run's data as its network takes them, in batches that start over at every iteration."""

    splits: Splits
    """The run's own data set."""
    method: Method
    """What the network was trained by."""
    device: torch.device
    """Where the batches live, which is where the network is."""
    batch_size: int = 256
    """Examples in a batch; no result depends on it."""
    workers: int = 0
    """Processes that decode images of sets too large for memory."""
    root: str = "data"
    """Where data sets lie that are given by name."""

    def test(self, examples: int | None = None) -> ImageSet:
        """Return the test set, or so many of its images, the same share of each class.

        Raises:
            ValueError: If there are not so many, or fewer are wanted than there are classes.
        """
        return first_of(self.splits.test, examples, what="examples")

    def batches(self, split: ImageSet) -> LabelledBatches:
        """Return a set's images as the network takes them, in order: (inputs (b, c, h, w), labels (b,))."""
        return self._batches(split, self.splits.mean, self.splits.std)

    def pixels(self, split: ImageSet) -> LabelledBatches:
        """Return a set's images in [0, 1], in order, for :class:`multimix.lab.evaluate.Normalised` networks."""
        return self._batches(split, (0.0,) * split.shape[0], (1.0,) * split.shape[0])

    def _batches(self, split: ImageSet, mean: tuple[float, ...], std: tuple[float, ...]) -> LabelledBatches:
        options: dict[str, Any] = {"batch_size": self.batch_size, "device": self.device, "workers": self.workers}
        return cast("LabelledBatches", Batches(split, mean=mean, std=std, shuffle=False, **options))  # of one view


@dataclass(frozen=True, kw_only=True)
class SuiteSettings(Checked):
    """What can be set of every suite."""

    examples: Count | None = None
    """Measure only so many test images, the same share of each class; by default all."""

    def limits(self, source: Source) -> Iterator["Limit"]:
        """Yield what a run's data allow of single settings."""
        yield from ()


class Usual(int):
    """The default of a setting that gives way where the data do not allow it; a number that is given does not."""

    def __hash__(self) -> int:
        """Return another hash than the number's, as which the command line's caches would take it."""
        return hash((Usual, int(self)))


class Limit(NamedTuple):
    """What data allow of a setting."""

    setting: str
    least: int
    most: float
    instead: int
    """What a default outside becomes."""
    why: str
    """As a sentence ends that names the setting."""


S = TypeVar("S", bound=SuiteSettings)


def adjusted(suite: str, settings: S, source: Source) -> S:
    """Return settings as a run's data allow them: a default gives way, and the suite says so.

    Raises:
        ValueError: If a setting that was given does not fit, or none would.
    """
    for name, least, most, instead, why in settings.limits(source):
        value = getattr(settings, name)
        if least <= value <= most:
            continue
        if not isinstance(value, Usual) or most < least:
            range_ = f"at least {least}" if most == inf else f"from {least} to {most}"
            raise ValueError(f"{name}={value} must be {range_}, {why}")
        warn(suite, f"{name} is {instead} in place of {value}, {why}")
        settings = replace(settings, **{name: instead})
    return settings


def check_each_once(**choices: Sequence[object]) -> None:
    """Raise ValueError unless at least one thing is chosen, and none twice."""
    for name, chosen in choices.items():
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(f"{name} must be at least one, each once, got {', '.join(map(str, chosen)) or 'none'}")


_NOTES: ContextVar[list[str] | None] = ContextVar("notes", default=None)


@contextmanager
def heard(notes: list[str]) -> Iterator[None]:
    """Write down what suites say meanwhile, in place of warnings."""
    before = _NOTES.set(notes)
    try:
        yield
    finally:
        _NOTES.reset(before)


def warn(suite: str, message: str) -> None:
    """Say what a suite leaves out, doubts or does in another way than usual."""
    notes = _NOTES.get()
    if notes is None:
        warnings.warn(f"{suite}: {message}", UserWarning, stacklevel=3)
    else:
        notes.append(message)


class Suite(Protocol):
    """Measures a trained network, one of a finished run, too: a frozen dataclass of data and settings."""

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
        """Yield (name of the metric, value).

        A metric that is measured in several ways has a name of several words with slashes between, the metric's own
        last: ``noise/energy/auroc``. Each metric's unit stands in the docstring of its suite.
        """
        ...


class Normalised(nn.Module):
    """A network and the normalisation of its inputs as one function of pixels in [0, 1].

    What moves pixels (attacks, corruptions) is measured in pixels; a gradient passes through the normalisation.

    Args:
        network: Takes (b, c, h, w) that are normalised.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, likewise.

    Raises:
        ValueError: If mean and std are not of one length, or a std is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                f"mean and std must have one number a channel, std above 0, got {tuple(mean)} and {tuple(std)}"
            )
        self.network = network
        device = next((p.device for p in network.parameters()), None) if isinstance(network, nn.Module) else None
        self.register_buffer("mean", torch.tensor(mean, device=device).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, device=device).view(-1, 1, 1))

    def normalise(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return what the network itself takes."""
        return (pixels - self.mean) / self.std

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of images in [0, 1]."""
        return self.network(self.normalise(pixels))
