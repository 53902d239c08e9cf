"""What is measured where an image may have several labels, or none."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from multimix.lab.evaluate.passes import mean


def label_metrics(logits: Float[Tensor, "n k"], labels: Float[Tensor, "n k"]) -> Iterator[tuple[str, float]]:
    """Yield mean average precision, macro F1, exact match and binary cross-entropy of logits against labels 0 and 1.

    A label counts as predicted where its probability is above 1/2. The first two are means over labels that any example
    has: of average precision, the sum of precision times gain in recall over all thresholds, and of F1. Exact match is
    the share of examples whose labels are all right; binary cross-entropy (nats) is the mean over examples and labels.

    Raises:
        ValueError: If logits and labels are not of one shape, or no example has any label.
    """
    from sklearn.metrics import average_precision_score, f1_score

    if logits.shape != labels.shape:
        raise ValueError(f"labels must be 0 or 1 for each of logits {tuple(logits.shape)}, got {tuple(labels.shape)}")
    had = labels.sum(0) > 0
    if not had.any():
        raise ValueError("labels must have an example of any label to measure average precision and F1, got none")
    scores, truth, right = logits.double(), labels > 0, (logits > 0) == (labels > 0)
    predicted, known = (values[:, had].numpy() for values in (logits > 0, truth))
    # A threshold below all finite scores for a label that is ruled out, as scikit-learn takes finite ones only.
    ranked = np.nan_to_num(scores[:, had].numpy(), neginf=np.finfo(np.float64).min)
    yield "mean_average_precision", float(np.mean(average_precision_score(known, ranked, average=None)))
    yield "macro_f1", float(np.mean(f1_score(known, predicted, average=None, zero_division=0)))
    yield "exact_match", mean(right.all(1))
    yield "bce", mean(torch.where(truth, softplus(-scores), softplus(scores)))
