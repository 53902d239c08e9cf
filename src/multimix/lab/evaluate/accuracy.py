"""Accuracy and calibration on clean data."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from typing_extensions import Self

from multimix.lab.evaluate.calibration.metrics import expected_calibration_error, negative_log_likelihood
from multimix.lab.evaluate.predict import LabelledBatches, predict
from multimix.lab.evaluate.source import Source
from multimix.lab.evaluate.suite import SuiteSettings
from multimix.protocols import SILENT, Monitor, Network


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy (fraction), negative log-likelihood (nats) and expected calibration error (fraction, 15 bins)."""

    name: ClassVar[str] = "accuracy"
    Settings: ClassVar[type[SuiteSettings]] = SuiteSettings

    batches: LabelledBatches
    """Inputs and class indices, in any number of batches."""
    settings: SuiteSettings = field(default_factory=SuiteSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set."""
        return cls(source.batches(source.test(settings.examples)), settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield accuracy, nll and ece."""
        logits, labels = predict(network, monitor.track("test", self.batches))
        yield "accuracy", float((logits.argmax(1) == labels).double().mean())
        yield "nll", negative_log_likelihood(logits, labels)
        yield "ece", expected_calibration_error(logits.double().softmax(1), labels)
