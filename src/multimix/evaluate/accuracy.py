"""Accuracy and calibration on clean data."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from multimix.evaluate.predict import predict
from multimix.protocols import Network

ECE_BINS = 15


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy (fraction), negative log-likelihood (nats) and expected calibration error (fraction, 15 bins)."""

    name: ClassVar[str] = "accuracy"

    batches: Iterable[tuple[Tensor, Tensor]]
    """Inputs and class indices, in any number of batches."""

    def __call__(self, network: Network) -> Iterator[tuple[str, float]]:
        """Yield accuracy, nll and ece."""
        logits, labels = predict(network, self.batches)
        yield "accuracy", float((logits.argmax(1) == labels).double().mean())
        yield "nll", float(cross_entropy(logits.double(), labels))
        yield "ece", expected_calibration_error(logits.softmax(1), labels)


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the mean gap between confidence and accuracy over 15 bins of equal width (Guo et al., ICML 2017)."""
    from torchmetrics.functional.classification import multiclass_calibration_error  # slow to import

    classes = probabilities.shape[1]
    return float(multiclass_calibration_error(probabilities, labels, num_classes=classes, n_bins=ECE_BINS, norm="l1"))
