"""How well a score tells the images a network knows from those it does not, and what the figures show of it.

The images of the test set are *in* the distribution and should score high, those of another set are *out* of it and
should score low. An image is taken for in-distribution where its score is at least a threshold. Over all thresholds,
TPR is the fraction of in-distribution images that are taken in, and FPR the fraction of the others. Equal scores pass a
threshold together: there are no bins and no sampled thresholds. scikit-learn computes the curves.
"""

import numpy as np
import torch
from jaxtyping import Float64, Num
from torch import Tensor

__all__ = ["METRICS", "aupr_in", "aupr_out", "auroc", "detection_accuracy", "fpr95", "histograms", "roc"]

BINS = 50
POINTS = 200
_DIGITS = 6  # significant ones, in the file of the figures
_EDGE_DIGITS = 12  # at ODIN's temperature scores differ in their sixth digit only
_TAIL = 0.005  # of each set, at either end, may lie beyond the outer edges


def auroc(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the area under the curve of TPR over FPR, a fraction; 0.5 is chance.

    It is the probability that an image in the distribution scores higher than one outside, where a tie counts half.

    Args:
        in_scores: Scores of images in the distribution, the higher the more so.
        out_scores: Scores of images outside.

    Raises:
        ValueError: If one of the two is empty, not a vector, or not finite throughout.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_known(in_scores, out_scores)))


def aupr_in(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the average precision of finding the images in the distribution, a fraction.

    With precision P_i and recall R_i at the i-th threshold, from the strictest on, and R_0 = 0, it is
    sum_i (R_i - R_{i-1}) P_i: steps, not trapezoids, which would be too high. Chance is n / (n + m). Arguments and
    errors are those of :func:`auroc`.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_known(in_scores, out_scores)))


def aupr_out(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the average precision of finding the images outside, by the negated scores, a fraction.

    Defined as :func:`aupr_in` with the two sets changed about; chance is m / (n + m).
    """
    from sklearn.metrics import average_precision_score

    known, scores = _known(in_scores, out_scores)
    return float(average_precision_score(~known, -scores))


def fpr95(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the smallest FPR among the thresholds whose TPR is at least 0.95, a fraction; lower is better.

    The images in the distribution are the positive ones, as in ODIN (Liang et al., ICLR 2018). Only scores that occur
    are thresholds: nothing is interpolated between them. Arguments and errors are those of :func:`auroc`.
    """
    fpr, tpr = _rates(in_scores, out_scores)
    return float(fpr[tpr >= 0.95][0])


def detection_accuracy(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the best mean of TPR and TNR = 1 - FPR over all thresholds, a fraction; at least 0.5.

    The accuracy of the best threshold where an image of either kind is equally likely (Liang et al., ICLR 2018, whose
    detection error is 1 minus this). The threshold is chosen on the scores it is measured on. Arguments and errors are
    those of :func:`auroc`.
    """
    fpr, tpr = _rates(in_scores, out_scores)
    return float(((tpr + 1 - fpr) / 2).max())


METRICS = {function.__name__: function for function in (auroc, aupr_in, aupr_out, fpr95, detection_accuracy)}
"""Every metric by its name, in the order they are given."""


def roc(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> dict[str, list[float]]:
    """Return at most 200 points ``fpr``, ``tpr`` of the curve, from (0, 0) to (1, 1).

    Every point is a corner of the curve. Where there are more than 200, those are kept that lie evenly along it.
    """
    fpr, tpr = _rates(in_scores, out_scores)
    corner = np.ones(len(fpr), dtype=bool)
    # In whole numbers of images, which tell a corner from rounding.
    right, up = (np.diff((rate * len(s)).round()) for rate, s in ((fpr, out_scores), (tpr, in_scores)))
    corner[1:-1] = right[:-1] * up[1:] != right[1:] * up[:-1]
    fpr, tpr = fpr[corner], tpr[corner]
    if len(fpr) > POINTS:
        kept = np.searchsorted(fpr + tpr, np.linspace(0, 2, POINTS)).clip(max=len(fpr) - 1)
        fpr, tpr = fpr[np.unique(kept)], tpr[np.unique(kept)]
    return {"fpr": _rounded(fpr), "tpr": _rounded(tpr)}


def histograms(in_scores: Float64[Tensor, " n"], out_scores: Float64[Tensor, " m"]) -> dict[str, list[float]]:
    """Return the ``edges`` of 50 bins of equal width, and which fractions of the scores lie in each.

    The bins reach from the smaller 0.5 % quantile of the two sets to the larger 99.5 % quantile; what lies beyond
    counts in the first or last bin, so that the fractions ``in`` sum to 1, and so do those ``out``.
    """
    inside, outside = in_scores.numpy(), out_scores.numpy()
    share = np.array([_TAIL, 1 - _TAIL])
    ends = np.array([np.sort(s)[(share * (len(s) - 1)).round().astype(int)] for s in (inside, outside)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = [np.bincount(np.digitize(s, edges[1:-1]), minlength=BINS) / len(s) for s in (inside, outside)]
    return {"edges": _rounded(edges, _EDGE_DIGITS), "in": _rounded(shares[0]), "out": _rounded(shares[1])}


def _rates(in_scores: Tensor, out_scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return FPR and TPR at every score that occurs, after the point (0, 0) where no image is taken in."""
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(*_known(in_scores, out_scores), drop_intermediate=False)
    return fpr, tpr


def _known(in_scores: Tensor, out_scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return which of all images are in the distribution, and their scores."""
    for name, scores in (("in_scores", in_scores), ("out_scores", out_scores)):
        if scores.ndim != 1 or len(scores) == 0:
            raise ValueError(f"{name} must be a vector of at least one score, got shape {tuple(scores.shape)}")
        if not scores.isfinite().all():
            raise ValueError(f"{name} must be finite, got {int((~scores.isfinite()).sum())} NaN or infinite of them")
    both = torch.cat([scores.detach().cpu().double() for scores in (in_scores, out_scores)])
    return np.arange(len(both)) < len(in_scores), both.numpy()


def _rounded(values: np.ndarray, digits: int = _DIGITS) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
