r"""Cross-entropy of interpolated predictions, exact without forming a single interpolated embedding.

Rows of the weights sum to 1 and the classifier is affine, so interpolating and classifying commute,
``head(W @ Z) == W @ head(Z)``: the losses here are functions of the clean logits. For logits :math:`L` (b, k), targets
:math:`Y`, weights :math:`W` (n, b) and teacher logits :math:`L'`,

.. math:: \ell = \frac1n \sum_n \mathrm{lse}(W L)_n - \langle A, L\rangle, \qquad
   A = \gamma\, \tfrac1n W^\top W Y + (1 - \gamma)\, \tfrac1n W^\top \mathrm{softmax}(W L')

and the interpolated targets, n x k numbers, are not needed either. The dense form is the same at every position.
``_forms`` leaves this to autograd, ``_fused`` sums value and gradient up in one pass.
"""

from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from multimix.ops._attention import reweight
from multimix.ops._balance import balance_gain, balance_gradient, shares_of
from multimix.ops._checks import (
    accurate,
    check_class_indices,
    check_logits,
    check_same_device,
    check_target_form,
    check_weights,
    looks_are_free,
    no_autocast,
    rows_of,
)
from multimix.ops._forms import commuted, plain
from multimix.ops._fused import Problem, fused_losses
from multimix.ops._lazy import LazyWeights

Impl = Literal["auto", "plain", "commuted", "fused"]
IMPLS = ("auto", "plain", "commuted", "fused")

_SMALL = 2**17
"""Numbers of interpolated logits, or of weights, below which a problem counts as small, by `multimix bench ops`."""


class MixedLosses(NamedTuple):
    """A mixed loss and the two terms it is made of."""

    total: Tensor
    """``gamma * labels + (1 - gamma) * teacher``, or ``labels`` alone without a teacher."""
    labels: Tensor
    """Cross-entropy against the interpolated targets."""
    teacher: Tensor | None
    """Cross-entropy against the teacher's predictions on its own interpolated embeddings."""


def mixed_cross_entropy(
    logits: Float[Tensor, "b k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"] | LazyWeights,
    *,
    teacher_logits: Float[Tensor, "b k"] | None = None,
    gamma: float = 1.0,
    balanced: bool | float = False,
    impl: Impl = "auto",
    chunk: int | None = None,
) -> Float[Tensor, ""]:
    r"""Return the mean cross-entropy of interpolated predictions against interpolated targets.

    Equals ``soft_cross_entropy(head(weights @ embeddings), weights @ targets)`` for any affine ``head`` and
    ``logits = head(embeddings)``. With a teacher, ``gamma`` times that plus ``1 - gamma`` times
    ``soft_cross_entropy(head(weights @ embeddings), softmax(weights @ teacher_logits))``.

    Args:
        logits: Predictions for the clean mini-batch, before softmax. Half precision is computed in float32.
        targets: Class indices (b,) or class probabilities (b, k).
        weights: Interpolation weights, each row on the simplex, as drawn by :func:`dirichlet`; or how to draw them,
            for more tuples than fit into memory.
        teacher_logits: The teacher's predictions for its view of the same mini-batch; it receives no gradient.
        gamma: Weight of the labels against the teacher; without a teacher it has no effect.
        balanced: Rescale the batch-centred part of the gradient on ``logits`` to the size it has in plain training, by
            :func:`balance_gain`; a number in [0, 1] is the power of that gain, True being 1. The value of the loss does
            not change.
        impl: ``plain`` forms the interpolated logits and targets and leaves the rest to autograd; ``commuted`` never
            forms the targets; ``fused`` sums the gradient up while it computes the loss, in memory that does not grow
            with n. ``auto`` takes ``fused``, but ``plain`` where weights or targets need a gradient or the problem is
            so small that nothing is gained, and ``commuted`` inside ``torch.compile``.
        chunk: Tuples that ``fused`` computes at a time; by default as many as suit the device.

    Raises:
        ValueError: If shapes do not fit, weights leave the simplex, labels are out of range, tensors lie on different
            devices, an option is unknown or ``impl`` cannot give a gradient that is asked for.
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
        logits,
        targets,
        weights,
        teacher_logits=teacher_logits,
        gamma=gamma,
        balanced=balanced,
        impl=impl,
        chunk=chunk,
    ).total


def dense_mixed_cross_entropy(
    logits: Float[Tensor, "b r k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"] | Float[Tensor, "r n b"] | LazyWeights,
    attention: Float[Tensor, "b r"],
    *,
    teacher_logits: Float[Tensor, "b r k"] | None = None,
    gamma: float = 1.0,
    balanced: bool | float = False,
    impl: Impl = "auto",
    chunk: int | None = None,
) -> Float[Tensor, ""]:
    r"""Return the mixed cross-entropy at every position, weighted by attention, averaged over positions.

    Equals ``mean_j mixed_cross_entropy(logits[:, j], targets, reweight(weights, attention)[j], ...)``: labels are
    inherited from the image, attention acts as confidence in them. The teacher is interpolated with the student's
    weights.

    Args:
        logits: Predictions at every position of the clean mini-batch, before softmax.
        targets: Class indices (b,) or class probabilities (b, k), of the whole image.
        weights: Interpolation weights, one set for all positions (n, b) or one a position (r, n, b), or how to draw
            them.
        attention: Of each image over its positions, as returned by :func:`attention`.
        teacher_logits: As in :func:`mixed_cross_entropy`, at every position.
        gamma: As in :func:`mixed_cross_entropy`.
        balanced: As in :func:`mixed_cross_entropy`, with the gain of each position's own weights about each image's
            share of the attention there: what all tuples of a position have in common is left as it is.
        impl: As in :func:`mixed_cross_entropy`, a gradient on the attention being one on the weights.
        chunk: As in :func:`mixed_cross_entropy`, at each position.

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
        chunk=chunk,
    ).total


def mixed_losses(
    logits: Float[Tensor, "b k"] | Float[Tensor, "b r k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"] | Float[Tensor, "r n b"] | LazyWeights,
    *,
    attention: Float[Tensor, "b r"] | None = None,
    teacher_logits: Tensor | None = None,
    gamma: float = 1.0,
    balanced: bool | float = False,
    impl: Impl = "auto",
    chunk: int | None = None,
) -> MixedLosses:
    """Return a mixed loss with its terms: with attention that of :func:`dense_mixed_cross_entropy`, else the other."""
    check_logits(logits, 2 if attention is None else 3)
    targets = rows_of(targets, logits.shape[-1])
    _check(logits, targets, weights, attention, teacher_logits, gamma=gamma, balanced=balanced, chunk=chunk)
    form = _form(impl, logits, targets=targets, weights=weights, attention=attention)
    # in full precision with the batch next to last: (b, k) as it is, (b, r, k) as (r, b, k)
    logits = accurate(logits if attention is None else logits.transpose(0, 1))
    if teacher_logits is not None:
        teacher_logits = teacher_logits.detach().to(logits.dtype)
        teacher_logits = teacher_logits if attention is None else teacher_logits.transpose(0, 1)
    if not targets.is_floating_point():
        targets = targets.long()
    attention = None if attention is None else attention.to(logits.dtype)
    problem = Problem(targets, weights, attention, teacher_logits, gamma, float(balanced), chunk)
    compute = _fused if form == "fused" else _unfused
    try:
        with no_autocast(logits.device.type):  # which would take these products in half precision
            return MixedLosses(*compute(logits, problem, form))
    except (IndexError, RuntimeError):
        check_class_indices(targets, logits.shape[-1])  # only now: looking first would cost every step
        raise


def _fused(logits: Tensor, problem: Problem, form: str) -> tuple[Tensor, Tensor, Tensor | None]:
    return fused_losses(logits, problem, lambda free: _again(free, problem))


def _again(logits: Tensor, problem: Problem) -> Tensor:
    """Return the total by a form that can be differentiated twice."""
    if isinstance(problem.weights, LazyWeights):
        raise RuntimeError("impl='fused' has no second derivative for weights that are gone; use impl='commuted'")
    return _unfused(logits, problem, "commuted")[0]


def _unfused(logits: Tensor, problem: Problem, form: str) -> tuple[Tensor, Tensor, Tensor | None]:
    weights = problem.weights.all() if isinstance(problem.weights, LazyWeights) else problem.weights
    weights = weights.to(logits.dtype)
    if problem.attention is not None:
        weights = reweight(weights, problem.attention)
    if problem.balanced:
        centre = shares_of(problem.attention)
        logits = balance_gradient(logits, balance_gain(weights, problem.balanced, centre), centre)
    # Softmax ignores a shift of each clean row, since weights sum to 1; without it, large logits would cost digits.
    logits = logits - logits.detach().amax(-1, keepdim=True)
    compute = plain if form == "plain" else commuted
    labels, taught = compute(logits, problem.targets, weights, problem.teacher)
    if taught is None:
        return labels, labels.detach(), None
    return problem.gamma * labels + (1 - problem.gamma) * taught, labels.detach(), taught.detach()


def _form(impl: str, logits: Tensor, **given: Tensor | LazyWeights | None) -> str:
    """Return the form to take, given what might need a gradient beside the logits."""
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {', '.join(IMPLS)}, got {impl!r}")
    learned = [name for name, t in given.items() if isinstance(t, Tensor) and t.requires_grad]
    if impl == "auto":
        if learned:
            return "plain"
        if torch.compiler.is_compiling():
            return "commuted"
        return "plain" if _is_small(logits, given["weights"]) else "fused"
    if impl != "plain" and learned:
        raise ValueError(f"impl={impl!r} gives no gradient to {' and '.join(learned)}; use impl='plain' or detach")
    return impl


def _is_small(logits: Tensor, weights: Tensor | LazyWeights | None) -> bool:
    """Return whether autograd is done sooner than the fused form, on a CPU; what larger problems cost is arithmetic."""
    n = weights.n if isinstance(weights, LazyWeights) else cast("Tensor", weights).shape[-2]
    positions = logits.shape[1] if logits.ndim == 3 else 1
    return logits.device.type == "cpu" and positions * n * max(logits.shape[0], logits.shape[-1]) < _SMALL


def _check(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | LazyWeights,
    attention: Tensor | None,
    teacher: Tensor | None,
    *,
    gamma: float,
    balanced: float,
    chunk: int | None,
) -> None:
    positions = None if attention is None else attention.shape[1]
    given = None if isinstance(weights, LazyWeights) else weights
    check_same_device(logits=logits, targets=targets, weights=given, attention=attention, teacher_logits=teacher)
    check_target_form(targets, logits.shape[-1], batch=len(logits))
    if isinstance(weights, LazyWeights):
        _check_sets(weights.sets, positions)
    else:
        _check_weights(weights, len(logits), positions)
    if teacher is not None and teacher.shape != logits.shape:
        raise ValueError(
            f"teacher_logits must have the shape of logits, {tuple(logits.shape)}, got {tuple(teacher.shape)}"
        )
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
    if not 0 <= balanced <= 1:
        raise ValueError(f"balanced must be True, False or a power in [0, 1], got {balanced}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")


def _check_sets(sets: int | None, positions: int | None) -> None:
    if sets not in (None, positions):
        raise ValueError(
            f"weights.sets must be {'None' if positions is None else f'None or the number of positions, {positions}'},"
            f" got {sets}"
        )


def _check_weights(weights: Tensor, batch: int, positions: int | None) -> None:
    if weights.ndim != 2 and not (positions is not None and weights.ndim == 3 and len(weights) == positions):
        per_position = "" if positions is None else f" or ({positions}, n, {batch})"
        raise ValueError(f"weights must have shape (n, {batch}){per_position}, got {tuple(weights.shape)}")
    check_weights(weights, batch)


def _check_attention(attention: Tensor, logits: Tensor) -> None:
    if attention.shape != logits.shape[:2]:
        raise ValueError(f"attention must have shape {tuple(logits.shape[:2])}, got {tuple(attention.shape)}")
    if looks_are_free(attention) and not attention.amin() >= 0:
        raise ValueError(f"attention must not be negative or NaN, got {float(attention.amin()):.4g}")
