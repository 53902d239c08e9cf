"""Pairs of examples: who is mixed with whom, and how."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor


def draw_partners(
    b: int, *, generator: Generator | None = None, device: torch.device | str | None = None
) -> Int[Tensor, " b"]:
    """Return a random permutation of a mini-batch: the second example of each pair."""
    where = device if generator is None else generator.device
    return torch.randperm(b, generator=generator, device=where).to(device)


def mix_pairs(
    values: Float[Tensor, "b *rest"], partners: Int[Tensor, " b"], lam: Float[Tensor, ""] | Float[Tensor, " b"]
) -> Float[Tensor, "b *rest"]:
    """Return ``lam * values + (1 - lam) * values[partners]``: one lambda for all, or one a pair, for its first."""
    if lam.ndim:
        lam = lam.reshape(-1, *[1] * (values.ndim - 1))
    return torch.lerp(values[partners], values, lam.to(values.dtype))
