"""How far confidence is from accuracy: binned errors and proper scores, in float64."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = [
    "BINS",
    "Reliability",
    "brier_score",
    "classwise_calibration_error",
    "expected_calibration_error",
    "negative_log_likelihood",
    "reliability",
]

BINS = 15
"""Bins of equal width where none are asked for, as in Guo et al. (ICML 2017)."""

_ROWS = 4096
"""Examples handled at a time where every class has bins of its own."""


@dataclass(frozen=True)
class Reliability:
    """Examples sorted into bins by the confidence of their predictions: bin i is (i / bins, (i + 1) / bins].

    The first bin holds a confidence of 0 too. Means of an empty bin are NaN.
    """

    count: Int[Tensor, " bins"]
    """Examples in each bin."""
    confidence: Float[Tensor, " bins"]
    """Mean confidence in each bin."""
    accuracy: Float[Tensor, " bins"]
    """Share of right predictions in each bin."""

    @property
    def gap(self) -> Float[Tensor, " bins"]:
        """Accuracy minus confidence of each bin, 0 where it is empty."""
        return (self.accuracy - self.confidence).nan_to_num(0.0)

    @property
    def share(self) -> Float[Tensor, " bins"]:
        """Share of the examples that each bin holds."""
        return self.count.double() / self.count.sum()

    def expected_error(self) -> float:
        """Return the mean gap, each bin weighted by its share (ECE; Guo et al., ICML 2017)."""
        return float((self.share * self.gap.abs()).sum())

    def maximum_error(self) -> float:
        """Return the largest gap of a bin that is not empty (MCE; Guo et al., ICML 2017)."""
        return float(self.gap.abs().max())

    def root_mean_square_error(self) -> float:
        """Return the root of the mean squared gap, each bin weighted by its share (Hendrycks et al., ICLR 2019)."""
        return float((self.share * self.gap.square()).sum().sqrt())

    def overconfidence_error(self) -> float:
        """Return the mean of confidence times its excess over accuracy (OE; Thulasidasan et al., NeurIPS 2019)."""
        return float((self.share * self.confidence.nan_to_num(0.0) * (-self.gap).clamp(min=0)).sum())

    def figure(self) -> dict[str, list[Any]]:
        """Return the reliability diagram's data: edges, and of each bin confidence, accuracy (None: empty), count."""
        edges = _edges(len(self.count))
        full = self.count > 0
        means = {"confidence": self.confidence, "accuracy": self.accuracy}
        return {
            "edges": edges.tolist(),
            **{
                name: [float(v) if f else None for v, f in zip(mean, full, strict=True)] for name, mean in means.items()
            },
            "count": self.count.tolist(),
        }


def reliability(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = BINS) -> Reliability:
    """Return the predictions, binned by the probability of the class that is predicted.

    Of classes that are equally probable, the first is predicted. Bins are told apart in float64: the float32 next to an
    edge may lie on either side of it.

    Raises:
        ValueError: If there are no examples, as many labels as examples there are not, or ``bins`` is below 1.
    """
    _check(probabilities, labels, bins)
    confidence, predicted = probabilities.double().max(1)
    where = _bin(confidence, bins)
    right = (predicted == labels).double()
    count = torch.bincount(where, minlength=bins)
    sums = [torch.bincount(where, weights=values, minlength=bins) for values in (confidence, right)]
    return Reliability(count, *(total / count for total in sums))


def expected_calibration_error(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = BINS
) -> float:
    """Return the mean gap between confidence and accuracy over bins of equal width (Guo et al., ICML 2017)."""
    return reliability(probabilities, labels, bins).expected_error()


def classwise_calibration_error(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = BINS
) -> float:
    """Return the mean over classes of each class's own ECE (static; Kull et al., NeurIPS 2019).

    For class j every example is binned by the probability of j, and in each bin the mean of that probability is
    compared with the share of examples whose label is j.

    Raises:
        ValueError: As of :func:`reliability`.
    """
    _check(probabilities, labels, bins)
    n, k = probabilities.shape
    # |B| |mean of label - mean of probability| is |sum of label - sum of probability|.
    excess = torch.zeros(k * bins, dtype=torch.float64, device=probabilities.device)
    offsets = torch.arange(k, device=probabilities.device) * bins
    for p, label in zip(probabilities.split(_ROWS), labels.split(_ROWS), strict=True):
        p = p.double()
        is_class = (label[:, None] == torch.arange(k, device=p.device)).double()
        excess += torch.bincount((_bin(p, bins) + offsets).flatten(), (is_class - p).flatten(), minlength=k * bins)
    return float(excess.abs().sum() / (n * k))


def negative_log_likelihood(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Return the mean of -log p(label), in nats."""
    return float(cross_entropy(logits.double(), labels))


def brier_score(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Return the squared distance of probabilities from the one-hot label, summed over classes (Brier, 1950).

    The mean over examples lies in [0, 2]. Some divide by the number of classes, or, of two classes, look at one only.
    """
    p = probabilities.double()
    of_label = p.gather(1, labels[:, None]).squeeze(1)
    return float((p.square().sum(1) - 2 * of_label + 1).mean())


def _edges(bins: int) -> Float[Tensor, " edges"]:
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def _bin(values: Tensor, bins: int) -> Tensor:
    """Return each value's bin: right-closed, 0 in the first, 1 in the last."""
    return torch.bucketize(values, _edges(bins)[1:-1].to(values.device))


def _check(probabilities: Tensor, labels: Tensor, bins: int) -> None:
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            "probabilities must be (n, k) and labels (n,) with n at least 1, "
            f"got {tuple(probabilities.shape)} and {tuple(labels.shape)}"
        )
