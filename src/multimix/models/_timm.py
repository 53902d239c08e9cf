"""timm's models: all of them split their forward pass in the same way."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimix.models._adapted import AdaptedNetwork
from multimix.models._names import matching
from multimix.protocols import EncoderOutput

_STAGES = (
    ("layer[1-9]",),
    ("stages.*",),
    ("layers.*",),
    ("blocks.*",),
    ("s[1-9]",),
    ("features.*",),
    ("network.*",),
    ("levels.*",),
    ("stage[1-9]",),
    ("level[0-9]",),
    ("dense_stages.*",),
    ("body.layer[1-9]",),
    ("encoder.blocks.*",),
    tuple(f"serial_blocks{i}.*" for i in range(1, 5)),
    ("Mixed_*",),
    ("block[0-9]*",),
)
_STAGES_OF = {  # the blocks of these pass on more than the one tensor that could be mixed
    "MobileNetV5": ("blocks.[0-2]", "msfa"),
    "MultiScaleVit": ("norm",),
    "NASNetALarge": ("conv0", "act"),
    "PNASNet5Large": ("conv_0", "act"),
    "PoolingVisionTransformer": ("norm",),
    "SelecSls": ("head.*",),
    "TNT": ("norm",),
}
_AVERAGED = {"EfficientFormer", "EfficientFormerV2", "LevitDistilled", "SwiftFormer"}
"""Classes whose logits are the mean of two classifiers of the same embedding."""


class TimmNetwork(AdaptedNetwork):
    """A timm model, through its own ``forward_features`` and ``forward_head``."""

    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b e"]:
        """Return what the model feeds its head: everything between the encoder's output and the head.

        Raises:
            ValueError: If the positions fit no grid that ``embed`` gave.
        """
        x = self.model.forward_head(self._restore(output), pre_logits=True)
        container = self.model.get_submodule(self.head_name.rpartition(".")[0])
        # timm's pre_logits stop before the normalisation that is in here with the classifier.
        layers = list(container)[:-1] if _is_norm_linear(container) else []
        for layer in layers:
            x = layer(x)
        return x

    def _encode(self, inputs: Tensor) -> tuple[Tensor, None]:
        features = self.model.forward_features(inputs)
        if not isinstance(features, Tensor):
            raise ValueError(
                f"model: {type(self.model).__name__} gives a {type(features).__name__} of features, not one tensor; "
                f"pass head={self.head_name!r}, to mix maps encoder= and pool=, too"
            )
        return features, None


class AveragedTimmNetwork(TimmNetwork):
    """A timm model whose logits are the mean of two classifiers of the same embedding."""

    @property
    def head(self) -> None:  # type: ignore[override]
        """None, because no single layer gives the logits."""
        return None

    def classify(self, embeddings: Float[Tensor, "*any d"]) -> Float[Tensor, "*any k"]:
        """Return the mean of what the classifiers give."""
        rows = embeddings.reshape(-1, embeddings.shape[-1])
        logits = torch.stack([head(rows) for head in _classifiers(self.model)]).mean(0)
        return logits.reshape(*embeddings.shape[:-1], logits.shape[-1])


def is_timm(model: nn.Module) -> bool:
    """Whether a model has the methods that every timm classifier has."""
    return all(callable(getattr(model, name, None)) for name in ("forward_features", "forward_head", "get_classifier"))


def adapt_timm(model: nn.Module, stages: Sequence[str]) -> TimmNetwork:
    """Return a timm model as a network; stages are ``layer1..4`` or what is in ``stages``, ``layers``, ``blocks``, ...

    Raises:
        ValueError: If the model does not have exactly one classifier, or two of the same embedding,
            or adds auxiliary logits.
    """
    if getattr(model, "aux_head", None) is not None:
        raise ValueError(
            f"model: {type(model).__name__} adds the maximum of auxiliary logits over positions, which no pooled "
            "embedding can give; create it with use_aux_head=False, or set its aux_head to None"
        )
    classifiers = _classifiers(model)
    averaged = len(classifiers) == 2 and bool(_class_names(model) & _AVERAGED)
    if len(classifiers) != 1 and not averaged:
        raise ValueError(
            f"model: {type(model).__name__} combines several classifiers, so it has no single head (if they are for "
            "distillation, take the variant without it)"
        )
    network = AveragedTimmNetwork if averaged else TimmNetwork
    return network(
        model,
        head=_name_of(model, classifiers[0]),
        stages=stages or _usual_stages(model),
        width=getattr(model, "num_features", None),
        prefix_tokens=getattr(model, "num_prefix_tokens", 0),
    )


def _usual_stages(model: nn.Module) -> list[str]:
    for name in _class_names(model) & _STAGES_OF.keys():
        return matching(model, _STAGES_OF[name])
    return next((found for patterns in _STAGES if (found := matching(model, patterns))), [])


def _class_names(model: nn.Module) -> set[str]:
    return {cls.__name__ for cls in type(model).__mro__ if cls.__module__.startswith("timm.")}


def _classifiers(model: nn.Module) -> list[nn.Module]:
    """Return a model's classifiers, of which a model without its distillation has one.

    Raises:
        ValueError: If it has none.
    """
    found = model.get_classifier()  # type: ignore[operator]  # torch types every attribute as tensor or module
    every = found if isinstance(found, tuple | nn.ModuleList) else (found,)
    heads = [head for head in every if isinstance(head, nn.Module)]
    if not heads or isinstance(heads[0], nn.Identity):
        raise ValueError(f"model: {type(model).__name__} has no classifier; create it with num_classes of at least 1")
    return heads


def _name_of(model: nn.Module, classifier: nn.Module) -> str:
    # A few models call pooling and layer together their classifier.
    layer = getattr(classifier, "fc", None)
    head = layer if isinstance(layer, nn.Linear) else classifier
    return next(name for name, module in model.named_modules() if module is head)


def _is_norm_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).__name__ == "NormLinear"
