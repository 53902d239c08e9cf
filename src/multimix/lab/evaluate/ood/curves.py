"""The data of the figures: histograms of the scores and receiver operating characteristics."""

import torch
from jaxtyping import Float64
from torch import Tensor

from multimix.lab.evaluate.ood.metrics import Counts

__all__ = ["BINS", "POINTS", "histograms", "roc"]

BINS = 50
POINTS = 200
DIGITS = 6  # significant ones, in the file of the figures
EDGE_DIGITS = 12  # at ODIN's temperature scores differ in their sixth digit only
TAIL = 0.005  # of each set, at either end, may lie beyond the outer edges


def histograms(in_scores: Float64[Tensor, " n"], out_scores: Float64[Tensor, " m"]) -> dict[str, list[float]]:
    """Return the ``edges`` of 50 bins of equal width, and which fractions of the scores lie in each.

    The bins reach from the smaller 0.5 % quantile of the two sets to the larger 99.5 % quantile; what lies beyond
    counts in the first or last bin, so that the fractions ``in`` sum to 1, and so do those ``out``.
    """
    ends = torch.tensor([TAIL, 1 - TAIL], dtype=torch.float64)
    both = torch.stack([_quantiles(scores, ends) for scores in (in_scores, out_scores)])
    low, high = float(both[:, 0].min()), float(both[:, 1].max())
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    return {
        "edges": _rounded(edges, EDGE_DIGITS),
        "in": _rounded(_fractions(in_scores, edges)),
        "out": _rounded(_fractions(out_scores, edges)),
    }


def roc(taken: Counts) -> dict[str, list[float]]:
    """Return at most 200 points ``fpr``, ``tpr`` of the curve, from (0, 0) to (1, 1).

    Every point is a corner of the curve. Where there are more than 200, those are kept that lie evenly along it.
    """
    fpr, tpr = taken.rates()
    corner = torch.ones(len(fpr), dtype=torch.bool)
    right, up = (images.diff(prepend=images.new_zeros(1)) for images in (taken.outside, taken.inside))
    corner[1:-1] = right[:-1] * up[1:] != right[1:] * up[:-1]
    fpr, tpr = fpr[corner], tpr[corner]
    if len(fpr) > POINTS:
        along = torch.linspace(0, 2, POINTS, dtype=torch.float64)
        kept = torch.searchsorted(fpr + tpr, along).clamp(max=len(fpr) - 1).unique()
        fpr, tpr = fpr[kept], tpr[kept]
    return {"fpr": _rounded(fpr), "tpr": _rounded(tpr)}


def _quantiles(scores: Tensor, ends: Tensor) -> Tensor:
    """Return quantiles as scores that occur; torch.quantile refuses more than 16 million."""
    place = (ends * (len(scores) - 1)).round().long()
    return scores.sort().values[place]


def _fractions(scores: Tensor, edges: Tensor) -> Tensor:
    bins = torch.bucketize(scores, edges[1:-1], right=True)
    return torch.bincount(bins, minlength=BINS).double() / len(scores)


def _rounded(values: Tensor, digits: int = DIGITS) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
