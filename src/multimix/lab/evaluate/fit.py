"""How far a network has fitted its training images, which tells whether mixing can pay."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from typing_extensions import Self

from multimix._declared import Count
from multimix.lab.data import first_of
from multimix.lab.evaluate.calibration import negative_log_likelihood
from multimix.lab.evaluate.passes import LabelledBatches, accuracy, predict
from multimix.lab.evaluate.suite import Source, SuiteSettings
from multimix.protocols import SILENT, Monitor, Network

_ENOUGH = 10_000


@dataclass(frozen=True, kw_only=True)
class FitSettings(SuiteSettings):
    """What can be set of the fit suite."""

    train_examples: Count | None = None
    """Training images to look at, the same share of each class; by default all, or 10,000 of more."""


@dataclass(frozen=True)
class Fit:
    """Accuracy (fraction) and NLL (nats) on training images as they are, and how much less accurate test images are.

    ``train_accuracy``, ``train_nll`` and ``gap``, training accuracy less test accuracy.
    """

    name: ClassVar[str] = "fit"
    Settings: ClassVar[type[SuiteSettings]] = FitSettings

    train: LabelledBatches
    """Training images as the network takes them, not augmented, and class indices."""
    test: LabelledBatches
    """Test images likewise."""
    settings: FitSettings = field(default_factory=FitSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's training and test set."""
        split, wanted = source.splits.train, settings.train_examples
        wanted = _ENOUGH if wanted is None and len(split) > _ENOUGH else wanted
        train = first_of(split, wanted, what="train_examples")
        return cls(source.batches(train), source.batches(source.test(settings.examples)), settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the training metrics and the gap."""
        logits, labels = predict(network, monitor.track("train", self.train))
        fitted = accuracy(logits, labels)
        yield "train_accuracy", fitted
        yield "train_nll", negative_log_likelihood(logits, labels)
        yield "gap", fitted - accuracy(*predict(network, monitor.track("test", self.test)))
