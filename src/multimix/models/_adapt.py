"""The ways in: any model, adapted, and networks by name."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from typing_extensions import TypedDict, Unpack

from multimix._declared import Count, check
from multimix._optional import require
from multimix.models._check import check_first_batch
from multimix.models._modules import linear_layers, listed, near, require_module
from multimix.models._network import AdaptedNetwork, StagedNetwork
from multimix.models._preact import preact_resnet18, wide_resnet16_8
from multimix.models._split import SplitNetwork
from multimix.models._transformers import TransformersNetwork, derives, objective_from_config
from multimix.models._vision import TimmNetwork, TorchvisionNetwork, family_of, is_timm
from multimix.ops import Gather, Objective, check_objective
from multimix.protocols import Network


class AdaptOptions(TypedDict, total=False):
    """What a model is trained for, and how."""

    objective: Objective | None
    """What the model is trained for: :class:`multimix.ops.CrossEntropy`, unless the model says otherwise,
    ``BinaryCrossEntropy`` or ``SquaredError``."""
    dense: bool
    """The model gives logits at every position, as for segmentation: nothing is pooled, and the network returns
    (b, r, k) at the positions of the encoder, or of what enters the head. Where the model is split by name."""
    gather: bool
    """In data-parallel training, MultiMix and Dense MultiMix interpolate the examples of all processes
    (:class:`multimix.ops.Gather`), whose generators are to be in step."""


def adapt(
    model: nn.Module,
    *,
    encoder: str | None = None,
    head: str | None = None,
    pool: Callable | None = None,
    stages: Sequence[str] = (),
    mask: str | Callable | None = None,
    **options: Unpack[AdaptOptions],
) -> StagedNetwork:
    """Return a model as a network that shares its parameters: ``adapt(model)(x)`` is ``model(x)``.

    timm's models and the classifiers of torchvision and transformers need nothing else. Of any other model the last
    linear layer is the head, and what enters it is the embedding; the first batch shows which layer that is, or it is
    named::

        adapt(model)
        adapt(model, head="fc")

    That is enough for all methods but those that mix maps or tokens (Dense MultiMix, AlignMix) or stages (manifold
    mixup: ``stages=``). For these a model of no known family is split at two named modules::

        adapt(model, encoder="backbone.layer4", head="fc")                          # mean over positions in between
        adapt(model, encoder="transformer", head="out", pool=lambda x: x[:, 0])     # class token
        adapt(model, encoder="body", head="out", pool=nn.Sequential(...))           # layers that train with the model

    The encoder's output may be a map, tokens, a vector, a packed sequence or a nested tensor, and is taken from a tuple
    (the first) or a mapping (``last_hidden_state``). Inputs are a tensor, or a mapping of keyword arguments.
    Sequences of different length have a mask: packed and nested ones bring theirs, others say where it is::

        adapt(model, encoder="encoder", head="out", mask="attention_mask")          # mean over real positions
        adapt(model, encoder="encoder", head="out", mask=lambda tokens: tokens != 0)

    On the first batch the network's logits are compared with the model's own in eval mode, on the first one in training
    mode what enters the head and all gradients, too; neither leaves a trace.

    Args:
        model: The model; one that is a network already comes back as it is.
        encoder: Dotted name of the module whose output is embedded; with it the model is split by name, whatever it is.
        head: Dotted name of the layer that gives the logits.
        pool: What the model does between the two, (b, r, d) -> (b, e), given together with them; if None, the mean over
            positions.
        stages: Dotted names of the modules to mix at, in the order in which they run; if empty, those usual for a known
            family, none for any other model. Stage 0, the inputs, is always there.
        mask: Which positions are real, where the model is split by name: a key of the inputs, or a function of them
            that returns (b, r). A ``pool`` of two parameters gets it as the second.
        options: What the model is trained for, and how: see :class:`AdaptOptions`.

    Raises:
        TypeError: If an argument is not of its kind.
        ValueError: If the model cannot be split, a name is not in it, it is wrapped (distributed, compiled) or
            holds uninitialised parameters, or an option does not go with the others; on the first batch, if the head
            cannot be told, something follows it, or the network is not the model.
    """
    if not isinstance(model, nn.Module):
        kind = model if isinstance(model, type) else type(model).__name__
        raise TypeError(f"model must be a torch.nn.Module, got {kind}")
    _require_options(options, AdaptOptions)
    objective, dense, gather = options.get("objective"), options.get("dense", False), options.get("gather", False)
    if isinstance(model, Network):
        why = "does not apply: the model is a network already"
        _refuse(why, encoder=encoder, head=head, pool=pool, stages=stages or None, mask=mask)
        _refuse(why, objective=objective, dense=dense or None, gather=gather or None)
        return cast(StagedNetwork, model)
    if objective is not None:
        check_objective(objective)
    _refuse_unready(model)
    if isinstance(stages, str):
        raise TypeError(f"stages must be a sequence of names, got the string {stages!r}")
    for name in stages:
        require_module(model, name, "stages")
    if dense:
        _refuse("does not go with dense=True: where every position has logits, nothing is pooled", pool=pool)
    if encoder is None:
        _refuse("must be given together with encoder and head", pool=pool, mask=mask)
    if encoder is None and head is None:
        _refuse("must be given together with head", dense=dense or None)
        network = _of_family(model, stages)
    else:
        network = SplitNetwork(model, encoder=encoder, head=head, pool=pool, stages=stages, mask=mask)
    network.dense = dense
    network.gather = Gather() if gather else None
    network.objective = objective or (None if dense else objective_from_config(model)) or network.objective
    network.check = check_first_batch
    return network


def _of_family(model: nn.Module, stages: Sequence[str]) -> AdaptedNetwork:
    if is_timm(model):
        return TimmNetwork(model, stages)
    if derives(model, "PreTrainedModel"):
        return TransformersNetwork(model, stages)
    if family := family_of(model):
        return TorchvisionNetwork(model, family, stages)
    return SplitNetwork(model, stages=stages)


def _require_options(options: Any, known: type) -> None:
    """Raise TypeError unless options are those of a typed dictionary."""
    if unknown := options.keys() - known.__annotations__.keys():
        raise TypeError(f"options must be of {', '.join(known.__annotations__)}, got {', '.join(unknown)}")


def _refuse(why: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name} {why}")


_PARALLEL = (
    "adapt the plain model inside, and wrap a module in DistributedDataParallel whose forward returns "
    "method(net, inputs, targets).total"
)
_ADVICE = {  # what to write in place of a wrapper around a model, by the wrapper's name
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


def _refuse_unready(model: nn.Module) -> None:
    """Raise if a model is wrapped, compiled or scripted, or holds parameters that have no shape yet."""
    names = [cls.__name__ for cls in type(model).__mro__]
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise ValueError(f"model was compiled by its compile(): {_advice('OptimizedModule', model)}")
    if name := next((name for name in names if name in _ADVICE), None):
        raise ValueError(f"model is a {name}: {_advice(name, model)}")
    if lazy := [name for name, parameter in model.named_parameters() if is_lazy(parameter)]:
        raise ValueError(f"model has uninitialised parameters ({listed(lazy, 3)}); run a batch through it first")


def _advice(name: str, model: nn.Module) -> str:
    part = "" if isinstance(model, torch.jit.ScriptModule) else _largest_part(getattr(model, "_orig_mod", model))
    place = f"model[{part}]" if part.isdigit() else f"model.{part}"
    return _ADVICE[name].replace("{compile}", f"{place} = torch.compile({place})" if part else "one by one")


def _largest_part(model: nn.Module) -> str:
    """Return the name of the child with most parameters, without the last linear layer; in ``bert``, one inside it."""
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


MODELS = ("preact_resnet18", "wide_resnet16_8")
"""The names of our own networks, for small images."""


class ModelOptions(TypedDict, total=False):
    """What only some models take; None is as if it was not given."""

    width: int | None
    """Of our own networks: channels of PreActResNet's first group, widening factor of the wide ResNet."""
    strides: Sequence[int] | None
    """Of our own networks: stride of each group."""
    final_norm: bool | None
    """Of ``preact_resnet18``: whether batch normalisation and ReLU follow the last group."""
    pretrained: bool
    """Of timm's and torchvision's models: whether to load (perhaps download) their default weights. The head is new
    where the classes are not as many as in the weights."""


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | None = None,
    **options: Unpack[ModelOptions],
) -> StagedNetwork:
    """Return a network by name; its weights are drawn from torch's global generator.

    Args:
        name: One of ``MODELS``, ``timm:NAME`` or ``torchvision:NAME``.
        num_classes: Number of logits.
        in_channels: Channels of the images; torchvision's models take 3.
        image_size: Height and width of the images. Transformers and the like are made for it; networks that take any
            size, pre-trained ones included, do without.
        options: What only some models take: see :class:`ModelOptions`.

    Raises:
        ValueError: If the name is unknown, an option does not apply to that model, or a number is below 1.
        TypeError: If the name is no text, a number no integer, or an option is unknown.
    """
    if not isinstance(name, str):
        raise TypeError(f"model must be the name of a network, got {name!r}")
    check(Count, num_classes=num_classes)
    check(Count | None, image_size=image_size)
    _require_options(options, ModelOptions)
    given: dict[str, Any] = {
        o: value for o, value in options.items() if value is not None and (o, value) != ("pretrained", False)
    }
    source, _, model = name.partition(":")
    if source == "timm" and model:
        return _timm(model, num_classes, in_channels, image_size, given)
    if source == "torchvision" and model:
        return _torchvision(model, num_classes, in_channels, image_size, given)
    own = _OWN_OPTIONS.get(name, ())
    _require(name, name, MODELS, given, own, "; other models are timm:NAME and torchvision:NAME")
    if name == "preact_resnet18":
        return preact_resnet18(in_channels=in_channels, num_classes=num_classes, **given)
    renamed = {"widen" if option == "width" else option: value for option, value in given.items()}
    return wide_resnet16_8(in_channels=in_channels, num_classes=num_classes, **renamed)


_OWN_OPTIONS = {"preact_resnet18": ("final_norm", "strides", "width"), "wide_resnet16_8": ("strides", "width")}


def _timm(model: str, classes: int, channels: int, size: int | None, options: dict[str, Any]) -> StagedNetwork:
    name = f"timm:{model}"
    timm = require("timm", by=f"model {name!r}")
    _require(name, model.partition(".")[0], timm.list_models(), options, ["pretrained"])
    create = partial(timm.create_model, model, num_classes=classes, in_chans=channels, **options)
    return adapt(_create(create, name, "img_size", size))


def _torchvision(model: str, classes: int, channels: int, size: int | None, options: dict[str, Any]) -> StagedNetwork:
    name = f"torchvision:{model}"
    models = require("torchvision.models", by=f"model {name!r}")
    _require(name, model, models.list_models(module=models), options, ["pretrained"])
    if channels != 3:
        raise ValueError(f"in_channels does not apply to {name!r}, whose images have 3 channels, got {channels}")
    if not options:
        create = partial(models.get_model, model, weights=None, num_classes=classes)
        argument, value = ("input_size", size and (size, size)) if model == "maxvit_t" else ("image_size", size)
        return adapt(_create(create, name, argument, value))
    network = cast("AdaptedNetwork", adapt(models.get_model(model, weights="DEFAULT")))
    if classes != 1000:  # the classes of ImageNet
        head = nn.Linear(cast("int", network.head_module.in_features), classes)
        network.model.set_submodule(network.head_name, head)
    return network


def _create(create: Callable[..., nn.Module], name: str, size_argument: str, size: Any) -> nn.Module:
    """Call a factory with an image size, if there is one; models that are made for any size do not take it."""
    if size is None:
        return create()
    try:
        return create(**{size_argument: size})
    except TypeError as error:
        if size_argument not in str(error):
            raise
        return create()
    except AssertionError as error:
        raise ValueError(f"image_size does not suit {name!r}, got {size}: {error}") from error


def _require(
    name: str, wanted: str, known: Collection[str], options: dict[str, Any], applicable: Sequence[str], more: str = ""
) -> None:
    if wanted not in known:
        raise ValueError(f"name must be a known model, got {name!r}; {near(wanted, known)}{more}")
    for option in options:
        if option not in applicable:
            raise ValueError(f"{option} does not apply to {name!r}; what does is {', '.join(applicable)}")
