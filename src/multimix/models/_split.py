"""Any model, split where its head begins, or at the names of its encoder and its head."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from multimix.models._hooks import in_eval, run_to, same_random_state
from multimix.models._names import linear_layers, listed, require_module, width_of
from multimix.models._network import AdaptedNetwork
from multimix.models._trace import trace
from multimix.models._values import MaskSource, first_output, given_mask, masked_mean, require_keywords
from multimix.protocols import EncoderOutput


class SplitNetwork(AdaptedNetwork):
    """A model that runs up to a named encoder, whose output is embedded, or up to its head.

    What enters the head is one row an example, so only methods that mix inputs or embeddings have something to mix,
    and those that mix stages where stages are named. Which layer it is, the first batch may tell. A mapping is passed
    to the model as keywords. Packed sequences and nested tensors are padded, which sets the mask.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        encoder: str | None,
        head: str | None,
        pool: Callable | None,
        stages: Sequence[str],
        mask: MaskSource | None,
    ):
        """Take a model, the names of its encoder and its head, what is done between them, and where masks come from."""
        # With a function in between, the width of the head says nothing of the features.
        width = width_of(model.get_submodule(head)) if head and pool is None else None
        super().__init__(model, head=head or next(iter(linear_layers(model)), ""), stages=stages, width=width)
        self.encoder_name = encoder
        self._is_found = head is not None
        self._mask_source = mask
        self._pool_takes_mask = pool is not None and _takes_mask(pool)
        if isinstance(pool, nn.Module) and pool in set(model.modules()):
            # The model has it already; a second registration would double its saved weights.
            vars(self)["_pooling"] = pool
        else:
            self._pooling = pool

    @property
    def missing(self) -> dict[str, str]:
        """What cannot be mixed here, ``positions`` or ``stages``, and what to write to have it."""
        rows = self.encoder_name is None and not self.dense
        return {"positions": _NO_POSITIONS, **super().missing} if rows else super().missing

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

    def first_batch(self, inputs: Any) -> None:
        """Find the head, or raise if the named one gives no logits, or the model takes no such inputs."""
        require_keywords(self.model, inputs)
        if self.encoder_name is not None:
            return
        with self.unmixed(), in_eval(self), torch.no_grad(), same_random_state(self):
            written = trace(self.model, lambda: self.run(inputs))
        if not self._is_found:
            self.head_name = written.head()
        elif not self.dense:
            written.require_head(self.head_name)
        self._is_found = True

    def _encode(self, inputs: Any) -> tuple[Tensor | PackedSequence, None]:
        if self.encoder_name is None:
            return self._entering_head(inputs), None
        module = self.model.get_submodule(self.encoder_name)
        never = f"encoder: {type(self.model).__name__} never runs {self.encoder_name!r} in its forward pass"
        output = first_output(run_to(module, lambda: self.run(inputs), otherwise=never))
        if isinstance(module, nn.RNNBase) and not module.batch_first and isinstance(output, Tensor):
            return output.transpose(0, 1), None
        return output, None

    def _entering_head(self, inputs: Any) -> Tensor:
        name, model = self.head_name, type(self.model).__name__
        if not self._is_found:
            raise ValueError(
                f"head: that of {model} is found on the first batch; run one before compiling, or pass head="
            )
        never = f"head: {model} never runs {name!r} in its forward pass"
        entered = run_to(self.head_module, lambda: self.run(inputs), before=True, otherwise=never)
        if not isinstance(entered, Tensor):
            raise TypeError(f"head: {name!r} of {model} must be called with a tensor, got {type(entered).__name__}")
        if self.dense or entered.ndim == 2:
            return entered
        if entered.ndim > 2 and entered.shape[1:].numel() == entered.shape[1]:
            return entered.flatten(1)
        raise ValueError(
            f"head: what enters {name!r} of {model} has shape {tuple(entered.shape)}, not one row an example; where "
            "every position has logits, pass dense=True, and where the model pools them, encoder= and pool="
        )

    def _mask_of(self, inputs: Any, features: Float[Tensor, "b r d"]) -> Tensor | None:
        if self.encoder_name is None and not self.dense:
            return None
        if self._mask_source is None:
            return super()._mask_of(inputs, features)
        return given_mask(self._mask_source, inputs, features)


_NO_POSITIONS = (
    "network: it has one embedding an example and no positions to mix; name the module whose output has some, "
    "adapt(model, encoder=NAME, head=NAME), and pass pool= unless the model pools it by its mean"
)


def split(
    model: nn.Module,
    *,
    encoder: str | None = None,
    head: str | None = None,
    pool: Callable | None = None,
    stages: Sequence[str] = (),
    mask: MaskSource | None = None,
) -> SplitNetwork:
    """Return a model as a network, split at the names given; raise if they name nothing that a network can have."""
    name = type(model).__name__
    if encoder is not None and head is None:
        raise ValueError(
            "head must be given with encoder: the dotted name of the layer that gives the logits; the linear layers of "
            f"{name} are {listed(linear_layers(model))}"
        )
    if encoder is not None:
        require_module(model, encoder, "encoder")
    if head is not None:
        require_module(model, head, "head")
    elif not any(True for _ in model.children()):
        raise ValueError(f"model: {name} is a single layer; put it into nn.Sequential, behind others")
    elif not any(parameter.ndim > 1 for parameter in model.parameters()):
        raise ValueError(f"model: {name} has no layer with weights that could give logits")
    if pool is not None and not callable(pool):
        raise TypeError(f"pool must be a function (b, r, d) -> (b, e), got {type(pool).__name__}")
    if not (mask is None or isinstance(mask, str) or callable(mask)):
        raise TypeError(f"mask must be a key of the inputs or a function of them, got {type(mask).__name__}")
    _require_copyable(pool=pool, mask=mask)
    return SplitNetwork(model, encoder=encoder, head=head, pool=pool, stages=stages, mask=mask)


def _takes_mask(pool: Callable) -> bool:
    """Return whether a second argument must be given, or is called ``mask``."""
    try:
        parameters = inspect.signature(pool.forward if isinstance(pool, nn.Module) else pool).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not say
        return False
    second = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][1:2]
    return any(p.name == "mask" or p.default is p.empty for p in second)


def _require_copyable(**functions: object) -> None:
    for argument, given in functions.items():
        variables = inspect.getclosurevars(given) if inspect.isfunction(given) else None
        for name, value in {**variables.globals, **variables.nonlocals}.items() if variables else ():
            if isinstance(value, nn.Module):
                raise ValueError(
                    f"{argument} uses the module {name!r} from outside, which a copy of the network (a teacher, say) "
                    "would share; pass an nn.Module that holds it, or a method of the model"
                )
