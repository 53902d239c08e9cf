"""Pairs: who is whose partner, and what lies between the two."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from multimix.ops._checks import (
    Device,
    Natural,
    check,
    check_floating,
    check_fractions,
    check_pairs,
    check_tensor,
    home_of,
)

Mode = Literal["batch", "pair", "elem"]
"""Who shares a draw: the whole mini-batch, the two examples of a pair, or nobody."""


def draw_partners(b: int, *, generator: Generator | None = None, device: Device = None) -> Int[Tensor, " b"]:
    """Return a random permutation of a mini-batch: the second example of each pair."""
    check(Natural, b=b)
    return torch.randperm(b, generator=generator, device=home_of(generator, device)).to(device)


def draw_couples(
    b: int, *, generator: Generator | None = None, device: Device = None
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
    values: Float[Tensor, " b *rest"], partners: Int[Tensor, " b"], lam: Float[Tensor, ""] | Float[Tensor, " b"]
) -> Float[Tensor, " b *rest"]:
    """Return ``lam * values + (1 - lam) * values[partners]``: one lambda for all, or one an example, for its own.

    Raises:
        ValueError: If lambda leaves [0, 1], or shapes do not fit.
        TypeError: If an argument is no tensor, values are not floating-point, or partners no integers.
    """
    check_floating("values", values)
    check_pairs("values", values, partners)
    check_tensor("lam", lam)
    if lam.numel() not in (1, len(values)):
        raise ValueError(f"lam must be one number, or one an example, ({len(values)},), got {tuple(lam.shape)}")
    check_fractions("lam", lam)
    lam = lam.to(values.dtype)
    if lam.ndim:
        lam = lam.reshape(-1, *[1] * (values.ndim - 1))
    try:
        partner = values.index_select(0, partners)
    except IndexError:
        raise ValueError(f"partners must lie in 0..{len(values) - 1}, got {partners.tolist()}") from None
    # In place saves a pass over memory, but leaves autograd without what a gradient on lambda needs.
    return torch.lerp(partner, values, lam) if lam.requires_grad else partner.lerp_(values, lam)
