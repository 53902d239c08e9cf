"""Any model that ends in a linear layer: what enters that layer is embedded."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from multimix.models._adapted import AdaptedNetwork
from multimix.models._inputs import masked_mean, require_keywords
from multimix.models._names import linear_layers, require_module
from multimix.models._replay import run_into
from multimix.models._trace import trace
from multimix.protocols import EncoderOutput


class HeadNetwork(AdaptedNetwork):
    """A model whose own forward pass is run up to its head; which layer that is, the first batch may tell.

    Embeddings are one row an example, so only methods that mix inputs or embeddings have something to mix, and those
    that mix stages where stages are named.
    """

    def __init__(self, model: nn.Module, *, head: str | None, stages: Sequence[str]):
        """Take a model and the names of its head, if it is known, and of its stages."""
        layer = model.get_submodule(head) if head else None
        width = getattr(layer, "in_features", getattr(layer, "in_channels", None))
        super().__init__(
            model,
            head=head or next(iter(linear_layers(model)), ""),
            stages=stages,
            width=width if isinstance(width, int) else None,
        )
        self._is_found = head is not None

    @property
    def missing(self) -> dict[str, str]:
        """What cannot be mixed here, ``positions`` or ``stages``, and what to write to have it."""
        return super().missing if self.dense else {"positions": _NO_POSITIONS, **super().missing}

    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b *r d"]:
        """Return the one embedding of each example; where every position has logits, features as they are."""
        features = EncoderOutput.of(output).features
        return features if self.dense else masked_mean(features, None)

    def _encode(self, inputs: Any) -> tuple[Tensor, None]:
        name, model = self.head_name, type(self.model).__name__
        if not self._is_found:
            raise ValueError(
                f"head: that of {model} is found on the first batch; run one before compiling, or pass head="
            )
        never = f"head: {model} never runs {name!r} in its forward pass"
        entered = run_into(self.model.get_submodule(name), lambda: self._whole(inputs), otherwise=never)
        if not isinstance(entered, Tensor):
            raise TypeError(f"head: {name!r} of {model} must be called with a tensor, got {type(entered).__name__}")
        if self.dense or entered.ndim == 2:
            return entered, None
        if entered.ndim > 2 and entered.shape[1:].numel() == entered.shape[1]:
            return entered.flatten(1), None
        raise ValueError(
            f"head: what enters {name!r} of {model} has shape {tuple(entered.shape)}, not one row an example; where "
            "every position has logits, pass dense=True, and where the model pools them, encoder= and pool="
        )

    def _refuse(self, inputs: Any) -> None:
        require_keywords(self.model, inputs)

    def _mask_of(self, inputs: Any, features: Float[Tensor, "b r d"]) -> Tensor | None:
        return super()._mask_of(inputs, features) if self.dense else None

    def _check(self, inputs: Any) -> None:
        written = trace(self, inputs)
        if not self._is_found:
            self.head_name = written.head()
        elif not self.dense:
            written.require_head(self.head_name)
        self._is_found = True
        super()._check(inputs)


_NO_POSITIONS = (
    "network: it has one embedding an example and no positions to mix; name the module whose output has some, "
    "adapt(model, encoder=NAME, head=NAME), and pass pool= unless the model pools it by its mean"
)


def adapt_head(model: nn.Module, *, head: str | None, stages: Sequence[str]) -> HeadNetwork:
    """Return a model as a network that is split where its head begins.

    Raises:
        ValueError: If there is no such layer, or no name is given and no layer could be it.
    """
    if head is not None:
        require_module(model, head, "head")
    elif not any(True for _ in model.children()):
        raise ValueError(f"model: {type(model).__name__} is a single layer; put it into nn.Sequential, behind others")
    elif not any(parameter.ndim > 1 for parameter in model.parameters()):
        raise ValueError(f"model: {type(model).__name__} has no layer with weights that could give logits")
    return HeadNetwork(model, head=head, stages=stages)
