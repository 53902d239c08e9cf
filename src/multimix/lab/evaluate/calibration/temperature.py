"""One number that repairs confidence: temperature scaling (Guo et al., ICML 2017, section 4.2)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["LIMIT", "fit_temperature"]

LIMIT = 100.0
"""The largest temperature looked at, and one over the smallest."""

_ROWS = 4096
_STEPS = 200
_TOLERANCE = 1e-12


def fit_temperature(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Return the temperature T in [1 / 100, 100] that minimises the likelihood loss of ``softmax(logits / T)``.

    The loss is convex in 1 / T, so that its minimum is where its slope is 0: found by Newton's method in float64, kept
    inside a shrinking bracket. Where the slope never is 0, which is so if all predictions are right (the smaller T the
    better) or no better than chance (the larger the better), the limit is returned.

    Raises:
        ValueError: If there are no examples, or not as many labels.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"logits must be (n, k) and labels (n,) with n at least 1, got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    low, high = 1 / LIMIT, LIMIT
    if _slope(logits, labels, low)[0] >= 0:
        return 1 / low
    if _slope(logits, labels, high)[0] <= 0:
        return 1 / high
    inverse = 1.0
    for _ in range(_STEPS):
        slope, curvature = _slope(logits, labels, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        last, inverse = inverse, step if low < step < high else (low * high) ** 0.5
        if abs(inverse - last) <= _TOLERANCE * last:
            break
    return 1 / inverse


def _slope(logits: Tensor, labels: Tensor, inverse: float) -> tuple[float, float]:
    """Return the first two derivatives of the mean loss by the inverse temperature.

    With p = softmax(inverse * z) they are the means of E_p[z] - z_label and Var_p[z].
    """
    slope = curvature = 0.0
    for z, label in zip(logits.split(_ROWS), labels.split(_ROWS), strict=True):
        # Logits count from the largest of their example: what is a constant to the loss would cost digits. A class
        # that is ruled out (-inf) has no say in the means.
        z = z.double()
        z = (z - z.amax(1, keepdim=True)).clamp(min=-1e30)
        p = torch.softmax(z * inverse, 1)
        mean = (p * z).sum(1)
        slope += float((mean - z.gather(1, label[:, None]).squeeze(1)).sum())
        curvature += float((p * (z - mean[:, None]).square()).sum())
    return slope / len(labels), curvature / len(labels)
