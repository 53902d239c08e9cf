"""Networks by name."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import nn

from multimix._optional import require
from multimix.models._adapt import adapt
from multimix.models._adapted import AdaptedNetwork
from multimix.models._network import StagedNetwork
from multimix.models._preact import preact_resnet18, wide_resnet16_8

MODELS = ("preact_resnet18", "wide_resnet16_8")
"""The names of our own networks, for small images."""

_IMAGENET_CLASSES = 1000


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int | None = None,
    strides: Sequence[int] | None = None,
    final_norm: bool | None = None,
    pretrained: bool = False,
    image_size: int | None = None,
) -> StagedNetwork:
    """Return a network by name; its weights are drawn from torch's global generator.

    Args:
        name: One of ``MODELS``, ``timm:NAME`` or ``torchvision:NAME``.
        num_classes: Number of logits.
        in_channels: Channels of the images; torchvision's models take 3.
        width: Of our own networks: channels of PreActResNet's first group, widening factor of the wide ResNet.
        strides: Of our own networks: stride of each group.
        final_norm: Of ``preact_resnet18``: whether batch normalisation and ReLU follow the last group.
        pretrained: Of timm's and torchvision's models: whether to load (perhaps download) their default weights. The
            head is new where the classes are not as many as in the weights.
        image_size: Height and width of the images. Transformers and the like are made for it; networks that take any
            size, pre-trained ones included, do without.

    Raises:
        ValueError: If the name is unknown, an argument does not apply to that model, or a number is below 1.
        TypeError: If the name is no text, or a number no integer.
    """
    if not isinstance(name, str):
        raise TypeError(f"model must be the name of a network, got {name!r}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    given = {"width": width, "strides": strides, "final_norm": final_norm, "pretrained": pretrained or None}
    options = {argument: value for argument, value in given.items() if value is not None}
    source, _, rest = name.partition(":")
    if source == "timm" and rest:
        return _timm(name, rest, num_classes, in_channels, image_size, options)
    if source == "torchvision" and rest:
        return _torchvision(name, rest, num_classes, in_channels, image_size, options)
    return _own(name, num_classes, in_channels, options)


def _own(name: str, num_classes: int, in_channels: int, options: dict[str, Any]) -> StagedNetwork:
    _require_known(name, name, MODELS, "; other models are timm:NAME and torchvision:NAME")
    if name == "preact_resnet18":
        _require_applicable(name, options, {"width", "strides", "final_norm"})
        return preact_resnet18(in_channels=in_channels, num_classes=num_classes, **options)
    _require_applicable(name, options, {"width", "strides"})
    renamed = {"widen" if argument == "width" else argument: value for argument, value in options.items()}
    return wide_resnet16_8(in_channels=in_channels, num_classes=num_classes, **renamed)


def _timm(
    name: str, model: str, num_classes: int, in_channels: int, size: int | None, options: dict[str, Any]
) -> StagedNetwork:
    timm = require("timm", by=f"model {name!r}")

    _require_known(name, model.partition(".")[0], timm.list_models())
    _require_applicable(name, options, {"pretrained"})
    create = partial(
        timm.create_model,
        model,
        num_classes=num_classes,
        in_chans=in_channels,
        pretrained=options.get("pretrained", False),
    )
    return adapt(_create(create, name, "img_size", size))


def _torchvision(
    name: str, model: str, num_classes: int, in_channels: int, size: int | None, options: dict[str, Any]
) -> StagedNetwork:
    models = require("torchvision.models", by=f"model {name!r}")

    _require_known(name, model, models.list_models(module=models))
    _require_applicable(name, options, {"pretrained"})
    if in_channels != 3:
        raise ValueError(f"in_channels does not apply to {name!r}, whose images have 3 channels, got {in_channels}")
    if options.get("pretrained"):
        return _pretrained_torchvision(model, num_classes)
    argument, value = ("input_size", size and (size, size)) if model == "maxvit_t" else ("image_size", size)
    return adapt(
        _create(partial(models.get_model, model, weights=None, num_classes=num_classes), name, argument, value)
    )


def _pretrained_torchvision(model: str, num_classes: int) -> StagedNetwork:
    models = require("torchvision.models", by=f"model {model!r}")

    network = adapt(models.get_model(model, weights="DEFAULT"))
    if num_classes != _IMAGENET_CLASSES and isinstance(network, AdaptedNetwork):
        _replace_head(network, num_classes)
    return network


def _replace_head(network: AdaptedNetwork, num_classes: int) -> None:
    old = network.model.get_submodule(network.head_name)
    network.model.set_submodule(network.head_name, nn.Linear(old.in_features, num_classes))


def _create(create: Callable[..., nn.Module], name: str, size_argument: str, size: Any) -> nn.Module:
    """Call a factory with an image size, if there is one; models that are made for any size do not take it."""
    if size is None:
        return create()
    try:
        return create(**{size_argument: size})
    except TypeError as error:
        if size_argument not in str(error):
            raise
        return create()  # a network for images of any size
    except AssertionError as error:
        raise ValueError(f"image_size does not suit {name!r}, got {size}: {error}") from error


def _require_known(name: str, wanted: str, known: Sequence[str], more: str = "") -> None:
    if wanted not in known:
        close = get_close_matches(wanted, known, n=4, cutoff=0.5)
        hint = (
            f"did you mean {', '.join(map(repr, close))}?" if close else f"there are {len(known)}, such as {known[0]!r}"
        )
        raise ValueError(f"name must be a known model, got {name!r}; {hint}{more}")


def _require_applicable(name: str, options: dict[str, Any], applicable: set[str]) -> None:
    for argument in options:
        if argument not in applicable:
            raise ValueError(f"{argument} does not apply to {name!r}; what does is {', '.join(sorted(applicable))}")
