"""The gradient that interpolation shrinks, and its repair."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from multimix.ops._checks import accurate


def balance_gain(
    weights: Float[Tensor, "*r n b"],
    power: float = 1.0,
    centre: Float[Tensor, "*r b"] | None = None,
    present: Float[Tensor, "*r n"] | None = None,
) -> Float[Tensor, "*r"]:
    r"""Return by how much interpolation with ``weights`` shrinks the batch-centred gradient on the clean logits.

    :math:`1 / (b\, \overline{(w - c)^2})`, with c = 1/b unless ``centre`` gives one for each image, about
    :math:`b \alpha + 1` for a symmetric Dirichlet distribution; 1 where the weights never leave their centre and there
    is nothing to rescale. One number for each position, to the given power. Where ``present`` is 0, a tuple is not
    counted.
    """
    with torch.no_grad():
        if present is None:
            return gain_from(unevenness(weights, centre) / weights.shape[-2]) ** power
        kept = unevenness(weights, centre, present)
        return gain_from(kept / present.sum(-1).clamp_min(1)) ** power


def unevenness(
    weights: Float[Tensor, "*r n b"],
    centre: Float[Tensor, "*r b"] | None = None,
    present: Float[Tensor, "*r n"] | None = None,
) -> Float[Tensor, "*r"]:
    """Return the sum over tuples of the squared distance from a centre, by default equal weights."""
    off = weights - (1 / weights.shape[-1] if centre is None else centre.unsqueeze(-2))
    return (off if present is None else off * present.unsqueeze(-1)).square_().sum((-2, -1))


def shares_of(attention: Float[Tensor, "b r"] | None) -> Float[Tensor, "r b"] | None:
    """Return each image's share of what is attended to at a position, about which its weights lie; None without."""
    if attention is None:
        return None
    shares = attention.detach().T
    total = shares.sum(-1, keepdim=True)
    usable = total > torch.finfo(total.dtype).tiny
    return torch.where(usable, shares / torch.where(usable, total, 1), 1 / shares.shape[-1])


def gain_from(shrinkage: Float[Tensor, "*r"]) -> Float[Tensor, "*r"]:
    """Return the inverse of the mean of :func:`unevenness` over tuples, 1 where it vanishes."""
    return torch.where(shrinkage > 1e-12, 1 / shrinkage.clamp_min(1e-12), 1)


def balance_gradient(
    values: Float[Tensor, "*r b d"], gain: Float[Tensor, "*r"], centre: Float[Tensor, "*r b"] | None = None
) -> Float[Tensor, "*r b d"]:
    """Return ``values`` as they are; on the way back ``gain`` multiplies the part of the gradient off the centre."""
    return _Balance.apply(values, gain, centre)


def balance(
    gradient: Float[Tensor, "*r b d"], gain: Float[Tensor, "*r"], centre: Float[Tensor, "*r b"] | None = None
) -> Float[Tensor, "*r b d"]:
    """Return ``gain * (g - c sum g) + c sum g``, sums being over the batch, with c = 1/b or each image's own.

    An image that attention lets into more tuples has more of what the tuples have in common, which is not its own
    signal and must not be multiplied.
    """
    if centre is None:
        common = gradient.mean(-2, keepdim=True).expand_as(gradient)
    else:
        common = centre.unsqueeze(-1).to(gradient.dtype) * gradient.sum(-2, keepdim=True)
    return torch.lerp(common, gradient, gain[..., None, None].to(gradient.dtype))


class _Balance(Function):
    """Identity whose gradient is balanced."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gain: Tensor, centre: Tensor | None) -> Tensor:
        ctx.save_for_backward(gain, centre)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gain, centre = ctx.saved_tensors
        # in full precision, since the gain would multiply the rounding too
        return balance(accurate(gradients[0]), gain, centre).to(gradients[0].dtype), None, None
