"""Weights, gradients and the optimiser's state shared out among all processes: fully sharded data parallel."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from multimix.protocols import Stateful

M = TypeVar("M", bound=nn.Module)


def share_out(step: M, mesh: DeviceMesh) -> M:
    """Give every process its share of all parameters, and return the module; they are put together where it runs.

    The blocks of which a network is made come one by one: each is put together when it is called, and let go
    afterwards. What is left, the head among it, is whole as long as a step lasts, since methods look into it.
    """
    for block in blocks(step):
        fully_shard(block, mesh=mesh)
    fully_shard(step, mesh=mesh)
    return step


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the parts that are put together one by one."""
    return list(dict.fromkeys(_blocks(module, _heads(module), _tied(module))))


def _blocks(module: nn.Module, heads: set[nn.Module], tied: set[nn.Parameter]) -> Iterator[nn.Module]:
    """Yield the outermost elements of lists and sequences, which can only be called, without a head or tied weights."""
    for child in module.children():
        if isinstance(module, (nn.Sequential, nn.ModuleList)) and _stands_alone(child, heads, tied):
            yield child
        else:
            yield from _blocks(child, heads, tied)


def _stands_alone(block: nn.Module, heads: set[nn.Module], tied: set[nn.Parameter]) -> bool:
    parameters = set(block.parameters())
    # A list has no forward pass, before which its elements could be put together; into a method others look.
    opaque = not isinstance(block, (nn.ModuleList, Stateful))
    return opaque and bool(parameters) and not parameters & tied and not heads & set(block.modules())


def _heads(step: nn.Module) -> set[nn.Module]:
    found = (getattr(module, "head", None) for module in step.modules())
    return {head for head in found if isinstance(head, nn.Module)}


def _tied(step: nn.Module) -> set[nn.Parameter]:
    """Return the parameters that stand in several modules."""
    counts = Counter(parameter for module in step.modules() for parameter in module.parameters(recurse=False))
    return {parameter for parameter, count in counts.items() if count > 1}


def put_together(state: Any) -> Any:
    """Return a state with every shared tensor put together, on the CPU; all processes have to ask at the same time."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, dict):
        return type(state)((name, put_together(value)) for name, value in state.items())
    if isinstance(state, (list, tuple)):
        return type(state)(put_together(value) for value in state)
    return state


def filled(fresh: M, shared: nn.Module) -> M:
    """Return a network of this process alone with the weights of one that is shared out; all processes have to ask."""
    fresh.load_state_dict(put_together(shared.state_dict()))
    return fresh


def dealt(saved: Any, like: Any) -> Any:
    """Return a saved state shared out as another state of the same form is."""
    if isinstance(like, DTensor) and isinstance(saved, torch.Tensor):
        return _share(saved, like)
    if isinstance(like, dict) and isinstance(saved, dict):
        return type(saved)((name, dealt(value, like.get(name))) for name, value in saved.items())
    return saved


def deal_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Share out what an optimiser has just loaded, as its parameters are."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(parameter, DTensor) and torch.is_tensor(value) and value.shape == parameter.shape:
                state[name] = _share(value, parameter)


def _share(values: torch.Tensor, like: DTensor) -> DTensor:
    """Return this process' part, of which every process has the whole, so that nothing is sent."""
    there = values.to(like.device, like.dtype)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)
