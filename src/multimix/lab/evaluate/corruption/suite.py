"""Accuracy under common corruptions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from torch import Tensor
from typing_extensions import Self

from multimix.lab.evaluate.corruption.apply import CORRUPTIONS, SEVERITIES, check, corrupt
from multimix.lab.evaluate.predict import LabelledBatches, predict
from multimix.lab.evaluate.suite import Normalised, Source, SuiteSettings
from multimix.protocols import SILENT, Monitor, Network

__all__ = ["Corruption", "CorruptionSettings"]


@dataclass(frozen=True, kw_only=True)
class CorruptionSettings(SuiteSettings):
    """What can be set of the corruption suite."""

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    """Which of the fifteen common corruptions."""
    severities: tuple[int, ...] = SEVERITIES
    """How strong, from 1 to 5."""
    seed: int = 0
    """Of all that is random in the corruptions."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        for what, values in (("corruptions", self.corruptions), ("severities", self.severities)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{what} must be at least one, each once, got {values}")
        for corruption in self.corruptions:
            for severity in self.severities:
                check(corruption, severity)


@dataclass(frozen=True)
class Corruption:
    """Top-1 accuracies (fractions) under corruptions that are made on the fly.

    ``clean/accuracy``; then ``CORRUPTION/SEVERITY/accuracy``, ``CORRUPTION/accuracy``, the mean over the severities,
    and ``mean/accuracy``, the mean over all corruptions and severities. One minus the latter is the mean corruption
    error, without the division by AlexNet's errors that the benchmark's mCE on ImageNet has.
    """

    name: ClassVar[str] = "corruption"
    Settings: ClassVar[type[SuiteSettings]] = CorruptionSettings

    pixels: LabelledBatches
    """Images in [0, 1] and class indices."""
    mean: tuple[float, ...]
    """What the network's inputs are normalised by: the mean of each channel,"""
    std: tuple[float, ...]
    """and the standard deviation of each channel."""
    settings: CorruptionSettings = field(default_factory=CorruptionSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set."""
        part = source.test(settings.examples)
        return cls(source.pixels(part), source.splits.mean, source.splits.std, settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the clean accuracy, those of each corruption and the mean."""
        chosen = self.settings
        whole = cast("Network", Normalised(network, self.mean, self.std))
        clean, examples = _accuracy(whole, monitor.track("clean", self.pixels))
        yield "clean/accuracy", clean
        table = []
        for corruption in chosen.corruptions:
            row = []
            for severity in chosen.severities:
                batches = monitor.track(f"{corruption} {severity}", self.pixels)
                row.append(_accuracy(whole, _corrupted(batches, corruption, severity, chosen.seed))[0])
                yield f"{corruption}/{severity}/accuracy", row[-1]
            yield f"{corruption}/accuracy", sum(row) / len(row)
            table.append(row)
        yield "mean/accuracy", sum(map(sum, table)) / (len(table) * len(chosen.severities))
        monitor.record(
            "corruption",
            {
                "corruptions": list(chosen.corruptions),
                "severities": list(chosen.severities),
                "accuracy": table,
                "clean": clean,
                "examples": examples,
            },
        )


def _accuracy(network: Network, batches: LabelledBatches) -> tuple[float, int]:
    """Return the share of right predictions, and of how many."""
    logits, labels = predict(network, batches)
    return float((logits.argmax(1) == labels).double().mean()), len(labels)


def _corrupted(batches: LabelledBatches, name: str, severity: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield corrupted batches; an image's position in the set is what its random numbers hang on."""
    start = 0
    for pixels, labels in batches:
        examples = range(start, start + len(labels))
        yield corrupt(pixels, name, severity, examples=examples, seed=seed), labels
        start += len(labels)
