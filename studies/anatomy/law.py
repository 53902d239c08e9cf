"""What theory says of the MultiMix gradient on the clean logits, and the numbers that gradients are compared by."""

import math

from jaxtyping import Float
from torch import Tensor

from multimix.ops import as_probabilities, check_concentration


def shrinkage(alpha: float | tuple[float, float], m: int) -> float:
    r"""Return :math:`1 / (m \alpha + 1)`, for a range its mean over the range.

    Args:
        alpha: Concentration of the symmetric Dirichlet distribution, or the range that each tuple draws its own from.
        m: Examples of the mini-batch.

    Raises:
        ValueError: If ``alpha`` is not positive or not a range, or ``m`` is below 1.

    Source:
        docs/maths.md, "The law of the gradient".
    """
    check_concentration("alpha", alpha)
    if m < 1:
        raise ValueError(f"m must be at least 1, got {m}")
    if not isinstance(alpha, tuple):
        return 1 / (m * alpha + 1)
    low, high = alpha
    if low == high:
        return 1 / (m * low + 1)
    return math.log((m * high + 1) / (m * low + 1)) / (m * (high - low))


def plain_gradient(logits: Float[Tensor, "b k"], targets: Tensor) -> Float[Tensor, "b k"]:
    """Return the gradient of plain training on the logits, softmax error / b.

    Args:
        logits: Of the clean mini-batch.
        targets: Class indices (b,) or probabilities (b, k).
    """
    return (logits.softmax(-1) - as_probabilities(targets, logits.shape[-1], dtype=logits.dtype)) / len(logits)


def centred(values: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Return what each example differs by from the mean of the mini-batch."""
    return values - values.mean(0)


def law_gradient(plain: Float[Tensor, "b k"], shrink: float) -> Float[Tensor, "b k"]:
    """Return the MultiMix gradient that the law predicts: the centred part shrunk, the mean part as it is.

    Args:
        plain: Gradient of plain training, by :func:`plain_gradient`.
        shrink: By :func:`shrinkage`.

    Source:
        docs/maths.md, "The law of the gradient".
    """
    return shrink * centred(plain) + plain.mean(0)


def quadratic_gradient(logits: Float[Tensor, "b k"], targets: Tensor, shrink: float) -> Float[Tensor, "b k"]:
    r"""Return the MultiMix gradient of the loss expanded to second order around the mean logit of the mini-batch.

    With :math:`p = \mathrm{softmax}(\bar l)` and :math:`K = \mathrm{diag}(p) - p p^\top`, row i is
    :math:`(p - \bar y + s (K l^\circ_i - y^\circ_i)) / b`, since the covariance of the weights is
    :math:`s (I/b - 1 1^\top / b^2)`. It is exact to first order in the centred logits.

    Args:
        logits: Of the clean mini-batch.
        targets: Class indices (b,) or probabilities (b, k).
        shrink: s, by :func:`shrinkage`.

    Source:
        docs/maths.md, "The second-order view".
    """
    labels = as_probabilities(targets, logits.shape[-1], dtype=logits.dtype)
    p, own = logits.mean(0).softmax(-1), centred(logits)
    curved = own * p - (own @ p).unsqueeze(1) * p
    return (p - labels.mean(0) + shrink * (curved - centred(labels))) / len(logits)


def norm_ratio(gradient: Tensor, reference: Tensor) -> float:
    """Return the norm of a gradient over that of another of the same shape; NaN or infinity where that vanishes."""
    return float(gradient.double().norm() / reference.double().norm())


def cosine(gradient: Tensor, reference: Tensor) -> float:
    """Return the cosine between two gradients of the same shape; NaN where one vanishes."""
    a, b = gradient.double().flatten(), reference.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def relative_error(prediction: Tensor, one: Tensor, other: Tensor) -> float:
    r"""Return how far a prediction is from an expected gradient, relative to it, free of the noise of sampling.

    With two independent estimates g and h of the expected gradient,
    :math:`\langle p - g, p - h \rangle / \langle g, h \rangle` is what the squared error is expected to be, while that
    to either estimate has its variance on top. Less than none, as chance may have it, counts as none.

    Args:
        prediction: p.
        one: g, of the same shape.
        other: h, drawn independently.
    """
    p, g, h = (each.double() for each in (prediction, one, other))
    return math.sqrt(max(0.0, float(((p - g) * (p - h)).sum() / (g * h).sum())))


def expected_cosine(prediction: Tensor, one: Tensor, other: Tensor) -> float:
    r"""Return the cosine between a prediction and an expected gradient of which there are two estimates.

    The norm of the expected gradient is the root of :math:`\langle g, h \rangle`; NaN where chance makes that negative.

    Args:
        prediction: p.
        one: g, of the same shape.
        other: h, drawn independently.
    """
    p, g, h = (each.double() for each in (prediction, one, other))
    square = float((g * h).sum())
    if square <= 0:
        return math.nan
    return float((p * (g + h)).sum() / (2 * p.norm() * math.sqrt(square)))


def relative_variance(draws: Float[Tensor, "r p"], expected: Float[Tensor, " p"]) -> float:
    """Return the total variance of independent gradients over the squared norm of the expected one.

    Args:
        draws: At least two gradients, a row each; their variance is taken around their own mean, with r - 1 below.
        expected: What they vary around, from many more tuples.

    Raises:
        ValueError: If there are fewer than two draws.
    """
    if len(draws) < 2:
        raise ValueError(f"draws must be at least two for a variance, got {len(draws)}")
    return float(draws.double().var(0).sum() / expected.double().square().sum())
