"""torchvision's classifiers: a table of what runs before and after the features of each family."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multimix.models._adapted import AdaptedNetwork
from multimix.models._names import matching
from multimix.protocols import EncoderOutput


def _as_is(model: Any, x: Tensor) -> Tensor:
    return x


def _flat(model: Any, x: Tensor) -> Tensor:
    return model.avgpool(x).flatten(1)


def _unflat(model: Any, x: Tensor) -> Tensor:
    return model.avgpool(x)


def _mean(model: Any, x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def _active_mean(model: Any, x: Tensor) -> Tensor:
    return _mean(model, F.relu(x))


def _class_token(model: Any, x: Tensor) -> Tensor:
    return x[:, 0]


def _dropped(model: Any, x: Tensor) -> Tensor:
    return model.dropout(_flat(model, x))


def _transformed(model: Any, x: Tensor) -> Tensor:
    return model._transform_input(x)


def _tokens(model: Any, x: Tensor) -> Tensor:
    return torch.cat([model.class_token.expand(len(x), -1, -1), model._process_input(x)], dim=1)


@dataclass(frozen=True)
class _Family:
    """How the models of one class compute their logits, in the order of the fields."""

    encoder: tuple[str, ...]
    """Modules that run one after another; their last output is what ``embed`` gives."""
    pool: Callable[[Any, Tensor], Tensor]
    """What comes between them and the module of the head."""
    head: str
    """The classifier; of a sequence, the last layer is the head and those before it belong to pooling."""
    stages: tuple[str, ...]
    """Patterns of the stages' names."""
    begin: Callable[[Any, Tensor], Tensor] = _as_is
    """What comes before the modules of the encoder."""


_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_GOOGLENET = (
    *("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3"),
    *(f"inception4{i}" for i in "abcde"),
    *("maxpool4", "inception5a", "inception5b"),
)
_INCEPTION = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *(f"Mixed_{i}" for i in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")),
)
_SHUFFLENET = ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5")
_FAMILIES = {
    "AlexNet": _Family(("features",), _flat, "classifier", ("features.*",)),
    "ConvNeXt": _Family(("features",), _unflat, "classifier", ("features.*",)),
    "DenseNet": _Family(("features",), _active_mean, "classifier", ("features.denseblock*",)),
    "EfficientNet": _Family(("features",), _flat, "classifier", ("features.*",)),
    "GoogLeNet": _Family(_GOOGLENET, _dropped, "fc", ("inception*",), begin=_transformed),
    "Inception3": _Family(_INCEPTION, _dropped, "fc", ("Mixed_*",), begin=_transformed),
    "MNASNet": _Family(("layers",), _mean, "classifier", ("layers.*",)),
    "MaxVit": _Family(("stem", "blocks"), _as_is, "classifier", ("blocks.*",)),
    "MobileNetV2": _Family(("features",), _mean, "classifier", ("features.*",)),
    "MobileNetV3": _Family(("features",), _flat, "classifier", ("features.*",)),
    "RegNet": _Family(("stem", "trunk_output"), _flat, "fc", ("trunk_output.*",)),
    "ResNet": _Family(_RESNET, _flat, "fc", ("layer[1-4]",)),
    "ShuffleNetV2": _Family(_SHUFFLENET, _mean, "fc", ("stage[2-4]", "conv5")),
    "SwinTransformer": _Family(("features", "norm", "permute"), _flat, "head", ("features.*",)),
    "VGG": _Family(("features",), _flat, "classifier", ("features.*",)),
    "VisionTransformer": _Family(("encoder",), _class_token, "heads", ("encoder.layers.*",), begin=_tokens),
}
_REFUSED = {
    "SqueezeNet": "ends in a convolution and a ReLU, not in a linear layer; give it one, and pass encoder='features' "
    "and head=, that layer's name",
}
_AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Attributes that are classifiers beside the main one."""


class TorchvisionNetwork(AdaptedNetwork):
    """A torchvision classifier, run module by module as its family does."""

    def __init__(self, model: nn.Module, family: _Family, stages: Sequence[str]):
        """Take a model of a family."""
        module = model.get_submodule(family.head)
        last = f".{list(module._modules)[-1]}" if isinstance(module, nn.Sequential) else ""
        super().__init__(model, head=family.head + last, stages=stages or matching(model, family.stages))
        self._family = family

    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b e"]:
        """Return what the model feeds its head: everything between the encoder's output and the head.

        Raises:
            ValueError: If the positions fit no grid that ``embed`` gave.
        """
        x = self._family.pool(self.model, self._restore(output))
        classifier = self.model.get_submodule(self._family.head)
        return classifier[:-1](x) if isinstance(classifier, nn.Sequential) else x

    def _encode(self, inputs: Tensor) -> tuple[Tensor, None]:
        x = self._family.begin(self.model, inputs)
        for name in self._family.encoder:
            x = _run(self.model.get_submodule(name), x)
        return x, None


def family_of(model: nn.Module) -> str | None:
    """Return the name of the torchvision class that a model is or derives from, if it is one that is known here."""
    known = _FAMILIES.keys() | _REFUSED.keys()
    classes = [cls for cls in type(model).__mro__ if cls.__module__.startswith("torchvision.models.")]
    return next((cls.__name__ for cls in classes if cls.__name__ in known), None)


def adapt_torchvision(model: nn.Module, family: str, stages: Sequence[str]) -> TorchvisionNetwork:
    """Return a model of a known torchvision family as a network; stages are its blocks.

    Raises:
        ValueError: If models of this family cannot be split by themselves, with what to pass.
    """
    if family in _REFUSED:
        raise ValueError(f"model: torchvision's {family} {_REFUSED[family]}")
    known = _FAMILIES[family]
    if any(getattr(model, name, None) is not None for name in _AUXILIARY):
        raise ValueError(
            f"model: torchvision's {family} has auxiliary classifiers; adapt(model, head='fc') trains its main one; "
            "aux_logits=False leaves them out"
        )
    return TorchvisionNetwork(model, known, stages)


def _run(module: nn.Module, x: Tensor) -> Tensor:
    for step in module if isinstance(module, nn.ModuleList) else (module,):
        x = step(x)
    return x
