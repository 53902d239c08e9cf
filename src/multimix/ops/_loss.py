r"""Cross-entropy of interpolated predictions, exact without forming a single interpolated embedding.

Rows of the weights sum to 1 and the classifier is affine, so that interpolating and classifying commute. For clean
logits :math:`L` (b, k), targets :math:`Y`, weights :math:`W` (n, b) and teacher logits :math:`L'`,

.. math:: \ell = \frac1n \sum_n \mathrm{lse}(W L)_n - \langle A, L\rangle, \qquad
   A = \gamma\, \tfrac1n W^\top W Y + (1 - \gamma)\, \tfrac1n W^\top \mathrm{softmax}(W L')

at every position in the dense form. Plain cross-entropy may take one of the fast forms in ``_fused``; other objectives,
masks, label maps and heads that are not affine take ``_plain``.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from multimix.ops._attention import balance_gain, balance_gradient, weigh
from multimix.ops._checks import (
    accurate,
    check_attention,
    check_class_indices,
    check_floating,
    check_mask,
    check_shape,
    check_target_form,
    check_tensor,
    check_weights,
    no_autocast,
    rows_of,
)
from multimix.ops._fused import Fused, Weights, commuted
from multimix.ops._objectives import CrossEntropy, Rows, check_fit
from multimix.ops._options import Classifier, LossKeywords, LossOptions
from multimix.ops._simplex import LazyWeights
from multimix.protocols import Losses


def mixed_cross_entropy(
    logits: Float[Tensor, "b k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"] | LazyWeights,
    **options: Unpack[LossKeywords],
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
        **options: Those below.

    Keyword Args:
        teacher_logits (Tensor, optional): The teacher's predictions for its view of the same mini-batch; it receives no
            gradient.
        gamma (float): Weight of the labels against the teacher; without a teacher it has no effect.
        balanced (bool or float): Rescale the batch-centred part of the gradient on ``logits``, and not the loss, to the
            size it has in plain training, by :func:`balance_gain`; a number in [0, 1] is the power of that gain,
            True being 1.
        impl (str): ``plain`` leaves interpolated logits and targets to autograd; ``commuted`` never forms the targets;
            ``fused`` sums the gradient up while it computes the loss, in memory that does not grow with n. ``auto``
            takes ``fused``, but ``plain`` where weights or targets need a gradient, and ``commuted`` inside
            ``torch.compile`` and transforms of ``torch.func``.
        chunk (int, optional): Tuples that ``fused`` computes at a time; by default as many as suit the device.

    Raises:
        ValueError: If an argument has another shape or device, weights or targets leave the simplex, labels are out of
            range, or ``impl`` cannot give a gradient that is asked for.
        TypeError: If logits or weights are not floating-point, or an option is unknown.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> weights = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> mixed_cross_entropy(logits, torch.tensor([0, 1]), weights)
        tensor(0.4100)

    Reference:
        Venkataramanan et al., "Teach me how to interpolate a myriad of embeddings", equations (6) to (9).
    """
    check_shape("logits", logits, "b", "k")
    return mixed_losses(logits, targets, weights, _options(options)).total


def dense_mixed_cross_entropy(
    logits: Float[Tensor, "b r k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"] | Float[Tensor, "r n b"] | LazyWeights,
    attention: Float[Tensor, "b r"],
    **options: Unpack[LossKeywords],
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
        attention: Of each image over its positions, as returned by :func:`attention`; not negative.
        **options: As for :func:`mixed_cross_entropy`: ``teacher_logits`` at every position; ``balanced`` by the gain of
            each position's own weights about each image's share of the attention there, so that what all tuples of a
            position have in common is left as it is; a gradient on the attention is one on the weights.

    Raises:
        ValueError, TypeError: As :func:`mixed_cross_entropy`.

    Reference:
        Venkataramanan et al., "Embedding space interpolation beyond mini-batch, beyond pairs and beyond examples",
        equations (9) to (14).
    """
    check_shape("logits", logits, "b", "r", "k")
    check_tensor("attention", attention)
    targets = rows_of(targets, logits.shape[-1])
    return mixed_losses(logits, targets, weights, _options(options, attention=attention)).total


def mixed_losses(
    values: Float[Tensor, "b k"] | Float[Tensor, "b r k"],
    targets: Tensor,
    weights: Float[Tensor, "n b"] | Float[Tensor, "r n b"] | LazyWeights,
    options: LossOptions | None = None,
) -> Losses:
    r"""Return the loss of interpolated predictions with its terms: of every objective, with masks, and for every head.

    Equals ``objective(head(weights @ embeddings), weights @ targets)``, and with attention the mean of that over
    positions, each with weights by :func:`multimix.ops.reweight`. At a position an example counts only where the mask
    has it and its target there is known; a tuple that holds no example that counts is left out of the mean.

    Args:
        values: Predictions for the clean mini-batch, (b, k), or at every position, (b, r, k); its embeddings where the
            options have ``classify``.
        targets: In any form that the objective knows, of the examples or of their positions.
        weights: Interpolation weights, as :func:`dense_mixed_cross_entropy` takes them.
        options: All else.

    Raises:
        ValueError, TypeError: As :func:`mixed_cross_entropy`.
    """
    options = LossOptions() if options is None else options
    if not isinstance(options, LossOptions):
        raise TypeError(f"options must be LossOptions or None, got {options!r}")
    check_floating("logits", values)
    if values.ndim == 2 and isinstance(options.objective, CrossEntropy):
        targets = rows_of(targets, values.shape[-1] if options.classify is None else None)
    _check(values, targets, weights, options)
    form = _form(values, targets, weights, options)
    if form == "plain":
        return _plain(values, targets, weights, options)
    # in full precision with the batch next to last: (b, k) as it is, (b, r, k) as (r, b, k)
    logits, teacher, attention = _positions_first(accurate(values)), options.teacher_logits, options.attention
    teacher = None if teacher is None else _positions_first(teacher.detach().to(logits.dtype))
    attention = None if attention is None else attention.to(logits.dtype)
    objective, k = options.objective, logits.shape[-1]
    if objective.label_smoothing:  # type: ignore[attr-defined]  # which plain cross-entropy has
        targets = objective.settled(objective.targets(targets, k, dtype=logits.dtype), k)[..., -k:]
    problem = (targets if targets.is_floating_point() else targets.long(), weights, attention, teacher, options)
    try:
        with no_autocast(logits.device.type):  # which would take these products in half precision
            total, labels, taught = (commuted if form == "commuted" else Fused.apply)(logits, *problem)
    except (IndexError, RuntimeError):
        check_class_indices(targets, logits.shape[-1])  # only now: looking first would cost every step
        raise
    return Losses(total, {"labels": labels.detach(), **({} if taught is None else {"teacher": taught.detach()})})


def _plain(values: Tensor, targets: Tensor, weights: Weights, options: LossOptions) -> Losses:
    """The equations as they stand, left to autograd."""
    objective, theirs, classify = options.objective, options.teacher_logits, options.classify
    rows = (weights.all() if isinstance(weights, LazyWeights) else weights).to(accurate(values[:0]).dtype)
    with no_autocast(values.device.type):
        wanted = counts = None
        if classify is None:
            wanted = objective.targets(targets, values.shape[-1], dtype=rows.dtype)
            check_fit(targets, wanted, values)
            values = accurate(values)
            counts = _counting(values, objective.known(wanted), options.mask)
        rows, centre = weigh(rows, options.attention, counts)
        if rows.ndim == 2 and (values.ndim == 3 or classify is not None):
            rows = rows.unsqueeze(0)
        present = None if counts is None else (rows.detach().sum(-1) > 0).to(rows.dtype)
        values = _positions_first(values, classify)
        if options.balanced:
            gain = balance_gain(rows, float(options.balanced), centre, present)
            values = balance_gradient(values, gain, centre)
        if classify is None and objective.is_plain:
            # Softmax ignores a shift of each clean row; without it, large logits would cost digits.
            values = values - values.detach().amax(-1, keepdim=True)
    mixed = _mix(rows, values, classify)
    with no_autocast(mixed.device.type):  # or rows would no longer sum to 1
        if wanted is None:
            wanted = objective.targets(targets, mixed.shape[-1], dtype=rows.dtype)
        wanted = rows @ (wanted.transpose(0, 1) if wanted.ndim == 3 else wanted)
    taught = None if theirs is None else _mix(rows, _positions_first(theirs.detach(), classify), options.teach)
    return objective.losses(mixed, wanted, None if taught is None else (taught, options.gamma), present)


def _mix(rows: Tensor, values: Tensor, classify: Classifier | None) -> Tensor:
    """Return the predictions of interpolated values, (n, k) or (r, n, k)."""
    if classify is not None:
        return classify(rows.to(values.dtype) @ values)  # in the precision that the network takes
    with no_autocast(values.device.type):
        return rows @ values.to(rows.dtype)


def _positions_first(values: Tensor, classify: Classifier | None = None) -> Tensor:
    """Return (b, r, k) as (r, b, k) and (b, k) as it is, or as one position where a head is yet to take it."""
    if values.ndim == 3:
        return values.transpose(0, 1)
    return values if classify is None else values.unsqueeze(0)


def _counting(outputs: Tensor, known: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Return 1 where an example counts at a position, else 0, (b, r); None where all do, or there are no positions."""
    if outputs.ndim == 2 or (known is None and mask is None):
        return None
    counts = outputs.new_ones(outputs.shape[:2]) if mask is None else mask.bool().to(outputs.dtype)
    return counts if known is None else counts * known.view(len(known), -1)


def _form(values: Tensor, targets: Tensor, weights: Weights, options: LossOptions) -> str:
    """Return the form to take: a fast one for plain cross-entropy of which only the predictions need a gradient."""
    impl, attention = options.impl, options.attention
    if options.classify is not None or options.mask is not None or not options.objective.is_plain:
        return "plain"
    if values.ndim == 3 and (attention is None or options.objective.is_map(targets)):
        return "plain"
    if not isinstance(targets, Rows):
        check_target_form(targets, values.shape[-1])
    given = {"targets": targets, "weights": weights, "attention": attention}
    learned = [name for name, t in given.items() if isinstance(t, Tensor) and t.requires_grad]
    if learned and impl in ("commuted", "fused"):
        raise ValueError(f"impl={impl!r} gives no gradient to {' and '.join(learned)}; use impl='plain' or detach")
    if learned or impl != "auto":
        return "plain" if learned else impl
    traced = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack()
    return "commuted" if traced else "fused"


def _options(keywords: Mapping[str, Any], **others: Any) -> LossOptions:
    """Return the options of a public function, which knows those of ``LossKeywords`` only."""
    known = LossKeywords.__annotations__
    if unknown := [name for name in keywords if name not in known]:
        raise TypeError(f"{unknown[0]} is no option of a mixed cross-entropy, which has {', '.join(known)}")
    return LossOptions(**keywords, **others)


def _check(values: Tensor, targets: Tensor, weights: Weights, options: LossOptions) -> None:
    check_tensor("targets", targets)
    check_shape("logits", values, *(("b", "r", "k") if values.ndim == 3 else ("b", "k")))
    teacher, maps = options.teacher_logits, {"attention": options.attention, "mask": options.mask}
    tensors = {"logits": values, "targets": targets, "weights": weights, **maps, "teacher_logits": teacher}
    places = {name: t.device for name, t in tensors.items() if isinstance(t, Tensor)}
    if any(place != values.device for place in places.values()):
        raise ValueError("tensors lie on different devices: " + ", ".join(f"{k} on {v}" for k, v in places.items()))
    for name, each in maps.items():
        if each is not None:
            check_shape(f"logits where there is {name}", values, "b", "r", "k")
            (check_mask if name == "mask" else partial(check_shape, name))(each, *values.shape[:2])
    if targets.ndim and len(targets) != len(values):
        raise ValueError(f"targets has {len(targets)} rows for a mini-batch of {len(values)}")
    _check_weights(weights, len(values), values.shape[1] if values.ndim == 3 else None)
    if teacher is not None:
        size = "d" if options.classify else values.shape[-1]  # embeddings may be of another size
        check_shape("teacher_logits", teacher, *values.shape[:-1], size)
    _check_options(targets, options)


def _check_options(targets: Tensor, options: LossOptions) -> None:
    if options.attention is not None:
        check_attention(options.attention)
    if options.classify is None:
        return
    if options.impl not in ("auto", "plain"):
        raise ValueError(f"impl={options.impl!r} needs a network with an affine head; head is None: use impl='auto'")
    if options.mask is not None or options.objective.is_map(targets):
        raise ValueError("masks and label maps need a network with an affine head; head is None")


def _check_weights(weights: Weights, batch: int, positions: int | None) -> None:
    if isinstance(weights, LazyWeights):
        if weights.sets not in (None, positions):
            known = "None" if positions is None else f"None or the number of positions, {positions}"
            raise ValueError(f"weights.sets must be {known}, got {weights.sets}")
        return
    check_tensor("weights", weights)
    check_shape("weights", weights, *((positions, "n", batch) if positions and weights.ndim == 3 else ("n", batch)))
    check_weights(weights)
