"""How well a score tells the images a network knows from those it does not.

The images of the test set are *in* the distribution and should score high, those of another set are *out* of it and
should score low. An image is taken for in-distribution where its score is at least a threshold. Over all thresholds,
TPR is the fraction of in-distribution images that are taken in, and FPR the fraction of the others. Equal scores pass a
threshold together, and every number comes from exact counts: there are no bins and no sampled thresholds.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64, Num
from torch import Tensor

__all__ = ["METRICS", "Counts", "all_metrics", "aupr_in", "aupr_out", "auroc", "detection_accuracy", "fpr95"]

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95", "detection_accuracy")
"""The name of every metric, in the order they are given."""


class Counts(NamedTuple):
    """How many images are taken in at each threshold, from the strictest to the laxest."""

    inside: Int64[Tensor, " thresholds"]
    """Of those in the distribution; the last number is all of them."""
    outside: Int64[Tensor, " thresholds"]
    """Of the others, likewise."""

    def rates(self) -> tuple[Float64[Tensor, " points"], Float64[Tensor, " points"]]:
        """Return FPR and TPR at every threshold, after the point (0, 0) where no image is taken in."""
        before = torch.zeros(1, dtype=torch.float64)
        fpr, tpr = (torch.cat([before, taken / taken[-1].double()]) for taken in (self.outside, self.inside))
        return fpr, tpr

    def reversed(self) -> "Counts":
        """Return the counts of the opposite task: to find the others, by the negated scores."""
        zero = self.inside.new_zeros(1)
        found, mistaken = (taken[-1] - torch.cat([zero, taken[:-1]]) for taken in (self.outside, self.inside))
        return Counts(found.flip(0), mistaken.flip(0))


def counts(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> Counts:
    """Return the counts at every score that occurs, each score once.

    Raises:
        ValueError: If one of the two is empty, not a vector, or not finite throughout.
    """
    inside, outside = _checked("in_scores", in_scores), _checked("out_scores", out_scores)
    scores, order = torch.cat([inside, outside]).sort(descending=True)
    taken = (order < len(inside)).cumsum(0)
    last = torch.ones(len(scores), dtype=torch.bool)
    last[:-1] = scores[1:] != scores[:-1]
    place = last.nonzero().flatten()
    return Counts(taken[place], place + 1 - taken[place])


def auroc(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the area under the curve of TPR over FPR, a fraction; 0.5 is chance.

    It is the probability that an image in the distribution scores higher than one outside, where a tie counts half.

    Args:
        in_scores: Scores of images in the distribution, the higher the more so.
        out_scores: Scores of images outside.

    Raises:
        ValueError: If one of the two is empty, not a vector, or not finite throughout.
    """
    return _auroc(counts(in_scores, out_scores))


def aupr_in(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the average precision of finding the images in the distribution, a fraction.

    With precision P_i and recall R_i at the i-th threshold, from the strictest on, and R_0 = 0, it is
    sum_i (R_i - R_{i-1}) P_i: steps, not trapezoids, which would be too high. Chance is n / (n + m).

    Args:
        in_scores: Scores of images in the distribution, the higher the more so.
        out_scores: Scores of images outside.

    Raises:
        ValueError: If one of the two is empty, not a vector, or not finite throughout.
    """
    return _average_precision(counts(in_scores, out_scores))


def aupr_out(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the average precision of finding the images outside, by the negated scores, a fraction.

    Defined as ``aupr_in`` with the two sets changed about; chance is m / (n + m).

    Args:
        in_scores: Scores of images in the distribution, the higher the more so.
        out_scores: Scores of images outside.

    Raises:
        ValueError: If one of the two is empty, not a vector, or not finite throughout.
    """
    return _average_precision(counts(in_scores, out_scores).reversed())


def fpr95(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the smallest FPR among the thresholds whose TPR is at least 0.95, a fraction; lower is better.

    The images in the distribution are the positive ones, as in ODIN (Liang et al., ICLR 2018). Only scores that occur
    are thresholds: nothing is interpolated between them. TPR >= 0.95 is decided on whole numbers, 20 n_taken >= 19 n.

    Args:
        in_scores: Scores of images in the distribution, the higher the more so.
        out_scores: Scores of images outside.

    Raises:
        ValueError: If one of the two is empty, not a vector, or not finite throughout.
    """
    return _fpr95(counts(in_scores, out_scores))


def detection_accuracy(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the best mean of TPR and TNR = 1 - FPR over all thresholds, a fraction; at least 0.5.

    The accuracy of the best threshold where an image of either kind is equally likely (Liang et al., ICLR 2018, whose
    detection error is 1 minus this). The threshold is chosen on the scores it is measured on.

    Args:
        in_scores: Scores of images in the distribution, the higher the more so.
        out_scores: Scores of images outside.

    Raises:
        ValueError: If one of the two is empty, not a vector, or not finite throughout.
    """
    return _detection_accuracy(counts(in_scores, out_scores))


def all_metrics(taken: Counts) -> dict[str, float]:
    """Return every metric by its name, from counts that are made once."""
    values = (
        _auroc(taken),
        _average_precision(taken),
        _average_precision(taken.reversed()),
        _fpr95(taken),
        _detection_accuracy(taken),
    )
    return dict(zip(METRICS, values, strict=True))


def _checked(name: str, scores: Tensor) -> Float64[Tensor, " n"]:
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"{name} must be a vector of at least one score, got shape {tuple(scores.shape)}")
    scores = scores.detach().cpu().double()
    if not scores.isfinite().all():
        raise ValueError(f"{name} must be finite, got {int((~scores.isfinite()).sum())} NaN or infinite of them")
    return scores


def _auroc(taken: Counts) -> float:
    """Trapezoids, which give ties their half; in whole numbers, twice the number of pairs in the right order."""
    zero = taken.inside.new_zeros(1)
    before = torch.cat([zero, taken.inside[:-1]])
    width = taken.outside.diff(prepend=zero)
    twice = int((width * (before + taken.inside)).sum())
    return twice / (2 * int(taken.inside[-1]) * int(taken.outside[-1]))


def _average_precision(taken: Counts) -> float:
    precision = taken.inside.double() / (taken.inside + taken.outside)
    found = taken.inside.diff(prepend=taken.inside.new_zeros(1))
    return float((found * precision).sum() / taken.inside[-1])


def _fpr95(taken: Counts) -> float:
    enough = 20 * taken.inside >= 19 * taken.inside[-1]
    return int(taken.outside[enough][0]) / int(taken.outside[-1])


def _detection_accuracy(taken: Counts) -> float:
    fpr, tpr = taken.rates()
    return float(((tpr + 1 - fpr) / 2).max())
