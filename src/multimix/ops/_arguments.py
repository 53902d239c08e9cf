"""What a draw refuses: sizes that are no whole numbers, and what is no source of randomness."""

from numbers import Integral, Real

import torch
from torch import Generator, Tensor


def check_generator(generator: object) -> None:
    """Raise unless ``generator`` is a source of randomness, or None for torch's global one.

    Raises:
        TypeError: If it is anything else, a seed for one.
    """
    if generator is None or isinstance(generator, Generator):
        return
    seeded = f"; take torch.Generator().manual_seed({generator})" if isinstance(generator, Integral) else ""
    raise TypeError(f"generator must be a torch.Generator or None, got {generator!r}{seeded}")


def check_sizes(least: int = 1, **sizes: object) -> None:
    """Raise unless every size is a whole number of at least ``least``."""
    for name, size in sizes.items():
        if not isinstance(size, (Integral, torch.SymInt)) or isinstance(size, bool):
            raise TypeError(f"{name} must be a whole number, got {size!r}")
        if size < least:
            raise ValueError(f"{name} must be at least {least}, got {size}")


def check_number(name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is a number, or a tensor of one."""
    single = isinstance(value, Tensor) and value.numel() == 1
    if not (isinstance(value, Real) or single) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
