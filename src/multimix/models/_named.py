"""Any model, given the names of its encoder and its head."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from multimix.models._adapted import AdaptedNetwork
from multimix.models._check import first_tensor
from multimix.models._names import linear_layers, listed, require_module


class NamedNetwork(AdaptedNetwork):
    """A model whose features are the output of a named module: the forward pass stops there."""

    def __init__(self, model: nn.Module, *, encoder: str, head: str, pool: Callable | None, stages: Sequence[str]):
        """Take a model, the names of its encoder and its head, and what is done between them."""
        layer = model.get_submodule(head)
        # With a function in between, the width of the head says nothing of the features.
        width = layer.in_features if isinstance(layer, nn.Linear) and pool is None else None
        super().__init__(model, head=head, stages=stages, width=width)
        self._encoder = encoder
        if isinstance(pool, nn.Module) and pool in set(model.modules()):
            vars(self)["_pooling"] = (
                pool  # the model has it already; a second registration would double its saved weights
            )
        else:
            self._pooling = pool

    def pool(self, features: Float[Tensor, "b r d"]) -> Float[Tensor, "b e"]:
        """Return what the given function makes of the positions, by default their mean."""
        return features.mean(1) if self._pooling is None else self._pooling(features)

    def _encode(self, inputs: Tensor) -> Tensor:
        handle = self.model.get_submodule(self._encoder).register_forward_hook(_stop)
        try:
            self.model(inputs)
        except _ReachedError as reached:
            return first_tensor(reached.output)
        finally:
            handle.remove()
        raise ValueError(f"encoder: {type(self.model).__name__} never runs {self._encoder!r} in its forward pass")


class _ReachedError(BaseException):
    """Ends a forward pass at the encoder; not an Exception, so that no handler inside the model takes it."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output


def _stop(module: nn.Module, arguments: object, output: Any) -> None:
    raise _ReachedError(output)


def adapt_named(
    model: nn.Module, *, encoder: str | None, head: str | None, pool: Callable | None, stages: Sequence[str]
) -> NamedNetwork:
    """Return a model as a network, split at two named modules.

    Raises:
        ValueError: If a name is missing or unknown, or ``pool`` cannot be copied with the network.
        TypeError: If ``pool`` cannot be called.
    """
    if encoder is None:
        raise ValueError(
            "encoder must be given with head: the dotted name of the module whose output (map, tokens or vector) is "
            f"to be mixed; {type(model).__name__} has {listed([name for name, _ in model.named_children()])}"
        )
    if head is None:
        raise ValueError(
            "head must be given with encoder: the dotted name of the layer that gives the logits; the linear layers of "
            f"{type(model).__name__} are {listed(linear_layers(model))}"
        )
    require_module(model, encoder, "encoder")
    require_module(model, head, "head")
    _require_copyable(pool)
    return NamedNetwork(model, encoder=encoder, head=head, pool=pool, stages=stages)


def _require_copyable(pool: Callable | None) -> None:
    if pool is not None and not callable(pool):
        raise TypeError(f"pool must be a function (b, r, d) -> (b, e), got {type(pool).__name__}")
    if not inspect.isfunction(pool):
        return
    variables = inspect.getclosurevars(pool)
    for name, value in {**variables.globals, **variables.nonlocals}.items():
        if isinstance(value, nn.Module):
            raise ValueError(
                f"pool uses the module {name!r} from outside, which a copy of the network (a teacher, say) would "
                "share; pass an nn.Module that holds it, or a method of the model"
            )
