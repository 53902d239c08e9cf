"""The mixed losses left to autograd: the equations as they stand, and the same without interpolated targets."""

import torch
from jaxtyping import Float
from torch import Tensor

from multimix.ops._checks import accurate, as_probabilities


def soft_cross_entropy(logits: Float[Tensor, "*n k"], targets: Float[Tensor, "*n k"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of logits against target probabilities (equations (1) and (8)).

    Raises:
        ValueError: If the shapes differ.
        TypeError: If the logits are not floating-point.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"targets must have the shape of logits, {tuple(logits.shape)}, got {tuple(targets.shape)}")
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating-point, got {logits.dtype}")
    logits = accurate(logits)
    return -(targets.to(logits.dtype) * logits.log_softmax(-1)).sum(-1).mean()


def plain(logits: Tensor, targets: Tensor, weights: Tensor, teacher: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The equations as they stand."""
    mixed = weights @ logits
    labels = soft_cross_entropy(mixed, weights @ as_probabilities(targets, logits.shape[-1], dtype=logits.dtype))
    return labels, None if teacher is None else soft_cross_entropy(mixed, (weights @ teacher).softmax(-1))


def commuted(logits: Tensor, targets: Tensor, weights: Tensor, teacher: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The same without interpolated targets: they enter through their inner product with the clean logits."""
    n, positions = weights.shape[-2], weights.shape[:-2].numel()
    with torch.no_grad():
        gram = weights.mT @ weights / n
        inherited = _times_targets(gram, targets, logits)
        taught = None if teacher is None else weights.mT @ (weights @ teacher).softmax(-1) / n
    mixed = (weights @ logits).logsumexp(-1).mean()
    labels = mixed - (inherited * logits).sum() / positions
    return labels, None if taught is None else mixed - (taught * logits).sum() / positions


def _times_targets(gram: Tensor, targets: Tensor, logits: Tensor) -> Tensor:
    """Return ``gram @ one_hot(targets)`` without the one-hot matrix, or ``gram @ targets`` for probabilities."""
    if targets.is_floating_point():
        return gram @ targets.to(gram.dtype)
    return torch.zeros_like(logits).index_add_(-1, targets.long(), gram)
