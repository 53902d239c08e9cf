"""Seeds that depend on what is drawn and on nothing else."""

import hashlib

import torch

__all__ = ["generator_for", "seed_of"]


def seed_of(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) that is the same for the same parts on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """Return a fresh CPU generator seeded by the parts."""
    return torch.Generator().manual_seed(seed_of(*parts))
