"""Modules as methods need them: copied, and told apart from what they were."""

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from multimix.ops import widest

M = TypeVar("M", bound=nn.Module)


def copied(module: M) -> M:
    """Return a deep copy of a module, without what was compiled of the original, as by ``torch.compile(net.embed)``.

    What autograd has left in it, as old ``weight_norm`` does, is copied as plain numbers: ``deepcopy`` refuses it.
    """
    computed = (t for part in module.modules() for t in _tensors(vars(part)) if not t.is_leaf)
    twin = copy.deepcopy(module, {id(t): t.detach().clone() for t in computed})
    for part in twin.modules():
        for name in [name for name, value in vars(part).items() if hasattr(value, "_torchdynamo_orig_callable")]:
            delattr(part, name)
    return twin


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in mappings and sequences, those of ``vars(module)`` among them."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (dict, list, tuple)):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


def fingerprint(module: nn.Module) -> Tensor:
    """Return a number for each parameter that tells whether an optimiser has stepped, as version counters would not."""
    parameters = [parameter.detach() for parameter in module.parameters()]
    norms = [torch.linalg.vector_norm(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    return torch.stack([norm.to(norms[0].device, widest(norms[0].device)) for norm in norms])
