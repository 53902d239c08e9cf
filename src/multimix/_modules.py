"""Modules as methods and metrics need them: copied, told apart from what they were, in eval mode for a while."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from multimix.ops import widest

M = TypeVar("M", bound=nn.Module)
R = TypeVar("R")


def copied(module: M) -> M:
    """Return a deep copy of a module, without what was compiled of the original, as by ``torch.compile(net.embed)``."""
    # What autograd has left in it, as old weight_norm does, is copied as plain numbers: deepcopy refuses it.
    twin = copy.deepcopy(module, leaves_of(module))
    for part in twin.modules():
        for name in [name for name, value in vars(part).items() if hasattr(value, "_torchdynamo_orig_callable")]:
            delattr(part, name)
    return twin


def leaves_of(module: nn.Module) -> dict[int, Any]:
    """Return copies of what autograd has computed in a module, by id, for ``deepcopy``, which copies leaves only."""
    held = (value for part in module.modules() for value in tree_leaves(vars(part)))
    return {id(t): t.detach().clone() for t in held if isinstance(t, Tensor) and not t.is_leaf}


def outside(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function; of a step that torch.compile compiles, the graph breaks here, and nothing of it is compiled."""
    if not torch.compiler.is_compiling():
        return function(*arguments)
    from multimix._eager import call

    return call(function, *arguments)


def as_module(network: object, by: str = "") -> nn.Module:
    """Return ``network`` as the torch module that it must be, or raise TypeError."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch module{by and f' for {by}'}, got {type(network).__name__}")
    return network


def fingerprint(module: nn.Module) -> Tensor:
    """Return a number for each parameter that tells whether an optimiser has stepped, as version counters would not."""
    parameters = [parameter.detach() for parameter in module.parameters()]
    norms = [torch.linalg.vector_norm(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    return torch.stack([norm.to(norms[0].device, widest(norms[0].device)) for norm in norms])


def not_alone(inputs: Tensor) -> Tensor:
    """Return a batch to take a gradient through: a single example comes twice.

    For a mini-batch of one, torch 2.14 gets the gradient of batch normalisation wrong on a CPU, in eval mode too, where
    what comes back has the channels last, as from a network that ends in one and is then read position by position.
    """
    return inputs.repeat(2, *[1] * (inputs.ndim - 1)) if len(inputs) == 1 else inputs


@contextmanager
def evaluating(network: object) -> Iterator[None]:
    """Put a network in eval mode while the context lasts; each of its modules has its own mode back afterwards."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
        # Under autocast, torch 2.4 would let weights that were cast without gradients serve the training pass, too.
        torch.clear_autocast_cache()
