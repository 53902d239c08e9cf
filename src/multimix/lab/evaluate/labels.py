"""What is measured where an image may have several labels, or none."""

from collections.abc import Iterator
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from multimix.lab.evaluate.passes import check_tensors, mean


def label_metrics(logits: Float[Tensor, "n k"], labels: Float[Tensor, "n k"]) -> Iterator[tuple[str, float]]:
    """Yield mean average precision, macro F1, exact match and binary cross-entropy of logits against labels 0 and 1.

    A label counts as predicted where its probability is above 1/2. The first two are means over labels that any example
    has, and left out where no example has any: of average precision, the sum of precision times gain in recall over all
    thresholds, and of F1. Exact match is the share of examples whose labels are all right; binary cross-entropy (nats)
    is the mean over examples and labels.

    Raises:
        ValueError: If logits are NaN, or labels are not 0 or 1 for each of them.
    """
    check_tensors(logits=logits, labels=labels)
    if logits.ndim != 2 or not logits.numel() or logits.isnan().any():
        raise ValueError(f"logits must be (n, k) with n and k at least 1, and not NaN, got {tuple(logits.shape)}")
    if logits.shape != labels.shape or not ((labels == 0) | (labels == 1)).all():
        raise ValueError(f"labels must be 0 or 1 for each of logits {tuple(logits.shape)}, got {tuple(labels.shape)}")
    scores, predicted, truth = logits.detach().double(), logits > 0, labels > 0
    had = truth.any(0)
    if had.any():
        yield "mean_average_precision", fmean(value for value in label_precision(logits, labels) if value is not None)
        both, either = (predicted & truth).sum(0), predicted.sum(0) + truth.sum(0)
        yield "macro_f1", mean(2 * both[had].double() / either[had])
    yield "exact_match", mean((predicted == truth).all(1))
    yield "bce", mean(torch.where(truth, softplus(-scores), softplus(scores)))


def label_precision(logits: Float[Tensor, "n k"], labels: Float[Tensor, "n k"]) -> list[float | None]:
    """Return the average precision of each label; None of one that no example has."""
    from sklearn.metrics import average_precision_score

    # A threshold below all finite scores for a label that is ruled out, as scikit-learn takes finite ones only.
    ranked = np.nan_to_num(logits.detach().double().numpy(), neginf=np.finfo(np.float64).min)
    pairs = zip((labels > 0).numpy().T, ranked.T, strict=True)
    return [float(average_precision_score(truth, own)) if truth.any() else None for truth, own in pairs]
