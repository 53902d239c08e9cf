"""Networks by name."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, cast

from torch import nn
from typing_extensions import TypedDict, Unpack

from multimix._declared import Count, check
from multimix._optional import require
from multimix.models._adapt import adapt, require_options
from multimix.models._modules import near
from multimix.models._network import AdaptedNetwork, StagedNetwork
from multimix.models._preact import preact_resnet18, wide_resnet16_8

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
        options: ``width``, ``strides`` and ``final_norm`` of our own networks, ``pretrained`` of the others; see
            :class:`ModelOptions`.

    Raises:
        ValueError: If the name is unknown, an option does not apply to that model, or a number is below 1.
        TypeError: If the name is no text, a number no integer, or an option is unknown.
    """
    if not isinstance(name, str):
        raise TypeError(f"model must be the name of a network, got {name!r}")
    check(Count, num_classes=num_classes)
    check(Count | None, image_size=image_size)
    require_options(options, ModelOptions)
    given: dict[str, Any] = {
        o: value for o, value in options.items() if value is not None and (o, value) != ("pretrained", False)
    }
    source, _, model = name.partition(":")
    if source == "timm" and model:
        return _timm(name, num_classes, in_channels, image_size, given)
    if source == "torchvision" and model:
        return _torchvision(name, num_classes, in_channels, image_size, given)
    own = _OWN_OPTIONS.get(name, ())
    _require(name, name, MODELS, given, own, "; other models are timm:NAME and torchvision:NAME")
    if name == "preact_resnet18":
        return preact_resnet18(in_channels=in_channels, num_classes=num_classes, **given)
    renamed = {"widen" if option == "width" else option: value for option, value in given.items()}
    return wide_resnet16_8(in_channels=in_channels, num_classes=num_classes, **renamed)


_OWN_OPTIONS = {"preact_resnet18": ("final_norm", "strides", "width"), "wide_resnet16_8": ("strides", "width")}


def _timm(name: str, num_classes: int, in_channels: int, size: int | None, options: dict[str, Any]) -> StagedNetwork:
    timm = require("timm", by=f"model {name!r}")
    model = name.partition(":")[2]
    _require(name, model.partition(".")[0], timm.list_models(), options, ["pretrained"])
    create = partial(timm.create_model, model, num_classes=num_classes, in_chans=in_channels, **options)
    return adapt(_create(create, name, "img_size", size))


def _torchvision(
    name: str, num_classes: int, in_channels: int, size: int | None, options: dict[str, Any]
) -> StagedNetwork:
    models = require("torchvision.models", by=f"model {name!r}")
    model = name.partition(":")[2]
    _require(name, model, models.list_models(module=models), options, ["pretrained"])
    if in_channels != 3:
        raise ValueError(f"in_channels does not apply to {name!r}, whose images have 3 channels, got {in_channels}")
    if not options:
        create = partial(models.get_model, model, weights=None, num_classes=num_classes)
        argument, value = ("input_size", size and (size, size)) if model == "maxvit_t" else ("image_size", size)
        return adapt(_create(create, name, argument, value))
    network = cast("AdaptedNetwork", adapt(models.get_model(model, weights="DEFAULT")))
    if num_classes != 1000:  # the classes of ImageNet
        head = nn.Linear(cast("int", network.head_module.in_features), num_classes)
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
