"""Scores of how much an image is like those a network was trained on, and how well they tell others from these.

Scores are in float64, as float32 would round sure predictions to the same 1. TPR and FPR are the shares of the images
in the distribution and of the others whose score is at least a threshold.
"""

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Num
from torch import Tensor

from multimix._declared import Count, Fraction, Positive, check
from multimix.lab.evaluate.embedding import by_class, nearest, normalised
from multimix.lab.evaluate.passes import check_tensors, with_float64

ScoreName = Literal["msp", "max_logit", "energy", "odin", "knn", "mahalanobis"]
SCORES: tuple[ScoreName, ...] = get_args(ScoreName)
BINS = 50
POINTS = 200


def msp(logits: Float[Tensor, "b k"], temperature: float = 1.0) -> Float64[Tensor, " b"]:
    """Return the largest softmax probability of ``logits / temperature`` (Hendrycks and Gimpel, ICLR 2017)."""
    check(Positive, temperature=temperature)
    return _double(logits).div(temperature).softmax(1).amax(1)


def max_logit(logits: Float[Tensor, "b k"]) -> Float64[Tensor, " b"]:
    """Return the largest logit (Hendrycks et al., ICML 2022)."""
    return _double(logits).amax(1)


def energy(logits: Float[Tensor, "b k"], temperature: float = 1.0) -> Float64[Tensor, " b"]:
    """Return the negated free energy, ``T logsumexp(logits / T)`` (Liu et al., NeurIPS 2020, equation 4)."""
    check(Positive, temperature=temperature)
    return temperature * _double(logits).div(temperature).logsumexp(1)


def nudged(
    inputs: Float[Tensor, " b *input"],
    logits: Float[Tensor, "b k"],
    *,
    step: Float[Tensor, "*channels"] | float,
    temperature: float,
) -> Float[Tensor, " b *input"]:
    """Return inputs, leaves that require a gradient, moved to where ODIN takes msp (Liang et al., ICLR 2018, eq. 2).

    That is by ``step`` to where their predicted class is likelier, and, as in ODIN's own code, not clipped.
    """
    check(Positive, temperature=temperature)
    with torch.enable_grad():  # the caller may have switched it off
        likelihood = (logits / temperature).log_softmax(1).gather(1, logits.argmax(1, keepdim=True)).sum()
        # Times the temperature, which the sign does not see: at 1000 a half-precision gradient would vanish.
        (gradient,) = torch.autograd.grad(likelihood * temperature, inputs)
    return inputs.detach() + step * gradient.sign()


class KNN:
    """The negated exact distance to the k-th nearest training embedding, all of length 1 (Sun et al., ICML 2022)."""

    def __init__(self, embeddings: Float[Tensor, "n d"], neighbours: int = 50) -> None:
        check(Count, neighbours=neighbours)
        self._train, self._neighbours = normalised(_double(embeddings)), neighbours

    def __call__(self, embeddings: Float[Tensor, "b d"]) -> Float64[Tensor, " b"]:
        """Return the scores of embeddings, in [-2, 0]; one of length 0 is at distance 1 from all."""
        distances, _ = nearest(normalised(_double(embeddings)), self._train, self._neighbours)
        return -distances[:, -1]


class Mahalanobis:
    """The negated squared Mahalanobis distance to the nearest class mean, with one covariance for all classes.

    Lee et al., NeurIPS 2018, equations (1) and (2), on the pooled embedding alone: without input perturbation, earlier
    layers and the regression that weighs them. The covariance becomes (1 - shrinkage) of itself and ``shrinkage`` of
    the identity times its mean variance.
    """

    def __init__(
        self, embeddings: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], *, shrinkage: float = 0.0
    ) -> None:
        check(Fraction, shrinkage=shrinkage)
        values = _double(embeddings)
        self._centre = values.mean(0)
        _, means, own = by_class(values - self._centre, labels.to(values.device))
        left = values - self._centre - means[own]
        covariance = (1 - shrinkage) * (left.T @ left / len(left))
        covariance.diagonal().add_(shrinkage * left.square().mean())
        variances, directions = torch.linalg.eigh(covariance)
        kept = variances > 1e-12 * variances.amax()  # what is less is float32's rounding, and says nothing
        if not kept.any():
            raise ValueError("embeddings must vary within their classes: each equals the mean of its class")
        self.whitening = directions[:, kept] * variances[kept].rsqrt()
        self._means = means @ self.whitening

    def __call__(self, embeddings: Float[Tensor, "b d"]) -> Float64[Tensor, " b"]:
        """Return the scores of embeddings, at most 0."""
        white = (_double(embeddings) - self._centre) @ self.whitening
        return -nearest(white, self._means)[0][:, 0].square()


def _double(values: Tensor) -> Float64[Tensor, "*any"]:
    check_tensors(values=values)
    if values.ndim != 2:
        raise ValueError(f"logits and embeddings must be (b, k), got shape {tuple(values.shape)}")
    return with_float64(values.detach()).double()


def auroc(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the area under TPR over FPR: how likely an image inside scores higher than one outside, ties half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_known(in_scores, out_scores)))


def aupr_in(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the average precision (steps, not trapezoids) of finding what is in the distribution."""
    from sklearn.metrics import average_precision_score

    return min(1.0, float(average_precision_score(*_known(in_scores, out_scores))))  # sums may round to more


def aupr_out(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return :func:`aupr_in` with the two sets changed about and the scores negated; chance is m / (n + m)."""
    from sklearn.metrics import average_precision_score

    known, scores = _known(in_scores, out_scores)
    return min(1.0, float(average_precision_score(~known, -scores)))


def fpr95(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the smallest FPR among the scores, as thresholds, whose TPR is at least 0.95 (Liang et al., ICLR 2018)."""
    fpr, tpr = _rates(in_scores, out_scores)
    return float(fpr[tpr >= 0.95][0])


def detection_accuracy(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> float:
    """Return the best mean of TPR and TNR = 1 - FPR over all thresholds, which Liang et al.'s error is 1 minus."""
    fpr, tpr = _rates(in_scores, out_scores)
    return float(((tpr + 1 - fpr) / 2).max())


METRICS = {function.__name__: function for function in (auroc, aupr_in, aupr_out, fpr95, detection_accuracy)}
"""Every metric by its name, in the order they are given."""


def roc(in_scores: Num[Tensor, " n"], out_scores: Num[Tensor, " m"]) -> dict[str, list[float]]:
    """Return the corners ``fpr``, ``tpr`` of the curve, from (0, 0) to (1, 1), or 200 of them evenly along it."""
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
    """Return the ``edges`` of 50 bins of equal width, and the fractions ``in`` and ``out`` of the scores in each."""
    known, scores = _known(in_scores, out_scores)
    inside, outside = scores[known], scores[~known]
    share = np.array([0.005, 0.995])  # what lies beyond these quantiles counts in the outer bins
    ends = np.array([np.sort(s)[(share * (len(s) - 1)).round().astype(int)] for s in (inside, outside)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # edges would not differ in the digits that are kept
        low, high = (low + side * max(0.5, 0.01 * abs(low)) for side in (-1, 1))
    edges = np.linspace(low, high, BINS + 1)
    shares = [np.bincount(np.digitize(s, edges[1:-1]), minlength=BINS) / len(s) for s in (inside, outside)]
    # At ODIN's temperature scores differ in their sixth digit only.
    return {"edges": _rounded(edges, 12), "in": _rounded(shares[0]), "out": _rounded(shares[1])}


def _rates(in_scores: Tensor, out_scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return FPR and TPR at every score that occurs, after the point (0, 0)."""
    from sklearn.metrics import roc_curve

    return roc_curve(*_known(in_scores, out_scores), drop_intermediate=False)[:2]


def _known(in_scores: Tensor, out_scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return which of all images are in the distribution, and their scores."""
    for name, scores in (("in_scores", in_scores), ("out_scores", out_scores)):
        check_tensors(**{name: scores})
        if scores.ndim != 1 or len(scores) == 0:
            raise ValueError(f"{name} must be a vector of at least one score, got shape {tuple(scores.shape)}")
        if not scores.isfinite().all():
            raise ValueError(f"{name} must be finite, got {int((~scores.isfinite()).sum())} NaN or infinite of them")
    both = torch.cat([scores.detach().cpu().double() for scores in (in_scores, out_scores)])
    return np.arange(len(both)) < len(in_scores), both.numpy()


def _rounded(values: np.ndarray, digits: int = 6) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
