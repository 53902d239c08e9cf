"""Accuracy and calibration on clean data: how far confidence is from accuracy, and what a temperature repairs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import exp, log
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from typing_extensions import Self

from multimix._declared import Count, Interval, check
from multimix.lab.data import ImageSet, first_of
from multimix.lab.evaluate.labels import label_metrics, label_precision
from multimix.lab.evaluate.outcomes import outcomes
from multimix.lab.evaluate.passes import LabelledBatches, accuracy, check_tensors, class_indices, predict
from multimix.lab.evaluate.suite import Source, SuiteSettings, warn
from multimix.protocols import SILENT, Monitor, Network

BINS = 15  # of equal width, as in Guo et al. (ICML 2017)
LIMIT = 100.0  # the largest temperature looked at, and one over the smallest
_ROWS = 4096  # examples handled at a time as the temperature is fitted
_SINGLE, _HALF = 1e-3, 1e-2  # how far from 1 probabilities may sum by rounding, in float32 or better and in 16 bits


@dataclass(frozen=True)
class Reliability:
    """Examples in bins of confidence: bin i is (i / bins, (i + 1) / bins], the first holds a confidence of 0 too."""

    count: Int[Tensor, " bins"]  # examples in each bin
    confidence: Float[Tensor, " bins"]  # mean of each bin, NaN of an empty one
    accuracy: Float[Tensor, " bins"]  # share of right predictions in each bin, likewise

    def errors(self) -> dict[str, float]:
        """Return what the gaps between accuracy and confidence make, each bin weighted by its share of the examples."""
        gap, share = (self.accuracy - self.confidence).nan_to_num(0.0), self.count.double() / self.count.sum()
        excess = self.confidence.nan_to_num(0.0) * (-gap).clamp(min=0)
        return {
            "ece": float((share * gap.abs()).sum()),  # Guo et al., ICML 2017, as the next
            "mce": float(gap.abs().max()),
            "rms_calibration_error": float((share * gap.square()).sum().sqrt()),  # Hendrycks et al., ICLR 2019
            "overconfidence_error": float((share * excess).sum()),  # Thulasidasan et al., NeurIPS 2019
        }

    def figure(self) -> dict[str, list[Any]]:
        """Return the reliability diagram's data: edges, and of each bin confidence, accuracy (None: empty), count."""
        means = {"confidence": self.confidence, "accuracy": self.accuracy}
        known = {name: [None if v != v else v for v in values.tolist()] for name, values in means.items()}
        return {"edges": _edges(len(self.count)).tolist(), **known, "count": self.count.tolist()}


def reliability(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = BINS) -> Reliability:
    """Return the predictions, binned by the probability of the class that is predicted, the first of several.

    Raises:
        ValueError: If rows are no probabilities (NaN, negative, a sum other than 1), or labels no class indices.
    """
    labels = _checked("probabilities", probabilities, labels, bins)
    # In float64: the float32 next to an edge of a bin may lie on either side of it.
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
    return reliability(probabilities, labels, bins).errors()["ece"]


def classwise_calibration_error(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = BINS
) -> float:
    """Return the mean over classes of the ECE of each class's probability (static; Kull et al., NeurIPS 2019)."""
    labels = _checked("probabilities", probabilities, labels, bins)
    total = 0.0
    for j, column in enumerate(probabilities.double().T.contiguous()):
        # |B| |mean of label - mean of probability| is |sum of label - sum of probability|.
        excess = torch.bincount(_bin(column, bins), (labels == j).double() - column, minlength=bins)
        total += float(excess.abs().sum())
    return total / probabilities.numel()


def negative_log_likelihood(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Return the mean of -log p(label), in nats; a logit of minus infinity rules a class out."""
    labels = _checked("logits", logits, labels)
    return float(cross_entropy(logits.double(), labels))


def brier_score(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Return the mean squared distance of probabilities to the one-hot label, in [0, 2] (Brier, 1950)."""
    labels = _checked("probabilities", probabilities, labels)
    p = probabilities.double()
    of_label = p.gather(1, labels[:, None]).squeeze(1)
    return float((p.square().sum(1) - 2 * of_label + 1).mean())


def fit_temperature(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Return the T in [1 / 100, 100] of the least loss of ``softmax(logits / T)`` (Guo et al., ICML 2017, 4.2).

    Raises:
        ValueError: If logits are NaN or infinitely large, or rule out the class of an example, whose loss is then
            infinite at every T, or if labels are no class indices.
    """
    from scipy.optimize import brentq

    labels = _checked("logits", logits, labels)
    if ruled_out := int((logits.gather(1, labels[:, None]) == -torch.inf).sum()):
        raise ValueError(f"logits must not rule out an example's own class, got minus infinity for {ruled_out} of them")

    def slope(log_temperature: float) -> float:
        total = 0.0  # derivative of the total loss by 1 / T: the sum of E_p[z] - z_label
        for z, label in zip(logits.split(_ROWS), labels.split(_ROWS), strict=True):
            # Logits count from the largest of their example: what is a constant to the loss would cost digits. A class
            # that is ruled out (-inf) has no say in the mean.
            z = z.double()
            z = (z - z.amax(1, keepdim=True)).clamp(min=-1e30)
            expected = (torch.softmax(z * exp(-log_temperature), 1) * z).sum(1)
            total += float((expected - z.gather(1, label[:, None]).squeeze(1)).sum())
        return total

    # The loss is convex in 1 / T: its minimum is where its slope is 0, or at a limit, if all predictions are right (the
    # smaller T the better) or no better than chance (the larger).
    low, high = -log(LIMIT), log(LIMIT)
    if slope(high) >= 0:
        return LIMIT
    if slope(low) <= 0:
        return 1 / LIMIT
    return exp(brentq(slope, low, high, xtol=1e-13, rtol=1e-13))


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy (fraction), negative log-likelihood (nats) and expected calibration error (fraction, 15 bins).

    Where an image may have several labels, what :func:`multimix.lab.evaluate.labels.label_metrics` yields.
    """

    name: ClassVar[str] = "accuracy"
    Settings: ClassVar[type[SuiteSettings]] = SuiteSettings

    batches: LabelledBatches
    """Inputs and class indices, or labels 0 and 1, in any number of batches."""
    settings: SuiteSettings = field(default_factory=SuiteSettings)
    images: ImageSet | None = None
    """The set that the batches serve, for figures; None: no figures."""

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set."""
        test = source.test(settings.examples)
        return cls(source.batches(test), settings, test)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield accuracy, nll and ece, or the metrics of several labels; keep what became of each class."""
        logits, labels = predict(network, monitor.track("test", self.batches))
        if labels.ndim == 2:
            yield from label_metrics(logits, labels)
            if self.images is not None:
                precision = label_precision(logits, labels)
                about = {"classes": list(self.images.classes), "count": labels.sum(0).int().tolist()}
                monitor.record("labels", {**about, "average_precision": precision})
            return
        yield "accuracy", accuracy(logits, labels)
        yield "nll", negative_log_likelihood(logits, labels)
        yield "ece", expected_calibration_error(logits.double().softmax(1), labels)
        for name, data in () if self.images is None else outcomes(logits, labels, self.images):
            monitor.record(name, data)


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings(SuiteSettings):
    """What can be set of the calibration suite."""

    bins: Annotated[int, Interval(ge=1, le=1000)] = BINS
    """Bins of equal width that confidence is sorted into."""
    scaling: bool = True
    """Fit a temperature on the run's validation split, if it has one, and measure again with it."""
    validation_examples: Count | None = None
    """Fit the temperature on only so many validation images, the same share of each class; by default all."""


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
        """Return the suite over a run's test set and, if it has one, its validation split."""
        test, split = source.batches(source.test(settings.examples)), source.splits.validation
        if split is None and settings.scaling:
            warn("calibration", "no temperature is fitted, as there is no validation split (--validation of train)")
        if split is None or not settings.scaling:
            return cls(test, None, settings)
        chosen = first_of(split, settings.validation_examples, what="validation_examples")
        return cls(test, source.batches(chosen), settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the metrics as they are, the temperature, and the metrics with it."""
        logits, labels = predict(network, monitor.track("test", self.batches))
        yield "accuracy", accuracy(logits, labels)
        yield from self._measure(logits, labels, monitor, "reliability")
        if self.validation is None:
            return
        held_out = predict(network, monitor.track("validation", self.validation))
        temperature = fit_temperature(*held_out)
        if temperature in (LIMIT, 1 / LIMIT):
            how = "all predicted rightly" if temperature < 1 else "predicted no better than by chance"
            warn("calibration", f"the temperature is at its limit: {len(held_out[1])} validation images are {how}")
        yield "temperature", temperature
        for name, value in self._measure(logits.double() / temperature, labels, monitor, "reliability_scaled"):
            yield f"scaled/{name}", value

    def _measure(self, logits: Tensor, labels: Tensor, monitor: Monitor, figure: str) -> Iterator[tuple[str, float]]:
        probabilities = logits.double().softmax(1)
        bins = reliability(probabilities, labels, self.settings.bins)
        monitor.record(figure, bins.figure())
        yield "nll", negative_log_likelihood(logits, labels)
        yield "brier", brier_score(probabilities, labels)
        ece, mce, *others = bins.errors().items()
        classwise = classwise_calibration_error(probabilities, labels, self.settings.bins)
        yield from (ece, mce, ("classwise_ece", classwise), *others)


def _edges(bins: int) -> Float[Tensor, " edges"]:
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def _bin(values: Tensor, bins: int) -> Tensor:
    """Return each value's bin: right-closed, 0 in the first, 1 in the last."""
    return torch.bucketize(values, _edges(bins)[1:-1].to(values.device))


def _checked(name: str, values: Tensor, labels: Tensor, bins: int = BINS) -> Int[Tensor, " n"]:
    """Return the labels as int64, unless they or the values are not what they are called."""
    check(Count, bins=bins)
    check_tensors(**{name: values, "labels": labels})
    if values.ndim != 2 or labels.shape != values.shape[:1] or not values.numel():
        raise ValueError(
            f"{name} must be (n, k) and labels (n,) with n and k at least 1, got {tuple(values.shape)} and "
            f"{tuple(labels.shape)}"
        )
    if name == "logits":
        wrong, what = ~(values.amax(1).isfinite()), "finite, or minus infinity for classes that are ruled out"
    else:
        within = _HALF if values.dtype in (torch.float16, torch.bfloat16) else _SINGLE
        exact = values.double()
        wrong = ~((exact.amin(1) >= -within) & ((exact.sum(1) - 1).abs() <= within))  # NaN is wrong as well
        what = f"probabilities, which are not negative and sum to 1 within {within:g}"
    if bad := wrong.nonzero().flatten().tolist():
        row = ", ".join(f"{value:g}" for value in values[bad[0], :5].tolist())
        more = ", ..." * (values.shape[1] > 5)
        raise ValueError(f"{name} must be {what}; {len(bad)} of {len(values)} rows are not, the first [{row}{more}]")
    return class_indices(labels, *values.shape)
