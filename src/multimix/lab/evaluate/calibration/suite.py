"""Calibration of a network's confidence, before and after temperature scaling."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Self

from multimix.lab.data import first_of
from multimix.lab.evaluate.calibration.metrics import (
    BINS,
    Reliability,
    brier_score,
    classwise_calibration_error,
    negative_log_likelihood,
    reliability,
)
from multimix.lab.evaluate.calibration.temperature import fit_temperature
from multimix.lab.evaluate.predict import LabelledBatches, predict
from multimix.lab.evaluate.source import Source
from multimix.lab.evaluate.suite import SuiteSettings
from multimix.protocols import SILENT, Monitor, Network

__all__ = ["Calibration", "CalibrationSettings"]


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings(SuiteSettings):
    """What can be set of the calibration suite."""

    bins: int = BINS
    """Bins of equal width that confidence is sorted into."""
    scaling: bool = True
    """Fit a temperature on the run's validation split, if it has one, and measure again with it."""
    validation_examples: int | None = None
    """Fit the temperature on only so many validation images, the same share of each class; by default all."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if self.bins < 1:
            raise ValueError(f"bins must be at least 1, got {self.bins}")
        if self.validation_examples is not None and self.validation_examples < 1:
            raise ValueError(f"validation_examples must be at least 1, got {self.validation_examples}")


@dataclass(frozen=True)
class Calibration:
    """Binned calibration errors (fractions), likelihood (nats) and Brier score (0 to 2), on clean test images.

    ``accuracy``, ``nll``, ``brier``, ``ece``, ``mce``, ``classwise_ece``, ``rms_calibration_error`` and
    ``overconfidence_error`` of the network as it is; then ``temperature``, fitted on validation images, and the same
    under ``scaled/``, but for the accuracy, which no temperature changes. Without validation images there is nothing
    to fit it on, and nothing scaled is measured: never is it fitted on the test set.
    """

    name: ClassVar[str] = "calibration"
    Settings: ClassVar[type[SuiteSettings]] = CalibrationSettings

    batches: LabelledBatches
    """Inputs and class indices to measure on."""
    validation: LabelledBatches | None = None
    """Inputs and class indices to fit the temperature on; None: no scaling."""
    settings: CalibrationSettings = field(default_factory=CalibrationSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set and, if it has one, its validation split.

        Raises:
            ValueError: If the run's sets hold fewer images than are wanted.
        """
        part = source.splits.validation if settings.scaling else None
        if part is not None:
            part = first_of(part, settings.validation_examples, what="validation_examples")
        validation = None if part is None else source.batches(part)
        return cls(source.batches(source.test(settings.examples)), validation, settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the metrics as they are, the temperature, and the metrics with it."""
        logits, labels = predict(network, monitor.track("test", self.batches))
        yield "accuracy", float((logits.argmax(1) == labels).double().mean())
        bins, metrics = self._measure(logits, labels)
        monitor.record("reliability", bins.figure())
        yield from metrics.items()
        if self.validation is None:
            return
        temperature = fit_temperature(*predict(network, monitor.track("validation", self.validation)))
        yield "temperature", temperature
        bins, metrics = self._measure(logits.double() / temperature, labels)
        monitor.record("reliability_scaled", bins.figure())
        yield from ((f"scaled/{name}", value) for name, value in metrics.items())

    def _measure(self, logits: Tensor, labels: Tensor) -> tuple[Reliability, dict[str, float]]:
        probabilities = logits.double().softmax(1)
        bins = reliability(probabilities, labels, self.settings.bins)
        return bins, {
            "nll": negative_log_likelihood(logits, labels),
            "brier": brier_score(probabilities, labels),
            "ece": bins.expected_error(),
            "mce": bins.maximum_error(),
            "classwise_ece": classwise_calibration_error(probabilities, labels, self.settings.bins),
            "rms_calibration_error": bins.root_mean_square_error(),
            "overconfidence_error": bins.overconfidence_error(),
        }
