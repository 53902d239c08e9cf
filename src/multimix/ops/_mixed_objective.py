"""The loss of interpolated predictions for every objective, and for examples of which parts are missing.

What :mod:`multimix.ops._loss` does for cross-entropy on whole mini-batches, left to autograd: interpolated outputs
(..., n, k) are formed, interpolated embeddings still are not.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from multimix.ops._attention import reweight
from multimix.ops._balance import balance_gradient, gain_from, shares_of
from multimix.ops._checks import accurate, check_logits, check_same_device, check_weights, no_autocast, rows_of
from multimix.ops._lazy import LazyWeights
from multimix.ops._loss import MixedLosses
from multimix.ops._objectives import CrossEntropy, Objective, check_fit


def mixed_objective(
    outputs: Float[Tensor, "b k"] | Float[Tensor, "b r k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"] | Float[Tensor, "r n b"] | LazyWeights,
    objective: Objective,
    *,
    attention: Float[Tensor, "b r"] | None = None,
    mask: Bool[Tensor, "b r"] | None = None,
    teacher_outputs: Tensor | None = None,
    gamma: float = 1.0,
    balanced: bool | float = False,
) -> MixedLosses:
    r"""Return the mean loss of interpolated outputs against targets that are interpolated alike, with its terms.

    Equals ``objective(head(weights @ embeddings), weights @ targets)`` for any affine ``head`` and ``outputs =
    head(embeddings)``, and with attention the mean of that over positions, each with weights by
    :func:`multimix.ops.reweight`. At a position an example counts only where the mask has it and its target there is
    known; a tuple that holds no example that counts is left out of the mean.

    Args:
        outputs: Predictions for the clean mini-batch, (b, k), or at every position, (b, r, k).
        targets: Of the examples or, with outputs at every position, of each position; what forms they may have is the
            objective's affair.
        weights: Interpolation weights, as :func:`multimix.ops.dense_mixed_cross_entropy` takes them.
        objective: What outputs are compared with targets by.
        attention: Of each example over its positions; uniform by default where there are positions.
        mask: Which positions an example has; all by default.
        teacher_outputs: A teacher's outputs for its view of the mini-batch; they receive no gradient.
        gamma: Weight of the targets against the teacher.
        balanced: As in :func:`multimix.ops.mixed_cross_entropy`.

    Raises:
        ValueError: If shapes do not fit or an option is out of range.
        TypeError: If outputs or weights are not floating-point.
    """
    dense = outputs.ndim == 3
    check_logits(outputs, 3 if dense else 2, "outputs")
    rows = weights.all() if isinstance(weights, LazyWeights) else weights
    _check(outputs, rows, attention, mask, teacher_outputs, gamma=gamma, balanced=float(balanced))
    outputs = accurate(outputs)
    rows = rows.to(outputs.dtype)
    if not dense and isinstance(objective, CrossEntropy):
        targets = rows_of(targets, outputs.shape[-1])
    wanted = objective.targets(targets, outputs.shape[-1], dtype=outputs.dtype)
    check_fit(targets, wanted, outputs)
    with no_autocast(outputs.device.type):
        centre = None
        if dense:
            counts = _counting(outputs, objective.known(wanted), mask)
            confidence = counts if attention is None else attention.to(outputs.dtype)
            rows = reweight(rows, confidence, counting=counts)
            centre = shares_of(confidence * counts)
            outputs, wanted = outputs.transpose(0, 1), wanted.transpose(0, 1) if wanted.ndim == 3 else wanted
            teacher_outputs = None if teacher_outputs is None else teacher_outputs.transpose(0, 1)
        present = (rows.detach().sum(-1) > 0).to(outputs.dtype)
        if balanced:
            gain = _gain(rows, present, centre) ** float(balanced)
            outputs = balance_gradient(outputs, gain, centre)
        mixed = rows @ outputs
        labels = objective(mixed, rows @ wanted, present)
        if teacher_outputs is None:
            return MixedLosses(labels, labels.detach(), None)
        told = objective.predictions(rows @ teacher_outputs.detach().to(outputs.dtype))
        taught = objective(mixed, told, present)
    return MixedLosses(gamma * labels + (1 - gamma) * taught, labels.detach(), taught.detach())


def _counting(outputs: Tensor, known: Tensor | None, mask: Tensor | None) -> Tensor:
    """Return 1 where an example counts at a position, else 0, (b, r)."""
    counts = outputs.new_ones(outputs.shape[:2]) if mask is None else mask.to(outputs.dtype)
    return counts if known is None else counts * known.view(len(known), -1)


def _gain(rows: Tensor, present: Tensor, centre: Tensor | None) -> Tensor:
    """Return the gain that restores the gradient of the tuples that count."""
    middle = 1 / rows.shape[-1] if centre is None else centre.unsqueeze(-2)
    with torch.no_grad():
        spread = (rows - middle).square().sum(-1) * present
        return gain_from(spread.sum(-1) / present.sum(-1).clamp_min(1))


def _check(
    outputs: Tensor,
    weights: Tensor,
    attention: Tensor | None,
    mask: Tensor | None,
    teacher: Tensor | None,
    *,
    gamma: float,
    balanced: float,
) -> None:
    check_same_device(outputs=outputs, weights=weights, attention=attention, mask=mask, teacher_outputs=teacher)
    check_weights(weights, len(outputs))
    for name, given in (("attention", attention), ("mask", mask)):
        if given is not None and given.shape != outputs.shape[:2]:
            raise ValueError(
                f"{name} must have one value a position, {tuple(outputs.shape[:2])}, got {tuple(given.shape)}"
            )
    if outputs.ndim == 2 and (weights.ndim != 2 or attention is not None or mask is not None):
        raise ValueError("outputs must have shape (b, r, k) where weights, attention or mask have positions")
    if teacher is not None and teacher.shape != outputs.shape:
        raise ValueError(f"teacher_outputs must have shape {tuple(outputs.shape)}, got {tuple(teacher.shape)}")
    for name, value in (("gamma", gamma), ("balanced", balanced)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")
