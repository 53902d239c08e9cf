"""Accuracy while more and more of each image is hidden."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor
from typing_extensions import Self

from multimix._declared import Count, Fraction, Interval, MinLen, check
from multimix.lab.data import seed_of
from multimix.lab.evaluate.passes import LabelledBatches, accuracy, numbered, per_example, predict
from multimix.lab.evaluate.suite import Limit, Source, SuiteSettings, Usual, adjusted
from multimix.protocols import SILENT, Monitor, Network


@dataclass(frozen=True, kw_only=True)
class OcclusionSettings(SuiteSettings):
    """What can be set of the occlusion suite."""

    fractions: Annotated[tuple[Annotated[float, Interval(ge=0, lt=1)], ...], MinLen(2)] = tuple(
        eighths / 8 for eighths in range(7)
    )
    """Fractions of each image that are hidden, ascending, below 1."""
    grid: Count = field(default=Usual(8))
    """Patches along each side of an image."""
    seed: int = 0
    """Of the order in which each image's patches are hidden."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if any(low >= high for low, high in pairwise(self.fractions)):
            raise ValueError(f"fractions must ascend, got {self.fractions}")
        if len({_patches(fraction, self.grid) for fraction in self.fractions}) < len(self.fractions):
            raise ValueError(f"fractions must differ by a patch of {self.grid} x {self.grid}, got {self.fractions}")

    def limits(self, source: Source) -> Iterator[Limit]:
        """Yield what the size of the images allows."""
        side = min(source.splits.shape[1:])
        yield Limit("grid", 1, side, side, f"as the images have only {side} pixels a side")


@dataclass(frozen=True)
class Occlusion:
    """Top-1 accuracies (fractions) while patches at random places of each image are hidden.

    ``PERCENT/accuracy`` for each fraction (``25/accuracy``, ``12.5/accuracy``), and ``area/accuracy``, the mean of the
    curve over the range of fractions by the trapezoidal rule. Hidden pixels have the training set's mean colour. What
    is hidden stays hidden as more is. (After the random PatchDrop of Naseer et al., NeurIPS 2021.)
    """

    name: ClassVar[str] = "occlusion"
    Settings: ClassVar[type[SuiteSettings]] = OcclusionSettings

    batches: LabelledBatches
    """Normalised images (b, c, h, w), whose mean is 0, and class indices."""
    settings: OcclusionSettings = field(default_factory=OcclusionSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set."""
        settings = adjusted(cls.name, settings, source)
        return cls(source.batches(source.test(settings.examples)), settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the accuracy at each fraction, and the mean of the curve."""
        fractions, curve, examples = self.settings.fractions, [], 0
        for fraction in fractions:
            percent = f"{100 * fraction:.6g}"
            batches = monitor.track(f"{percent} % hidden", self.batches)
            logits, labels = predict(network, self._occluded(batches, fraction))
            curve.append(accuracy(logits, labels))
            examples = len(labels)
            yield f"{percent}/accuracy", curve[-1]
        area = torch.trapezoid(*(torch.tensor(values, dtype=torch.float64) for values in (curve, fractions)))
        yield "area/accuracy", float(area) / (fractions[-1] - fractions[0])
        monitor.record("occlusion", {"fraction": list(fractions), "accuracy": curve, "examples": examples})

    def _occluded(self, batches: LabelledBatches, fraction: float) -> Iterator[tuple[Tensor, Tensor]]:
        grid, seed = self.settings.grid, self.settings.seed
        for inputs, labels, examples in numbered(batches):
            mask = hidden(fraction, *inputs.shape[2:], grid=grid, examples=examples, seed=seed)
            yield inputs.masked_fill(mask[:, None].to(inputs.device), 0.0), labels


def hidden(
    fraction: float, h: int, w: int, *, grid: int, examples: Sequence[int] | range, seed: int = 0
) -> Bool[Tensor, "b h w"]:
    """Return which pixels of each image are hidden: whole patches, in a random order that belongs to the example."""
    check(Fraction, fraction=fraction)
    check(Count, grid=grid, h=h, w=w)
    _check_grid(grid, h, w)
    ranks = per_example(lambda g: torch.randperm(grid * grid, generator=g), examples, seed=seed_of("occlusion", seed))
    covered = (ranks < _patches(fraction, grid)).view(-1, grid, grid)
    rows, columns = (torch.arange(size) * grid // size for size in (h, w))
    return covered[:, rows][:, :, columns]


def _patches(fraction: float, grid: int) -> int:
    return round(fraction * grid * grid)


def _check_grid(grid: int, h: int, w: int) -> None:
    if grid > min(h, w):
        raise ValueError(f"grid must be at most the images' {min(h, w)} pixels a side, got {grid}")
