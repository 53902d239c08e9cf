"""Attention as confidence in labels, and the repair of the gradient that interpolation shrinks."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from multimix.ops._checks import (
    accurate,
    check,
    check_attention,
    check_floating,
    check_mask,
    check_shape,
    looks_are_free,
)

Query = Literal["gap", "cam", "uniform"]
Activation = Literal["relu", "softmax"]


def attention(
    features: Float[Tensor, "b r d"],
    *,
    query: Query = "gap",
    activation: Activation = "relu",
    class_weights: Float[Tensor, "b d"] | None = None,
    mask: Bool[Tensor, "b r"] | None = None,
) -> Float[Tensor, "b r"]:
    r"""Return the attention of each image over its positions; rows sum to 1 and are never NaN.

    :math:`a_i = h(z_i^\top u_i)` (equation (9)). An image whose every position is rejected by the ReLU gets uniform
    attention.

    Args:
        features: Embeddings at every position, z.
        query: u, the image's pooled embedding (``gap``) or the classifier's weights of its class (``cam``); attention
            is the same everywhere if ``uniform``.
        activation: h, ReLU and l1 normalisation over positions (``relu``), or a softmax over them (``softmax``).
        class_weights: For ``cam``, the classifier's weight vector of each image's class (of soft labels, their mean).
        mask: Which positions an image has; the others (padding, say) get no attention and are not pooled.

    Raises:
        ValueError: If a name is unknown, or ``class_weights`` is missing for ``cam``, given without it, or of another
            shape.
        TypeError: If features are not floating-point, or the mask is neither boolean nor of integers.
    """
    check_floating("features", features)
    check_shape("features", features, "b", "r", "d")
    check(Query, query=query)
    check(Activation, activation=activation)
    if class_weights is not None and query != "cam":
        raise ValueError(f"class_weights must be left out unless query='cam', got query={query!r}")
    b, r, d = features.shape
    features = accurate(features)
    if r == 0:
        raise ValueError(f"features must have at least one position, got {tuple(features.shape)}")
    even = features.new_full((b, r), 1 / r)
    if mask is not None:
        check_mask(mask, b, r)
        mask = mask.bool()
        even = mask / mask.sum(1, keepdim=True).clamp_min(1).to(features.dtype)
        features = torch.where(mask.unsqueeze(-1), features, 0)  # whatever padding holds, NaN for one, stays out
    if query == "uniform":
        return even
    with torch.autocast(features.device.type, enabled=False):
        if query == "cam":
            if class_weights is None:
                raise ValueError("class_weights must be given for query='cam', one vector an image, got None")
            check_shape("class_weights", class_weights, b, d)
            pooled = class_weights.to(features.dtype)
        else:
            pooled = features.mean(1) if mask is None else torch.einsum("brd,br->bd", features, even)
        scores = torch.einsum("brd,bd->br", features, pooled)
    if activation == "softmax":
        if mask is None:
            return scores.softmax(1)
        return torch.where(mask, scores.masked_fill(~mask, -torch.inf).softmax(1), 0).nan_to_num(0.0)
    scores = scores.relu()
    largest = scores.detach().amax(1, keepdim=True)
    alive = largest > torch.finfo(scores.dtype).tiny  # the inverse of a smaller one would overflow on the way back
    scores = torch.where(alive, scores / torch.where(alive, largest, 1), 0)  # a sum of large scores cannot overflow
    return _normalised(scores, even)


def reweight(
    weights: Float[Tensor, "n b"] | Float[Tensor, "r n b"],
    attention: Float[Tensor, "b r"],
    *,
    counting: Float[Tensor, "b r"] | None = None,
) -> Float[Tensor, "r n b"]:
    r"""Return weights scaled by attention and normalised again, one set a position.

    :math:`\hat M^j = \mathrm{diag}(a^j) \Lambda^j \mathrm{diag}(1^\top \mathrm{diag}(a^j) \Lambda^j)^{-1}` (equations
    (10) and (11)), with interpolation vectors as rows. A tuple all of whose examples have no attention at a position
    keeps its weights there, as under uniform attention.

    Args:
        weights: Interpolation vectors, shared by all positions (n, b) or one set a position (r, n, b).
        attention: Of each image over its positions, not negative.
        counting: 1 where an image has the position, 0 where it has not (padding, say) and no part in it; a tuple none
            of whose images has it gets a row of zeros.

    Raises:
        ValueError: If the shapes do not fit each other, or attention is negative or NaN.
        TypeError: If the weights are not floating-point.
    """
    check_floating("weights", weights)
    check_shape("attention", attention, "b", "r")
    check_attention(attention)
    if counting is not None:
        weights = _normalised(weights * counting.T.unsqueeze(1), 0)
        attention = attention * counting
    b, r = attention.shape
    check_shape("weights", weights, *((r, "n", b) if weights.ndim == 3 else ("n", b)))
    return _normalised(weights * ratios_of(attention).T.unsqueeze(1), weights)


def ratios_of(attention: Float[Tensor, "b r"]) -> Float[Tensor, "b r"]:
    """Return attention as parts of the largest at each position, by which products do not underflow."""
    return attention / attention.detach().amax(0, keepdim=True).clamp_min(torch.finfo(attention.dtype).tiny)


def _normalised(rows: Tensor, otherwise: Tensor | float) -> Tensor:
    """Return rows divided by their sum; where that vanishes, what there is otherwise."""
    sums = rows.sum(-1, keepdim=True)
    usable = sums > torch.finfo(sums.dtype).tiny
    if looks_are_free(usable) and usable.all():
        return rows / sums
    return torch.where(usable, rows / torch.where(usable, sums, 1), otherwise)


def shares_of(attention: Float[Tensor, "b r"] | None) -> Float[Tensor, "r b"] | None:
    """Return each image's share of what is attended to at a position, about which its weights lie; None without."""
    return None if attention is None else _normalised(attention.detach().T, 1 / len(attention))


def weigh(rows: Tensor, attention: Tensor | None, counts: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return weights at every position, and what they lie about there; as they are without attention or counts."""
    confidence = counts if attention is None else attention.to(rows.dtype)
    if confidence is None:
        return rows, None
    return reweight(rows, confidence, counting=counts), shares_of(confidence if counts is None else confidence * counts)


def balance_gain(
    weights: Float[Tensor, "*r n b"],
    power: float = 1.0,
    centre: Float[Tensor, "*r b"] | None = None,
    present: Float[Tensor, "*r n"] | None = None,
) -> Float[Tensor, "*r"]:
    r"""Return by how much interpolation with ``weights`` shrinks the batch-centred gradient on the clean logits.

    :math:`1 / (b\, \overline{(w - c)^2})` to the given power, with c = 1/b or ``centre``, about :math:`b \alpha + 1`
    for a symmetric Dirichlet distribution; 1 where the weights never leave their centre. Where ``present`` is 0, a
    tuple is not counted.
    """
    check_floating("weights", weights)
    with torch.no_grad():
        tuples = weights.shape[-2] if present is None else present.sum(-1).clamp_min(1)
        return gain_of(spread(weights, centre, present) / tuples) ** power


def spread(weights: Tensor, centre: Tensor | None = None, present: Tensor | None = None) -> Tensor:
    """Return the sum over tuples of the squared distance from a centre, by default equal weights, at each position."""
    off = weights - (1 / weights.shape[-1] if centre is None else centre.unsqueeze(-2))
    return (off if present is None else off * present.unsqueeze(-1)).square_().sum((-2, -1))


def gain_of(shrinkage: Tensor) -> Tensor:
    """Return the inverse of the mean of :func:`spread` over tuples, 1 where it vanishes."""
    return torch.where(shrinkage > 1e-12, 1 / shrinkage.clamp_min(1e-12), 1)


def balance_gradient(
    values: Float[Tensor, "*r b d"], gain: Float[Tensor, "*#r"], centre: Float[Tensor, "*#r b"] | None = None
) -> Float[Tensor, "*r b d"]:
    """Return ``values`` as they are; on the way back ``gain`` multiplies the part of the gradient off the centre."""
    check_floating("values", values)
    kept = values.detach()
    change = accurate(values - kept)  # 0, with a gradient in full precision: the gain would multiply the rounding too
    if centre is None:
        common = change.mean(-2, keepdim=True)
    else:
        common = (centre.unsqueeze(-1).to(change.dtype) * change).sum(-2, keepdim=True)
    # The transpose of :func:`balance`, in sums that torch.func and torch.compile know how to differentiate.
    change = torch.lerp(common.expand_as(change), change, gain[..., None, None].to(change.dtype))
    return kept + change.to(kept.dtype)


def balance(gradient: Tensor, gain: Tensor, centre: Tensor | None = None) -> Tensor:
    """Return ``gain * (g - c sum g) + c sum g``, sums being over the batch, with c = 1/b or each image's own."""
    if centre is None:
        common = gradient.mean(-2, keepdim=True).expand_as(gradient)
    else:
        common = centre.unsqueeze(-1).to(gradient.dtype) * gradient.sum(-2, keepdim=True)
    return torch.lerp(common, gradient, gain[..., None, None].to(gradient.dtype))
