r"""Cross-entropy of interpolated predictions, exact without forming a single interpolated embedding.

Rows of the weights sum to 1 and the classifier is affine, so interpolating and classifying commute,
``head(W @ Z) == W @ head(Z)``: the losses here are functions of the clean logits. For logits :math:`L` (b, k), targets
:math:`Y`, weights :math:`W` (n, b) and teacher logits :math:`L'`,

.. math:: \ell = \frac1n \sum_n \mathrm{lse}(W L)_n - \langle A, L\rangle, \qquad
   A = \gamma\, \tfrac1n W^\top W Y + (1 - \gamma)\, \tfrac1n W^\top \mathrm{softmax}(W L')

and the interpolated targets, n x k numbers, are not needed either. The dense form is the same at every position.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from multimix.ops._attention import reweight
from multimix.ops._checks import (
    accurate,
    as_probabilities,
    check_logits,
    check_same_device,
    check_targets,
    check_weights,
)

Impl = Literal["auto", "plain", "commuted"]


class MixedLosses(NamedTuple):
    """A mixed loss and the two terms it is made of."""

    total: Tensor
    """``gamma * labels + (1 - gamma) * teacher``, or ``labels`` alone without a teacher."""
    labels: Tensor
    """Cross-entropy against the interpolated targets."""
    teacher: Tensor | None
    """Cross-entropy against the teacher's predictions on its own interpolated embeddings."""


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


def mixed_cross_entropy(
    logits: Float[Tensor, "b k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"],
    *,
    teacher_logits: Float[Tensor, "b k"] | None = None,
    gamma: float = 1.0,
    balanced: bool = False,
    impl: Impl = "auto",
) -> Float[Tensor, ""]:
    r"""Return the mean cross-entropy of interpolated predictions against interpolated targets.

    Equals ``soft_cross_entropy(head(weights @ embeddings), weights @ targets)`` for any affine ``head`` and
    ``logits = head(embeddings)``. With a teacher, ``gamma`` times that plus ``1 - gamma`` times
    ``soft_cross_entropy(head(weights @ embeddings), softmax(weights @ teacher_logits))``.

    Args:
        logits: Predictions for the clean mini-batch, before softmax. Half precision is computed in float32.
        targets: Class indices (b,) or class probabilities (b, k).
        weights: Interpolation weights, each row on the simplex, as drawn by :func:`dirichlet`.
        teacher_logits: The teacher's predictions for its view of the same mini-batch; it receives no gradient.
        gamma: Weight of the labels against the teacher; without a teacher it has no effect.
        balanced: Rescale the batch-centred part of the gradient on ``logits`` to the size it has in plain training, by
            :func:`balance_gain`. The value of the loss does not change.
        impl: ``plain`` forms the interpolated logits and targets and leaves the rest to autograd; ``commuted`` never
            forms the targets; ``auto`` takes ``commuted`` unless weights or targets need a gradient.

    Raises:
        ValueError: If shapes do not fit, weights leave the simplex, labels are out of range, tensors lie on different
            devices or an option is unknown.
        TypeError: If logits or weights are not floating-point.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> weights = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> mixed_cross_entropy(logits, torch.tensor([0, 1]), weights)
        tensor(0.4100)

    Reference:
        Venkataramanan et al., "Teach me how to interpolate a myriad of embeddings", equations (6) to (9).
    """
    check_logits(logits, 2)
    return mixed_losses(
        logits, targets, weights, teacher_logits=teacher_logits, gamma=gamma, balanced=balanced, impl=impl
    ).total


def dense_mixed_cross_entropy(
    logits: Float[Tensor, "b r k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"] | Float[Tensor, "r n b"],
    attention: Float[Tensor, "b r"],
    *,
    teacher_logits: Float[Tensor, "b r k"] | None = None,
    gamma: float = 1.0,
    balanced: bool = False,
    impl: Impl = "auto",
) -> Float[Tensor, ""]:
    r"""Return the mixed cross-entropy at every position, weighted by attention, averaged over positions.

    Equals ``mean_j mixed_cross_entropy(logits[:, j], targets, reweight(weights, attention)[j], ...)``: labels are
    inherited from the image, attention acts as confidence in them. The teacher is interpolated with the student's
    weights.

    Args:
        logits: Predictions at every position of the clean mini-batch, before softmax.
        targets: Class indices (b,) or class probabilities (b, k), of the whole image.
        weights: Interpolation weights, one set for all positions (n, b) or one a position (r, n, b).
        attention: Of each image over its positions, as returned by :func:`attention`.
        teacher_logits: As in :func:`mixed_cross_entropy`, at every position.
        gamma: As in :func:`mixed_cross_entropy`.
        balanced: As in :func:`mixed_cross_entropy`, with the gain of each position's own weights.
        impl: As in :func:`mixed_cross_entropy`.

    Raises:
        ValueError: As :func:`mixed_cross_entropy`, and if ``attention`` is negative or of another shape.
        TypeError: As :func:`mixed_cross_entropy`.

    Reference:
        Venkataramanan et al., "Embedding space interpolation beyond mini-batch, beyond pairs and beyond examples",
        equations (9) to (14).
    """
    check_logits(logits, 3)
    _check_attention(attention, logits)
    return mixed_losses(
        logits,
        targets,
        weights,
        attention=attention,
        teacher_logits=teacher_logits,
        gamma=gamma,
        balanced=balanced,
        impl=impl,
    ).total


def mixed_losses(
    logits: Float[Tensor, "b k"] | Float[Tensor, "b r k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"] | Float[Tensor, "r n b"],
    *,
    attention: Float[Tensor, "b r"] | None = None,
    teacher_logits: Tensor | None = None,
    gamma: float = 1.0,
    balanced: bool = False,
    impl: Impl = "auto",
) -> MixedLosses:
    """Return a mixed loss with its terms: with attention that of :func:`dense_mixed_cross_entropy`, else the other."""
    _check(logits, targets, weights, attention, teacher_logits, gamma=gamma)
    with torch.autocast(logits.device.type, enabled=False):  # which would take these products in half precision
        return _mixed_losses(
            logits, targets, weights, attention, teacher_logits, gamma=gamma, balanced=balanced, impl=impl
        )


def _mixed_losses(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    attention: Tensor | None,
    teacher_logits: Tensor | None,
    *,
    gamma: float,
    balanced: bool,
    impl: Impl,
) -> MixedLosses:
    logits, teacher = _by_position(logits), None if teacher_logits is None else _by_position(teacher_logits.detach())
    weights = weights.to(logits.dtype)
    if attention is not None:
        weights = reweight(weights, attention.to(logits.dtype))
    if balanced:
        logits = balance_gradient(logits, balance_gain(weights))
    labels, taught = _implementation(impl, targets, weights)(logits, targets, weights, teacher)
    if taught is None:
        return MixedLosses(labels, labels.detach(), None)
    return MixedLosses(gamma * labels + (1 - gamma) * taught, labels.detach(), taught.detach())


def balance_gain(weights: Float[Tensor, "*r n b"]) -> Float[Tensor, "*r"]:
    r"""Return by how much interpolation with ``weights`` shrinks the batch-centred gradient on the clean logits.

    :math:`1 / (b\, \overline{(w - 1/b)^2})`, about :math:`b \alpha + 1` for a symmetric Dirichlet distribution; 1 where
    all weights are equal and there is nothing to rescale. One number for each position.
    """
    with torch.no_grad():
        b = weights.shape[-1]
        shrinkage = b * (weights - 1 / b).square().mean((-2, -1))
        return torch.where(shrinkage > 1e-12, 1 / shrinkage.clamp_min(1e-12), 1)


def balance_gradient(values: Float[Tensor, "*r b d"], gain: Float[Tensor, "*r"]) -> Float[Tensor, "*r b d"]:
    """Return ``values`` as they are; on the way back ``gain`` multiplies the batch-centred part of the gradient."""
    return _Balance.apply(values, gain)


class _Balance(Function):
    """Identity whose gradient is ``gain * (g - mean g) + mean g`` over the batch."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gain: Tensor) -> Tensor:
        ctx.save_for_backward(gain)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gain,), gradient = ctx.saved_tensors, accurate(gradients[0])  # the gain would multiply the rounding too
        mean = gradient.mean(-2, keepdim=True)
        balanced = torch.lerp(mean.expand_as(gradient), gradient, gain[..., None, None].to(gradient.dtype))
        return balanced.to(gradients[0].dtype), None


def _plain(logits: Tensor, targets: Tensor, weights: Tensor, teacher: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The equations as they stand."""
    mixed = weights @ logits
    labels = soft_cross_entropy(mixed, weights @ as_probabilities(targets, logits.shape[-1], dtype=logits.dtype))
    return labels, None if teacher is None else soft_cross_entropy(mixed, (weights @ teacher).softmax(-1))


def _commuted(logits: Tensor, targets: Tensor, weights: Tensor, teacher: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The same without interpolated targets: they enter through their inner product with the clean logits."""
    # Softmax ignores a shift of each clean row, since weights sum to 1; without it, large logits would cost digits
    # below.
    logits = logits - logits.detach().amax(-1, keepdim=True)
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


def _implementation(impl: str, targets: Tensor, weights: Tensor) -> Any:
    if impl not in ("auto", "plain", "commuted"):
        raise ValueError(f"impl must be 'auto', 'plain' or 'commuted', got {impl!r}")
    learned = [name for name, t in (("targets", targets), ("weights", weights)) if t.requires_grad]
    if impl == "commuted" and learned:
        raise ValueError(f"impl='commuted' gives no gradient to {' and '.join(learned)}; use impl='plain' or detach")
    return _plain if impl == "plain" or learned else _commuted


def _check(
    logits: Tensor, targets: Tensor, weights: Tensor, attention: Tensor | None, teacher: Tensor | None, *, gamma: float
) -> None:
    check_logits(logits, 2 if attention is None else 3)
    check_same_device(logits=logits, targets=targets, weights=weights, attention=attention, teacher_logits=teacher)
    check_targets(targets, logits.shape[-1], batch=len(logits))
    if weights.ndim != 2 and (attention is None or weights.ndim != 3):
        raise ValueError(
            f"weights must have shape (n, b){'' if attention is None else ' or (r, n, b)'}, got {tuple(weights.shape)}"
        )
    check_weights(weights, len(logits))
    if teacher is not None and teacher.shape != logits.shape:
        raise ValueError(
            f"teacher_logits must have the shape of logits, {tuple(logits.shape)}, got {tuple(teacher.shape)}"
        )
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}")


def _check_attention(attention: Tensor, logits: Tensor) -> None:
    if attention.shape != logits.shape[:2]:
        raise ValueError(f"attention must have shape {tuple(logits.shape[:2])}, got {tuple(attention.shape)}")
    if attention.device.type == "cpu" and not attention.amin() >= 0:
        raise ValueError(f"attention must not be negative or NaN, got {float(attention.amin()):.4g}")


def _by_position(logits: Tensor) -> Tensor:
    """Return logits in full precision with the batch next to last: (b, k) as it is, (b, r, k) as (r, b, k)."""
    return accurate(logits if logits.ndim == 2 else logits.transpose(0, 1))
