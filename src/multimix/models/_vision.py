"""timm's models, all split alike, and torchvision's classifiers, by a table of what each family runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multimix.models._modules import matching
from multimix.models._network import AdaptedNetwork
from multimix.models._transformers import derives
from multimix.models._values import keywords
from multimix.protocols import EncoderOutput

_STAGES = (
    "layer[1-9] stages.* layers.* blocks.* s[1-9] features.* network.* levels.* stage[1-9] level[0-9] dense_stages.* "
    "body.layer[1-9] encoder.blocks.* serial_blocks[1-4].* Mixed_* block[0-9]*"
)
_STAGES_OF = {  # the blocks of these pass on more than the one tensor that could be mixed
    "MobileNetV5": "blocks.[0-2] msfa",
    "MultiScaleVit": "norm",
    "NASNetALarge": "conv0 act",
    "PNASNet5Large": "conv_0 act",
    "PoolingVisionTransformer": "norm",
    "SelecSls": "head.*",
    "TNT": "norm",
}
# The logits of these are the mean of two classifiers of the same embedding.
_AVERAGED = {"EfficientFormer", "EfficientFormerV2", "LevitDistilled", "SwiftFormer"}


class TimmNetwork(AdaptedNetwork):
    """A timm model, through its own ``forward_features`` and ``forward_head``, perhaps inside transformers' wrapper."""

    def __init__(self, model: nn.Module, stages: Sequence[str]):
        timm = _timm_of(model)
        if getattr(timm, "aux_head", None) is not None:
            raise ValueError(
                f"model: {type(timm).__name__} adds the maximum of auxiliary logits over positions, which no pooled "
                "embedding can give; create it with use_aux_head=False, or set its aux_head to None"
            )
        classes = {cls.__name__ for cls in type(timm).__mro__ if cls.__module__.startswith("timm.")}
        classifiers = _classifiers(timm)
        if len(classifiers) != 1 and not (len(classifiers) == 2 and classes & _AVERAGED):
            raise ValueError(
                f"model: {type(timm).__name__} combines several classifiers, so it has no single head (if they are "
                "for distillation, take the variant without it)"
            )
        # A few models call pooling and layer together their classifier.
        layer = getattr(classifiers[0], "fc", None)
        head = layer if isinstance(layer, nn.Linear) else classifiers[0]
        patterns = [_STAGES_OF[name] for name in classes & _STAGES_OF.keys()] or _STAGES.split()
        blocks = next((found for pattern in patterns if (found := matching(timm, pattern))), [])
        super().__init__(
            model,
            head=next(name for name, module in model.named_modules() if module is head),
            stages=stages or ["timm_model." * (timm is not model) + name for name in blocks],
            width=getattr(timm, "num_features", None),
            prefix_tokens=getattr(timm, "num_prefix_tokens", 0),
        )

    @property
    def head(self) -> nn.Module | None:  # type: ignore[override]
        """The affine layer behind ``classify``, or None, as for the mean of two classifiers."""
        return super().head if len(_classifiers(_timm_of(self.model))) == 1 else None

    def classify(self, embeddings: Float[Tensor, "*any d"]) -> Float[Tensor, "*any k"]:
        """Return the logits of embeddings."""
        classifiers = _classifiers(_timm_of(self.model))
        if len(classifiers) == 1:
            return super().classify(embeddings)
        rows = embeddings.reshape(-1, embeddings.shape[-1])
        logits = torch.stack([classifier(rows) for classifier in classifiers]).mean(0)
        return logits.reshape(*embeddings.shape[:-1], logits.shape[-1])

    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b e"]:
        """Return what the model feeds its head: everything between the encoder's output and the head."""
        x = _timm_of(self.model).forward_head(self._restore(output), pre_logits=True)
        container = self.model.get_submodule(self.head_name.rpartition(".")[0])
        # timm's pre_logits stop before the normalisation that is in here with the classifier.
        for layer in list(container)[:-1] if type(container).__name__ == "NormLinear" else ():
            x = layer(x)
        return x

    def first_batch(self, inputs: Any) -> None:
        """Raise if the model takes no inputs like those of the first batch."""
        if _timm_of(self.model) is self.model or not isinstance(inputs, Mapping):
            super().first_batch(inputs)
        elif list(keywords(inputs)) != ["pixel_values"]:
            raise ValueError(
                f"inputs must hold 'pixel_values' alone for {type(self.model).__name__}, got {', '.join(inputs)}"
            )

    def _encode(self, inputs: Any) -> tuple[Tensor, None]:
        images = inputs["pixel_values"] if isinstance(inputs, Mapping) else inputs
        features = _timm_of(self.model).forward_features(images)
        if not isinstance(features, Tensor):
            raise ValueError(
                f"model: {type(self.model).__name__} gives a {type(features).__name__} of features, not one tensor; "
                f"pass head={self.head_name!r}, to mix maps encoder= and pool=, too"
            )
        return features, None


def _timm_of(model: nn.Module) -> Any:
    """Return the timm model inside transformers' wrapper, or the model itself."""
    return model.timm_model if derives(model, "TimmWrapperForImageClassification") else model


def is_timm(model: nn.Module) -> bool:
    """Whether a model, or what is inside transformers' wrapper, has the methods that every timm classifier has."""
    timm = _timm_of(model)
    return all(callable(getattr(timm, name, None)) for name in ("forward_features", "forward_head", "get_classifier"))


def _classifiers(model: nn.Module) -> list[nn.Module]:
    """Return a model's classifiers, of which a model without its distillation has one."""
    found = model.get_classifier()  # type: ignore[operator]  # torch types every attribute as tensor or module
    every = found if isinstance(found, tuple | nn.ModuleList) else (found,)
    heads = [head for head in every if isinstance(head, nn.Module)]
    if not heads or isinstance(heads[0], nn.Identity):
        raise ValueError(f"model: {type(model).__name__} has no classifier; create it with num_classes of at least 1")
    return heads


def _flat(model: Any, x: Tensor) -> Tensor:
    return model.avgpool(x).flatten(1)


def _mean(model: Any, x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def _dropped(model: Any, x: Tensor) -> Tensor:
    return model.dropout(_flat(model, x))


def _tokens(model: Any, x: Tensor) -> Tensor:
    return torch.cat([model.class_token.expand(len(x), -1, -1), model._process_input(x)], dim=1)


@dataclass(frozen=True)
class _Family:
    """How the models of one class compute their logits."""

    pool: Callable[[Any, Tensor], Tensor]  # what comes between the encoder and the module of the head
    head: str  # the classifier; of a sequence, the last layer is the head and those before it belong to pooling
    stages: str  # patterns of the names of the blocks
    encoder: str = ""  # modules that run one after another; if none, all in front of avgpool or the head
    begin: Callable[[Any, Tensor], Tensor] = lambda model, x: x  # what comes before the modules of the encoder


_FAMILIES = {
    "AlexNet": _Family(_flat, "classifier", "features.*"),
    "ConvNeXt": _Family(lambda model, x: model.avgpool(x), "classifier", "features.*"),
    "DenseNet": _Family(lambda model, x: _mean(model, F.relu(x)), "classifier", "features.denseblock*"),
    "EfficientNet": _Family(_flat, "classifier", "features.*"),
    "GoogLeNet": _Family(_dropped, "fc", "inception*", begin=lambda model, x: model._transform_input(x)),
    "Inception3": _Family(_dropped, "fc", "Mixed_*", begin=lambda model, x: model._transform_input(x)),
    "MNASNet": _Family(_mean, "classifier", "layers.*"),
    "MaxVit": _Family(lambda model, x: x, "classifier", "blocks.*"),
    "MobileNetV2": _Family(_mean, "classifier", "features.*"),
    "MobileNetV3": _Family(_flat, "classifier", "features.*"),
    "RegNet": _Family(_flat, "fc", "trunk_output.*"),
    "ResNet": _Family(_flat, "fc", "layer[1-4]"),
    "ShuffleNetV2": _Family(_mean, "fc", "stage[2-4] conv5"),
    "SwinTransformer": _Family(_flat, "head", "features.*"),
    "VGG": _Family(_flat, "classifier", "features.*"),
    "VisionTransformer": _Family(lambda model, x: x[:, 0], "heads", "encoder.layers.*", "encoder", _tokens),
}


class TorchvisionNetwork(AdaptedNetwork):
    """A torchvision classifier, run module by module as its family does."""

    def __init__(self, model: nn.Module, name: str, stages: Sequence[str]):
        if name == "SqueezeNet":
            raise ValueError(
                "model: torchvision's SqueezeNet ends in a convolution and a ReLU, not in a linear layer; give it one, "
                "and pass encoder='features' and head=, that layer's name"
            )
        if any(getattr(model, beside, None) is not None for beside in ("aux1", "aux2", "AuxLogits")):
            raise ValueError(
                f"model: torchvision's {name} has auxiliary classifiers; adapt(model, head='fc') trains its main one; "
                "aux_logits=False leaves them out"
            )
        family = _FAMILIES[name]
        module = model.get_submodule(family.head)
        last = f".{list(module._modules)[-1]}" if isinstance(module, nn.Sequential) else ""
        super().__init__(model, head=family.head + last, stages=stages or matching(model, family.stages))
        self._family = name

    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b e"]:
        """Return what the model feeds its head: everything between the encoder's output and the head."""
        family = _FAMILIES[self._family]
        x = family.pool(self.model, self._restore(output))
        classifier = self.model.get_submodule(family.head)
        return classifier[:-1](x) if isinstance(classifier, nn.Sequential) else x

    def _encode(self, inputs: Tensor) -> tuple[Tensor, None]:
        family = _FAMILIES[self._family]
        children = takewhile(lambda name: name not in ("avgpool", family.head), dict(self.model.named_children()))
        x = family.begin(self.model, inputs)
        for name in family.encoder.split() or children:
            module = self.model.get_submodule(name)
            for step in module if isinstance(module, nn.ModuleList) else (module,):
                x = step(x)
        return x, None


def family_of(model: nn.Module) -> str | None:
    """Return the name of the torchvision class that a model is or derives from, if it is one that is known here."""
    classes = [cls for cls in type(model).__mro__ if cls.__module__.startswith("torchvision.models.")]
    return next((cls.__name__ for cls in classes if cls.__name__ in {*_FAMILIES, "SqueezeNet"}), None)
