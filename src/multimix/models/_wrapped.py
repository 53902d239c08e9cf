"""Models that something else is wrapped around: what to write instead of adapting them."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from multimix.models._names import linear_layers, listed

_PARALLEL = (
    "adapt the plain model inside, and wrap a module in DistributedDataParallel whose forward returns "
    "method(net, inputs, targets).total"
)
_ADVICE = {
    "DataParallel": f"its copies share hooks and could not be told apart; {_PARALLEL}",
    "DistributedDataParallel": f"it averages gradients of its own forward alone; {_PARALLEL}",
    "FullyShardedDataParallel": "it gathers parameters in its own forward alone; adapt the plain model, and shard a "
    "module whose forward returns method(net, inputs, targets).total",
    "FSDPModule": "it gathers parameters in its own forward alone; adapt the plain model, and call fully_shard on a "
    "module whose forward returns method(net, inputs, targets).total",
    "OptimizedModule": "the network stops inside the forward pass, which compiled code does not do; adapt the plain "
    "model and compile its parts, {compile}, before or after",
    "ScriptModule": "it takes no hooks; adapt the module that it was scripted from, and script that module once it is "
    "trained",
}


def refuse_unready(model: nn.Module) -> None:
    """Raise if a model is wrapped, compiled or scripted, or holds parameters that have no shape yet.

    Raises:
        ValueError: With what to write.
    """
    names = [cls.__name__ for cls in type(model).__mro__]
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise ValueError(f"model was compiled by its compile(): {_advice('OptimizedModule', model)}")
    if name := next((name for name in names if name in _ADVICE), None):
        raise ValueError(f"model is a {name}: {_advice(name, model)}")
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ValueError(
            f"model has uninitialised parameters ({listed(lazy, 3)}); run a batch through it before adapting it"
        )


def _advice(name: str, model: nn.Module) -> str:
    part = "" if isinstance(model, torch.jit.ScriptModule) else _largest_part(getattr(model, "_orig_mod", model))
    place = f"model[{part}]" if part.isdigit() else f"model.{part}"
    return _ADVICE[name].replace("{compile}", f"{place} = torch.compile({place})" if part else "one by one")


def _largest_part(model: nn.Module) -> str:
    """Return the name of the child with most parameters, other than the last linear layer; none if there is no other.

    Of a model that holds most of its parameters in another model (``bert``), that is one of the inner one's children.
    """
    head = next(iter(linear_layers(model)), "")
    sizes = {
        name: sum(parameter.numel() for parameter in child.parameters())
        for name, child in model.named_children()
        if name != head and not head.startswith(f"{name}.")
    }
    largest = max(sizes, key=sizes.__getitem__, default="")
    if largest and hasattr(model.get_submodule(largest), "config"):
        inner = _largest_part(model.get_submodule(largest))
        return f"{largest}.{inner}" if inner else largest
    return largest
