"""Any model, given the names of its encoder and its head."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from multimix.models._adapted import AdaptedNetwork
from multimix.models._inputs import MaskSource, given_mask, masked_mean, require_keywords
from multimix.models._names import linear_layers, listed, require_module
from multimix.models._outputs import first_output
from multimix.models._replay import run_until
from multimix.protocols import EncoderOutput


class NamedNetwork(AdaptedNetwork):
    """A model whose features are the output of a named module: the forward pass stops there.

    A mapping is passed to the model as keywords. Packed sequences and nested tensors are padded, which sets the mask.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        encoder: str,
        head: str,
        pool: Callable | None,
        stages: Sequence[str],
        mask: MaskSource | None = None,
    ):
        """Take a model, the names of its encoder and its head, what is done between them, and where masks come from."""
        layer = model.get_submodule(head)
        # With a function in between, the width of the head says nothing of the features.
        width = getattr(layer, "in_features", getattr(layer, "in_channels", None)) if pool is None else None
        super().__init__(model, head=head, stages=stages, width=width if isinstance(width, int) else None)
        self.encoder_name: str = encoder
        self._mask_source = mask
        self._pool_takes_mask = pool is not None and _takes_mask(pool)
        if isinstance(pool, nn.Module) and pool in set(model.modules()):
            vars(self)["_pooling"] = (
                pool  # the model has it already; a second registration would double its saved weights
            )
        else:
            self._pooling = pool

    @property
    def pools_by_mean(self) -> bool:
        """Whether nothing was given to be done between encoder and head."""
        return self._pooling is None

    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b *r e"]:
        """Return what the given function makes of the positions, by default the mean over those that are real.

        A function of two parameters gets the mask as well, (b, r), true everywhere if there is none. Where every
        position has logits, features come back as they are.
        """
        output = EncoderOutput.of(output)
        features, mask = output.features, output.mask
        if self.dense:
            return features
        if self._pooling is None:
            return masked_mean(features, mask)
        if not self._pool_takes_mask:
            return self._pooling(features)
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        return self._pooling(features, mask)

    def _encode(self, inputs: Any) -> tuple[Tensor | PackedSequence, None]:
        module = self.model.get_submodule(self.encoder_name)
        never = f"encoder: {type(self.model).__name__} never runs {self.encoder_name!r} in its forward pass"
        output = first_output(run_until(module, lambda: self._whole(inputs), otherwise=never))
        if isinstance(module, nn.RNNBase) and not module.batch_first and isinstance(output, Tensor):
            return output.transpose(0, 1), None
        return output, None

    def _mask_of(self, inputs: Any, features: Float[Tensor, "b r d"]) -> Tensor | None:
        if self._mask_source is None:
            return super()._mask_of(inputs, features)
        return given_mask(self._mask_source, inputs, features)

    def _refuse(self, inputs: Any) -> None:
        require_keywords(self.model, inputs)


def adapt_named(
    model: nn.Module,
    *,
    encoder: str,
    head: str | None,
    pool: Callable | None,
    stages: Sequence[str],
    mask: MaskSource | None = None,
) -> NamedNetwork:
    """Return a model as a network, split at two named modules.

    Raises:
        ValueError: If a name is missing or unknown, or ``pool`` or ``mask`` cannot be copied with the network.
        TypeError: If ``pool`` cannot be called, or ``mask`` is neither a key nor a function.
    """
    if head is None:
        raise ValueError(
            "head must be given with encoder: the dotted name of the layer that gives the logits; the linear layers of "
            f"{type(model).__name__} are {listed(linear_layers(model))}"
        )
    require_module(model, encoder, "encoder")
    require_module(model, head, "head")
    if pool is not None and not callable(pool):
        raise TypeError(f"pool must be a function (b, r, d) -> (b, e), got {type(pool).__name__}")
    if not (mask is None or isinstance(mask, str) or callable(mask)):
        raise TypeError(f"mask must be a key of the inputs or a function of them, got {type(mask).__name__}")
    _require_copyable(pool, "pool")
    _require_copyable(mask, "mask")
    return NamedNetwork(model, encoder=encoder, head=head, pool=pool, stages=stages, mask=mask)


def _takes_mask(pool: Callable) -> bool:
    """Return whether a second argument must be given, or is called ``mask``."""
    try:
        parameters = inspect.signature(pool.forward if isinstance(pool, nn.Module) else pool).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not say
        return False
    second = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][1:2]
    return any(p.name == "mask" or p.default is p.empty for p in second)


def _require_copyable(given: object, argument: str) -> None:
    if not inspect.isfunction(given):
        return
    variables = inspect.getclosurevars(given)
    for name, value in {**variables.globals, **variables.nonlocals}.items():
        if isinstance(value, nn.Module):
            raise ValueError(
                f"{argument} uses the module {name!r} from outside, which a copy of the network (a teacher, say) would "
                "share; pass an nn.Module that holds it, or a method of the model"
            )
