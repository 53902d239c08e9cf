"""Convex combinations of whatever lies in a mini-batch."""

from jaxtyping import Float
from torch import Tensor

from multimix.ops._checks import check_weights


def interpolate(weights: Float[Tensor, "n m"], values: Float[Tensor, "m *rest"]) -> Float[Tensor, "n *rest"]:
    """Return n convex combinations of m embeddings, images, targets or anything else.

    Equals ``torch.stack([sum(w[i] * values[i] for i in range(m)) for w in weights])``: equations (6) and (7) of the
    paper, with examples as rows.

    Raises:
        ValueError: If the weights do not have one column a value, are negative, or have rows that do not sum to 1.
        TypeError: If the weights or the values are not floating-point.
    """
    if weights.ndim != 2:
        raise ValueError(f"weights must have shape (n, m), got {tuple(weights.shape)}")
    check_weights(weights, len(values))
    if not values.is_floating_point():  # of which the product would be cut to integers, mostly 0
        raise TypeError(f"values must be floating-point, got {values.dtype}")
    mixed = weights.to(values.dtype) @ values.reshape(len(values), -1)
    return mixed.reshape(len(weights), *values.shape[1:])


def interpolate_positions(weights: Float[Tensor, "r n b"], values: Float[Tensor, "b r d"]) -> Float[Tensor, "r n d"]:
    """Return n convex combinations at every position, each position with its own weights (equation (12))."""
    check_weights(weights, len(values))
    return weights.to(values.dtype) @ values.transpose(0, 1)
