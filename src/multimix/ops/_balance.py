"""The gradient that interpolation shrinks, and its repair."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from multimix.ops._checks import accurate


def balance_gain(weights: Float[Tensor, "*r n b"], power: float = 1.0) -> Float[Tensor, "*r"]:
    r"""Return by how much interpolation with ``weights`` shrinks the batch-centred gradient on the clean logits.

    :math:`1 / (b\, \overline{(w - 1/b)^2})`, about :math:`b \alpha + 1` for a symmetric Dirichlet distribution; 1 where
    all weights are equal and there is nothing to rescale. One number for each position, to the given power.
    """
    with torch.no_grad():
        return gain_from(unevenness(weights) / weights.shape[-2]) ** power


def unevenness(weights: Float[Tensor, "*r n b"]) -> Float[Tensor, "*r"]:
    """Return the sum over tuples of the squared distance from equal weights."""
    return (weights - 1 / weights.shape[-1]).square_().sum((-2, -1))


def gain_from(shrinkage: Float[Tensor, "*r"]) -> Float[Tensor, "*r"]:
    """Return the inverse of the mean of :func:`unevenness` over tuples, 1 where it vanishes."""
    return torch.where(shrinkage > 1e-12, 1 / shrinkage.clamp_min(1e-12), 1)


def balance_gradient(values: Float[Tensor, "*r b d"], gain: Float[Tensor, "*r"]) -> Float[Tensor, "*r b d"]:
    """Return ``values`` as they are; on the way back ``gain`` multiplies the batch-centred part of the gradient."""
    return _Balance.apply(values, gain)


def balance(gradient: Float[Tensor, "*r b d"], gain: Float[Tensor, "*r"]) -> Float[Tensor, "*r b d"]:
    """Return ``gain * (g - mean g) + mean g``, the mean being over the batch."""
    mean = gradient.mean(-2, keepdim=True)
    return torch.lerp(mean.expand_as(gradient), gradient, gain[..., None, None].to(gradient.dtype))


class _Balance(Function):
    """Identity whose gradient is balanced."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gain: Tensor) -> Tensor:
        ctx.save_for_backward(gain)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gain,) = ctx.saved_tensors
        # in full precision, since the gain would multiply the rounding too
        return balance(accurate(gradients[0]), gain).to(gradients[0].dtype), None
