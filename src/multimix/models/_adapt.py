"""One way in for every model."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import nn
from torch.nn.parameter import is_lazy

from multimix.models._named import adapt_named
from multimix.models._names import linear_layers, listed, require_module
from multimix.models._timm import adapt_timm, is_timm
from multimix.models._torchvision import adapt_torchvision, family_of
from multimix.protocols import Network

_WRAPPERS = {
    "DataParallel": "wrap",
    "DistributedDataParallel": "wrap",
    "FullyShardedDataParallel": "wrap",
    "OptimizedModule": "compile",
    "ScriptModule": "script",
}


def adapt(
    model: nn.Module,
    *,
    encoder: str | None = None,
    head: str | None = None,
    pool: Callable | None = None,
    stages: Sequence[str] = (),
) -> Network:
    """Return a model as a network that shares its parameters: ``adapt(model)(x)`` is ``model(x)``.

    timm's models and torchvision's classifiers need nothing else. Any other model is split at two named modules::

        adapt(model, encoder="backbone.layer4", head="fc")                          # mean over positions in between
        adapt(model, encoder="transformer", head="out", pool=lambda x: x[:, 0])     # class token
        adapt(model, encoder="body", head="out", pool=nn.Sequential(...))           # layers that train with the model

    The encoder's output may be a map, tokens or a vector, and is taken from a tuple (the first) or a mapping
    (``last_hidden_state``). On the first batch the network's logits are compared with the model's own, in eval mode and
    without a trace.

    Args:
        model: The model; one that is a network already comes back as it is.
        encoder: Dotted name of the module whose output is embedded; with it the model is split by name, whatever it is.
        head: Dotted name of the layer that gives the logits, given together with ``encoder``.
        pool: What the model does between the two, (b, r, d) -> (b, e), given together with them; if None, the mean over
            positions.
        stages: Dotted names of the modules to mix at, in the order in which they run; if empty, those usual for a known
            family, none for any other model. Stage 0, the inputs, is always there.

    Raises:
        TypeError: If an argument is not of its kind.
        ValueError: If the model cannot be split, a name is not in it, it is wrapped (distributed, compiled) or
            holds uninitialised parameters; on the first batch, if the network is not the model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {model if isinstance(model, type) else type(model).__name__}"
        )
    if isinstance(model, Network):
        _refuse_options(encoder=encoder, head=head, pool=pool, stages=stages or None)
        return model
    _refuse_unready(model)
    if isinstance(stages, str):
        raise TypeError(f"stages must be a sequence of names, got the string {stages!r}")
    for name in stages:
        require_module(model, name, "stages")
    # mypy holds a property to be no attribute
    return cast(Network, _split(model, encoder, head, pool, stages))


def _split(
    model: nn.Module, encoder: str | None, head: str | None, pool: Callable | None, stages: Sequence[str]
) -> nn.Module:
    if encoder is not None or head is not None:
        return adapt_named(model, encoder=encoder, head=head, pool=pool, stages=stages)
    if pool is not None:
        raise ValueError("pool must be given together with encoder and head")
    if is_timm(model):
        return adapt_timm(model, stages)
    if family := family_of(model):
        return adapt_torchvision(model, family, stages)
    raise ValueError(
        f"model: {type(model).__name__} is of no known family; pass encoder=, the dotted name of the module whose "
        "output is to be mixed, and head=, that of the layer that gives the logits "
        f"(its linear layers are {listed(linear_layers(model))})"
    )


def _refuse_options(**options: Any) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{given[0]} does not apply: the model is a network already")


def _refuse_unready(model: nn.Module) -> None:
    for cls in type(model).__mro__:
        if verb := _WRAPPERS.get(cls.__name__):
            raise ValueError(
                f"model is a {cls.__name__}; adapt the plain model first, then {verb} the network that comes out"
            )
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ValueError(
            f"model has uninitialised parameters ({listed(lazy, 3)}); run a batch through it before adapting it"
        )
