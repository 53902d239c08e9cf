"""timm's models: all of them split their forward pass in the same way."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from multimix.models._adapted import AdaptedNetwork
from multimix.models._names import matching

_STAGES = (("layer[1-9]",), ("stages.*",), ("layers.*",), ("blocks.*",), ("s[1-9]",), ("features.*",))


class TimmNetwork(AdaptedNetwork):
    """A timm model, through its own ``forward_features`` and ``forward_head``."""

    def pool(self, features: Float[Tensor, "b r d"]) -> Float[Tensor, "b e"]:
        """Return what the model feeds its head: everything between the encoder's output and the head.

        Raises:
            ValueError: If the positions fit no grid that ``embed`` gave.
        """
        return self.model.forward_head(self._restore(features), pre_logits=True)

    def _encode(self, inputs: Tensor) -> Tensor:
        features = self.model.forward_features(inputs)
        if not isinstance(features, Tensor):
            raise ValueError(
                f"model: {type(self.model).__name__} gives a {type(features).__name__} of features, not one tensor; "
                "pass encoder= and head=, the names of the module whose output is to be mixed and of its classifier"
            )
        return features


def is_timm(model: nn.Module) -> bool:
    """Whether a model has the methods that every timm classifier has."""
    return all(callable(getattr(model, name, None)) for name in ("forward_features", "forward_head", "get_classifier"))


def adapt_timm(model: nn.Module, stages: Sequence[str]) -> TimmNetwork:
    """Return a timm model as a network; stages are ``layer1..4`` or what is in ``stages``, ``layers``, ``blocks``, ...

    Raises:
        ValueError: If the model does not have exactly one classifier.
    """
    defaults = next((found for patterns in _STAGES if (found := matching(model, patterns))), [])
    return TimmNetwork(
        model,
        head=_classifier_name(model),
        stages=stages or defaults,
        width=getattr(model, "num_features", None),
        prefix_tokens=getattr(model, "num_prefix_tokens", 0),
    )


def _classifier_name(model: nn.Module) -> str:
    classifier = model.get_classifier()  # type: ignore[operator]  # torch types every attribute as tensor or module
    name = type(model).__name__
    if isinstance(classifier, nn.Identity):
        raise ValueError(f"model: {name} has no classifier; create it with num_classes of at least 1")
    if not isinstance(classifier, nn.Module) or isinstance(classifier, nn.ModuleList):
        raise ValueError(
            f"model: {name} combines several classifiers, so it has no single head (if they are for distillation, take "
            "the variant without it)"
        )
    # A few models call pooling and layer together their classifier.
    layer = getattr(classifier, "fc", None)
    head = layer if isinstance(layer, nn.Linear) else classifier
    return next(name for name, module in model.named_modules() if module is head)
