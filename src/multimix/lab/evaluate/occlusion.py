"""Accuracy while more and more of each image is hidden."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from typing_extensions import Self

from multimix.lab.data import seed_of
from multimix.lab.evaluate.draws import per_example
from multimix.lab.evaluate.predict import LabelledBatches, predict
from multimix.lab.evaluate.source import Source
from multimix.lab.evaluate.suite import SuiteSettings
from multimix.protocols import SILENT, Monitor, Network

__all__ = ["Occlusion", "OcclusionSettings", "hidden"]


@dataclass(frozen=True, kw_only=True)
class OcclusionSettings(SuiteSettings):
    """What can be set of the occlusion suite."""

    fractions: tuple[float, ...] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
    """Fractions of each image that are hidden, ascending, below 1."""
    grid: int = 8
    """Patches along each side of an image."""
    seed: int = 0
    """Of the order in which each image's patches are hidden."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if self.grid < 1:
            raise ValueError(f"grid must be at least 1, got {self.grid}")
        ascending = all(a < b for a, b in zip(self.fractions, self.fractions[1:], strict=False))
        if len(self.fractions) < 2 or not ascending or not all(0 <= value < 1 for value in self.fractions):
            raise ValueError(f"fractions must be two or more, ascending, in [0, 1), got {self.fractions}")
        counts = [patches(fraction, self.grid) for fraction in self.fractions]
        if len(set(counts)) < len(counts):
            raise ValueError(f"fractions must differ by a patch of {self.grid} x {self.grid}, got {self.fractions}")


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
        """Return the suite over a run's test set.

        Raises:
            ValueError: If the images have fewer pixels than the grid has patches.
        """
        part = source.test(settings.examples)
        _check_grid(settings.grid, *part.shape[1:])
        return cls(source.batches(part), settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the accuracy at each fraction, and the mean of the curve."""
        fractions, curve, examples = self.settings.fractions, [], 0
        for fraction in fractions:
            percent = f"{100 * fraction:.6g}"
            logits, labels = predict(
                network, self._occluded(monitor.track(f"{percent} % hidden", self.batches), fraction)
            )
            curve.append(float((logits.argmax(1) == labels).double().mean()))
            examples = len(labels)
            yield f"{percent}/accuracy", curve[-1]
        steps = zip(fractions, fractions[1:], curve, curve[1:], strict=False)
        area = sum((high - low) * (a + b) / 2 for low, high, a, b in steps)
        yield "area/accuracy", area / (fractions[-1] - fractions[0])
        monitor.record("occlusion", {"fraction": list(fractions), "accuracy": curve, "examples": examples})

    def _occluded(self, batches: LabelledBatches, fraction: float) -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for inputs, labels in batches:
            examples = range(start, start + len(labels))
            mask = hidden(
                fraction, *inputs.shape[2:], grid=self.settings.grid, examples=examples, seed=self.settings.seed
            )
            yield inputs.masked_fill(mask[:, None].to(inputs.device), 0.0), labels
            start += len(labels)


def hidden(
    fraction: float, h: int, w: int, *, grid: int, examples: Sequence[int] | range, seed: int = 0
) -> Bool[Tensor, "b h w"]:
    """Return which pixels of each image are hidden, on the CPU.

    Images are cut into ``grid`` x ``grid`` patches, equal where the sides divide, else up to a pixel larger or smaller.
    As many are hidden as make up the fraction, rounded to whole patches, in a random order that belongs to the example.

    Raises:
        ValueError: If the images have fewer pixels than the grid has patches.
    """
    _check_grid(grid, h, w)
    ranks = per_example(
        lambda generator: _ranks(grid * grid, generator),
        examples,
        seed=seed_of("occlusion", seed),
        device=torch.device("cpu"),
    )
    covered = (ranks < patches(fraction, grid)).view(-1, grid, grid)
    rows, columns = (torch.arange(size) * grid // size for size in (h, w))
    return covered[:, rows][:, :, columns]


def patches(fraction: float, grid: int) -> int:
    """Return how many patches make up a fraction of the image."""
    return round(fraction * grid * grid)


def _ranks(count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """Return at which turn each patch is hidden."""
    return torch.randperm(count, generator=generator)


def _check_grid(grid: int, h: int, w: int) -> None:
    if grid > min(h, w):
        raise ValueError(f"grid must be at most the images' {min(h, w)} pixels a side, got {grid}")
