"""Convex combinations of what lies in a mini-batch: of many examples at once, or of pairs."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from multimix.ops._checks import check_generator, check_sizes, check_weights

Mode = Literal["batch", "pair", "elem"]
"""Who shares a draw: the whole mini-batch, the two examples of a pair, or nobody."""


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


def draw_partners(
    b: int, *, generator: Generator | None = None, device: torch.device | str | None = None
) -> Int[Tensor, " b"]:
    """Return a random permutation of a mini-batch: the second example of each pair."""
    check_sizes(0, b=b)
    check_generator(generator)
    where = device if generator is None else generator.device
    return torch.randperm(b, generator=generator, device=where).to(device)


def draw_couples(
    b: int, *, generator: Generator | None = None, device: torch.device | str | None = None
) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
    """Return each example's partner and the number of the pair they form, from a random division into pairs.

    Partners are each other's: ``partners[partners[i]] == i``. Pairs are numbered from 0; where b is odd, one example
    is its own partner, in the last of the ``(b + 1) // 2`` pairs.
    """
    order = draw_partners(b, generator=generator, device=device)
    places = torch.arange(b, device=order.device)
    partners = torch.empty_like(order).index_copy_(0, order, order.flip(0))
    pairs = torch.empty_like(order).index_copy_(0, order, torch.minimum(places, places.flip(0)))
    return partners, pairs


def mix_pairs(
    values: Float[Tensor, "b *rest"], partners: Int[Tensor, " b"], lam: Float[Tensor, ""] | Float[Tensor, " b"]
) -> Float[Tensor, "b *rest"]:
    """Return ``lam * values + (1 - lam) * values[partners]``: one lambda for all, or one an example, for its own."""
    lam = lam.to(values.dtype)
    if lam.ndim:
        lam = lam.reshape(-1, *[1] * (values.ndim - 1))
    partner = values.index_select(0, partners)
    # In place saves a pass over memory, but leaves autograd without what a gradient on lambda needs.
    return torch.lerp(partner, values, lam) if lam.requires_grad else partner.lerp_(values, lam)
