"""Pairs of examples: who is mixed with whom, and how."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from multimix.ops._arguments import check_generator, check_sizes

Mode = Literal["batch", "pair", "elem"]
"""Who shares a draw: the whole mini-batch, the two examples of a pair, or nobody."""
MODES: tuple[str, ...] = get_args(Mode)


def check_mode(mode: str) -> None:
    """Raise unless ``mode`` is one of ``MODES``.

    Raises:
        ValueError: If it is not.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")


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
