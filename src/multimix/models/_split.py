"""Any model, split where its head begins, or at the names of its encoder and its head."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from multimix._modules import evaluating
from multimix.models._modules import acts_affine, apart, axes_of, linear_layers, listed, require_module, run_to
from multimix.models._network import AdaptedNetwork
from multimix.models._values import MaskSource, first_output, given_mask, keywords, masked_mean, outputs_of, same
from multimix.protocols import EncoderOutput


class SplitNetwork(AdaptedNetwork):
    """A model that runs up to a named encoder, whose output is embedded, or up to its head, which has no positions."""

    def __init__(
        self,
        model: nn.Module,
        *,
        encoder: str | None = None,
        head: str | None = None,
        pool: Callable | None = None,
        stages: Sequence[str] = (),
        mask: MaskSource | None = None,
    ):
        _require_names(model, encoder, head)
        if pool is not None and not callable(pool):
            raise TypeError(f"pool must be a function (b, r, d) -> (b, e), got {type(pool).__name__}")
        if not (mask is None or isinstance(mask, str) or callable(mask)):
            raise TypeError(f"mask must be a key of the inputs or a function of them, got {type(mask).__name__}")
        _require_copyable(pool=pool, mask=mask)
        # With a function in between, the width of the head says nothing of the features.
        layer = model.get_submodule(head) if head and pool is None else None
        width = getattr(layer, "in_features", getattr(layer, "in_channels", None))
        super().__init__(model, head=head or next(iter(linear_layers(model)), ""), stages=stages, width=width)
        self.encoder_name, self.runs_to_head = encoder, encoder is None
        self.pools_by_mean = pool is None
        self._is_found = head is not None
        self._mask_source = mask
        self._pool_takes_mask = pool is not None and _takes_mask(pool)
        self._pooling: Any
        if isinstance(pool, nn.Module) and pool in set(model.modules()):
            # The model has it already; a second registration would double its saved weights.
            vars(self)["_pooling"] = pool
        else:
            self._pooling = pool

    def _missing(self) -> dict[str, str]:
        advice = (
            "network: it has one embedding an example and no positions to mix; name the module whose output has some, "
            "adapt(model, encoder=NAME, head=NAME), and pass pool= unless the model pools it by its mean"
        )
        return ({} if self._has_positions else {"positions": advice}) | super()._missing()

    @property
    def _has_positions(self) -> bool:
        return self.encoder_name is not None or self.dense

    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b *r e"]:
        """Return what the given function makes of the positions (and of the mask), by default the mean of real ones."""
        output = EncoderOutput.of(output)
        features, mask = output.features, output.mask
        if self.dense:
            return features
        if self.pools_by_mean:
            return masked_mean(features, mask)
        if not self._pool_takes_mask:
            return self._pooling(features)
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        return self._pooling(features, mask)

    def first_batch(self, inputs: Any) -> None:
        """Find the head, or raise if the named one gives no logits, or the model takes no such inputs."""
        if isinstance(inputs, Mapping):
            signature = inspect.signature(self.model.forward)
            try:
                signature.bind(**keywords(inputs))
            except TypeError as error:
                raise ValueError(
                    f"inputs: a mapping is passed to {type(self.model).__name__} as keywords, which are "
                    f"{', '.join(signature.parameters)}; got {', '.join(map(str, inputs))} ({error})"
                ) from None
        if self.encoder_name is not None:
            return
        with evaluating(self), torch.no_grad(), apart(self):
            trace = _Trace(self.model, lambda: self.run(inputs))
        if not self._is_found:
            self.head_name = trace.head()
        elif not self.dense:
            trace.require_head(self.head_name)
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
                f"head: {model}'s is found on the first batch; run one before compiling or torch.func, or pass head="
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
        if not self._has_positions:
            return None
        if self._mask_source is None:
            return super()._mask_of(inputs, features)
        return given_mask(self._mask_source, inputs, features)


def _require_names(model: nn.Module, encoder: str | None, head: str | None) -> None:
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


@dataclass(frozen=True)
class _Call:
    """One call of a module."""

    name: str
    module: nn.Module
    entered: Tensor | None  # what it was called with, if that is one tensor
    left: Tensor | None  # what it gave, if that is one row an example
    version: int  # how often it had been changed in place

    @property
    def is_linear(self) -> bool:
        return isinstance(self.module, nn.Linear) or axes_of(self.module) > 0

    @property
    def is_leaf(self) -> bool:
        """Whether this layer does something itself."""
        return not (isinstance(self.module, nn.Identity) or any(True for _ in self.module.children()))

    @property
    def is_changed(self) -> bool:
        """Whether what this call gave was changed in place."""
        return self.left is not None and _version(self.left) != self.version


class _Trace:
    """The calls of one forward pass in the order in which they ended, and what the model returned."""

    def __init__(self, model: nn.Module, run: Callable[[], Any]):
        self.kind = type(model).__name__
        self.calls: list[_Call] = []
        names = [(name, type(module).__module__) for name, module in model.named_modules()]
        self.compiled = [name for name, _ in names if name.endswith("._orig_mod")]
        self.quantised = [name for name, source in names if ".quantized." in source]
        with ExitStack() as hooks:
            for name, module in model.named_modules():
                if name and "_orig_mod" not in name.split(".") and not isinstance(module, torch.jit.ScriptModule):
                    hooks.enter_context(module.register_forward_hook(partial(self._record, name), with_kwargs=True))
            self.output = run()

    def _record(
        self, name: str, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> None:
        given = (*arguments, *keywords.values())
        plain = isinstance(output, Tensor) and not output.is_nested and output.ndim > 1
        rows = plain and output.shape[1:].numel() == output.shape[1]
        one = rows and len(given) == 1 and isinstance(given[0], Tensor)  # larger tensors are not worth their memory
        left, version = (output, _version(output)) if rows else (None, 0)
        self.calls.append(_Call(name, module, given[0] if one else None, left, version))

    def head(self) -> str:
        """Return the name of the layer whose output is the model's."""
        found = self._final()
        if len(found) > 1:
            raise ValueError(
                f"model: {self.kind} returns what several layers give ({listed(found)}); pass head=, one of them"
            )
        linear = [call for call in self.calls if call.is_linear]
        named = found or [call.name for call in linear if call.left is not None] or [call.name for call in linear]
        if not named:
            raise ValueError(f"model: {self.kind} runs no linear layer as a module; {self._advice()}")
        return self.require_head(named[-1])

    def require_head(self, name: str) -> str:
        """Return the name if that layer is called once, and gives the model's output."""
        calls = [call for call in self.calls if call.name == name]
        if not calls:
            unseen = f"; {self._advice()}" if self.compiled else ""
            raise ValueError(f"head: {self.kind} never runs {name!r} in its forward pass{unseen}")
        if len(calls) > 1:
            raise ValueError(
                f"head: {self.kind} calls {name!r} {len(calls)} times in a forward pass, so what enters it is not the "
                "embedding; call it once, or pass encoder= and pool="
            )
        left = calls[0].left
        given = [] if left is None else self._returns(left)
        if left is None or not given or calls[0].is_changed:
            raise ValueError(self._ending(calls[0]))
        if given[0].ndim == 1:
            raise ValueError(
                f"model: {self.kind} returns one number an example, {tuple(left.shape[:1])}, where its head {name!r} "
                f"gives a column, {tuple(left.shape)}; let it return the column"
            )
        return name

    def _advice(self) -> str:
        """Return how to have a layer that can be the head."""
        if self.quantised:
            return f"{listed(self.quantised, 3)} are quantised and take no gradient: adapt the model before that"
        if not self.compiled:
            return "make the layer that gives them a module of its own (nn.Linear), called once"
        parts = listed([name.removesuffix("._orig_mod") for name in self.compiled], 3)
        return (
            f"no hook sees what is inside {parts}, which is compiled: compile what comes before the head, or it alone"
        )

    def _returns(self, left: Tensor) -> list[Tensor]:
        """Return the outputs of the model that are what left a layer."""
        return [output for output in outputs_of(self.output) if same(output, left)]

    def _final(self) -> list[str]:
        """Return the innermost layers that give outputs of the model; an output itself before one of equal values."""
        found = set()
        for output in outputs_of(self.output):
            rows = [(call, call.left) for call in self.calls if call.left is not None and same(output, call.left)]
            rows = [(call, left) for call, left in rows if call.is_linear or _acts_affine(call)]
            itself = [(call, left) for call, left in rows if left.data_ptr() == output.data_ptr()]
            found |= {call.name for call, _ in (itself or rows)[:1]}
        return sorted(found)

    def _ending(self, head: _Call) -> str:
        """Return what the model makes of what its head gives, and what to write instead."""
        subject, name, final = f"model: {self.kind}", head.name, self._final()
        if final not in ([], [name]):
            return f"head: {self.kind} returns what {listed(final)} gives, not {name!r}"
        if head.is_changed:
            return f"{subject} changes in place what its head {name!r} gives, {_NEEDS}; leave that out"
        given = [call for call in self.calls if call.left is not None and self._returns(call.left)]
        if bent := [call for call in given if any(p.ndim > 1 for p in call.module.parameters(recurse=False))]:
            kind, name = type(bent[0].module).__name__, bent[0].name
            return f"{subject} returns what {name!r} gives, a {kind}, which is not affine; pass head={name!r}"
        output = first_output(self.output)
        if head.left is None and isinstance(output, Tensor):
            return f"{subject} {_of_positions(head, output) or f'makes its logits in no layer; {self._advice()}'}"
        after = self.calls[self.calls.index(head) + 1 :]
        if leaves := [call for call in after if call.is_leaf]:
            layers = ", ".join(f"{type(call.module).__name__} ({call.name!r})" for call in leaves[:3])
            advice = f"put nn.Identity() in the place of {listed([call.name for call in leaves], 3)}"
            return f"{subject} ends in {layers} after its head {name!r}, {_NEEDS}; {advice}"
        if how := _what_follows(head, output):
            return (
                f"{subject} makes {how} of what its head {name!r} gives, {_NEEDS}; let it return what {name!r} gives, "
                "and do the rest outside"
            )
        return (
            f"{subject} goes on after its last linear layer {name!r}, {_NEEDS}; {self._advice()}, and let the model "
            "return what it gives"
        )


_NEEDS = "while methods need the logits themselves"


def _of_positions(head: _Call, output: Tensor) -> str:
    if output.ndim > 2:
        return (
            f"has logits at every position, {tuple(output.shape)}; pass dense=True and head=, the layer that gives "
            f"them ({head.name!r} is the last linear one)"
        )
    if output.shape[-1] == getattr(head.module, "out_features", getattr(head.module, "out_channels", None)):
        return (
            f"pools what its last linear layer {head.name!r} gives, {_NEEDS}; let it pool what enters that layer "
            f"instead, or pass head={head.name!r}, encoder=, the module in front of it, and pool="
        )
    return ""


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _acts_affine(call: _Call) -> bool:
    x = call.entered
    holds_weights = any(parameter.ndim > 1 for parameter in call.module.parameters())
    with evaluating(call.module):
        return x is not None and x.is_floating_point() and holds_weights and acts_affine(call.module, x)


def _what_follows(head: _Call, output: Any) -> str:
    """Return what the output is of what the head left, "" if that cannot be told."""
    left = head.left
    if left is None or not isinstance(output, Tensor) or output.numel() != left.numel():
        return ""
    rows, wanted = left.flatten(1), output.reshape(len(left), -1)
    ratio = (wanted.norm() / rows.norm().clamp_min(1e-12)).to(rows.dtype)
    ends = {
        "a log-softmax": rows.log_softmax(1),
        "a softmax": rows.softmax(1),
        "a sigmoid": rows.sigmoid(),
        "the negative": -rows,
        "a multiple": rows * ratio,
    }
    return next((name for name, end in ends.items() if torch.allclose(end, wanted, rtol=1e-3, atol=1e-5)), "")
