"""What the methods share that learn modules of their own beside the network."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def build_beside(network: object, make: Callable[[], Module], name: str) -> Module:
    """Return a new module where the network is and in its precision.

    Its initial weights follow from torch's global random state, as the network's own do, but leave that state alone.

    Raises:
        TypeError: If the network is not a torch module.
    """
    like = next(network_module(network, name).parameters())
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return make().to(like.device, like.dtype)


def network_module(network: object, name: str) -> nn.Module:
    """Return ``network`` as the torch module that it must be, or raise TypeError."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch module for {name}, got {type(network).__name__}")
    return network


def check_share(name: str, value: float, *, with_one: bool) -> None:
    """Raise ValueError for a share of the mini-batch that leaves nothing to be mixed."""
    if not (0 < value <= 1 if with_one else 0 <= value < 1):
        raise ValueError(f"{name} must lie in {'(0, 1]' if with_one else '[0, 1)'}, got {value}")


def check_count(name: str, value: int | None) -> None:
    """Raise ValueError unless ``value`` is None or a positive whole number."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
