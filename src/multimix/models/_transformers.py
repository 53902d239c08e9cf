"""Hugging Face transformers' classifiers of text, images and audio: any of them, by replaying its forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from multimix.models._modules import linear_layers, listed, replaced, run_to
from multimix.models._network import AdaptedNetwork
from multimix.models._values import keywords
from multimix.ops import BinaryCrossEntropy, Objective, SquaredError
from multimix.protocols import EncoderOutput


class TransformersNetwork(AdaptedNetwork):
    """A transformers classifier: the body's hidden states are embedded, what the rest does with them is pooling.

    ``pool`` runs the model's own forward with hidden states put in place of the body (``model.bert``, say), up to the
    last layer. Features of another shape than ``embed`` gave are taken as positions that are all real.
    """

    _mixes_in_tuples = True

    def __init__(self, model: nn.Module, stages: Sequence[str]):
        body = _body_name(model)
        super().__init__(model, head=_head_name(model, body), stages=stages or _stage_names(model, body))
        self._body = body
        self._pooling: str | None = None
        self._pooled_shape: tuple[int, ...] = ()
        self._sums_layers = getattr(self.model.config, "use_weighted_layer_sum", False)

    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b e"]:
        """Return what the model feeds its last layer: everything between the body's hidden states and the logits."""
        context = self._context(output)
        arguments, kind = context.seen
        b, r, _ = EncoderOutput.of(output).features.shape
        main = self._main(arguments)
        if (b, r) != (len(arguments[main]), prod(context.layout.grid)):
            arguments = self._all_real(main, arguments[main], b, r)
        replayed = self._output(kind, self._grid(output))
        head, body = self.head_module, self.model.get_submodule(self._body)
        with replaced(body, lambda *_, **__: replayed), replaced(head, lambda x: x), _mappings(self.model.config):
            try:
                embeddings = self.model(**arguments).logits
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise ValueError(
                    f"model: {type(self.model).__name__} classifies more than the hidden states of its {self._body!r}, "
                    f"or pools them in a way that cannot be told; pass head={self.head_name!r}, to mix tokens "
                    "encoder= and pool=, too"
                ) from error
        if embeddings.ndim != 2:
            raise ValueError(
                f"model: {type(self.model).__name__} has no pooling, what enters its last layer has shape "
                f"{tuple(embeddings.shape)}; pass encoder={self._body!r}, head={self.head_name!r} and dense=True"
            )
        return embeddings

    def first_batch(self, inputs: Any) -> None:
        """Raise if the model takes no inputs like those of the first batch."""
        self._arguments(inputs)

    def run(self, inputs: Any) -> Any:
        """Return what the model itself makes of the inputs."""
        return self.model(**self._arguments(inputs))

    def _encode(self, inputs: Any) -> tuple[Tensor, tuple[dict[str, Any], type]]:
        arguments = self._arguments(inputs)
        never = f"model: {type(self.model).__name__} never runs {self._body!r}; pass head={self.head_name!r}"
        body = self.model.get_submodule(self._body)
        with _mappings(self.model.config):
            output = run_to(body, lambda: self.model(**arguments), otherwise=never)
        hidden = output["last_hidden_state"]
        if self._sums_layers:
            weights = self.model.layer_weights.softmax(-1).view(-1, 1, 1)
            hidden = (torch.stack(output["hidden_states"], 1) * weights).sum(1)
        if self._pooling is None:
            pooled = output.get("pooler_output")
            self._pooling = "" if pooled is None else _pooling_of(body, hidden, pooled)
            self._pooled_shape = () if pooled is None else pooled.shape[1:]
        return hidden, (arguments, type(output))

    def _tokens_in_front(self) -> int:
        tokens = [p for name, p in self.model.named_parameters() if name.rpartition(".")[2] in _TOKENS]
        return sum(p.numel() // p.shape[-1] for p in tokens)

    def _width_of(self, raw: Tensor) -> int | None:
        return getattr(self.head_module, "in_features", None) if raw.ndim == 4 else None

    def _mask_of(self, inputs: Any, features: Float[Tensor, "b r d"]) -> Bool[Tensor, "b r"] | None:
        """Return the attention mask where it has a value a position, and for audio what the model makes of it."""
        arguments = self._arguments(inputs)
        found = [value for name, value in arguments.items() if name.endswith("attention_mask")]
        masks = [value for value in found if isinstance(value, Tensor) and value.ndim == 2]
        fitting = [value for value in masks if value.shape == features.shape[:2]]
        if fitting:
            return fitting[-1].to(features.device, torch.bool)
        shorten = getattr(self.model, "_get_feature_vector_attention_mask", None)
        if shorten is None or not masks:
            return None
        return shorten(features.shape[1], masks[-1]).to(features.device, torch.bool)

    def _arguments(self, inputs: Any) -> dict[str, Any]:
        """Return what the model is called with."""
        name, main = type(self.model).__name__, self.model.main_input_name
        if isinstance(inputs, Tensor):
            return {main: inputs}
        if not isinstance(inputs, Mapping):
            raise TypeError(
                f"inputs must be a mapping of the keyword arguments of {name}, or its {main!r} as a tensor, got "
                f"{type(inputs).__name__}"
            )
        arguments = keywords(inputs)
        if main not in arguments and "inputs_embeds" not in arguments:
            raise ValueError(f"inputs must hold {main!r}, which {name} is called with, got {listed(list(inputs))}")
        return arguments

    def _main(self, arguments: dict[str, Any]) -> str:
        return self.model.main_input_name if self.model.main_input_name in arguments else "inputs_embeds"

    def _all_real(self, main: str, given: Tensor, b: int, r: int) -> dict[str, Any]:
        """Return arguments of b examples of r positions without any padding, as for single positions."""
        if main == "inputs_embeds":
            return {main: given.new_zeros(b, r, 1)}
        if given.is_floating_point():
            return {main: given[:1].expand(b, *given.shape[1:])}
        config = self.model.config.get_text_config()
        # A token that is not padding: the end of a sequence, where some models look for it.
        end = getattr(config, "eos_token_id", None)
        end = end[0] if isinstance(end, list | tuple) and end else end
        padding = getattr(config, "pad_token_id", None)
        token = end if isinstance(end, int) and end != padding else int(padding == 0)
        return {main: given.new_full((b, r), token), "attention_mask": given.new_ones(b, r)}

    def _output(self, kind: type, hidden: Tensor) -> Any:
        """Return an output of the body with other hidden states, the pooled ones computed by the body's own layers."""
        body = self.model.get_submodule(self._body)
        fields: dict[str, Any] = {"last_hidden_state": hidden}
        if self._pooling:
            pooled = _POOLINGS[self._pooling](body, hidden)
            fields["pooler_output"] = pooled.reshape(len(hidden), *self._pooled_shape)
        if self._sums_layers:
            # Weights sum to one: of equal states the mixture is the state itself.
            fields["hidden_states"] = (hidden,) * len(self.model.layer_weights)
        return kind(**fields)

    def _grid(self, output: EncoderOutput | Tensor) -> Tensor:
        """Return features in the body's own layout; a single position stands in for class tokens too."""
        output = EncoderOutput.of(output)
        features, context = output.features, self._context(output)
        is_text = self._main(context.seen[0]) in ("input_ids", "inputs_embeds")
        if features.shape[1] == 1 and len(context.layout.grid) == 1 and not is_text:
            # Enough for whatever is split off before patches are averaged; equal rows average to themselves.
            features = features.expand(-1, 3 + getattr(self.model.config, "num_register_tokens", 0), -1)
        return self._restore(replace(output, features=features))


# What families of image classifiers call the tokens in front of those of the patches.
_TOKENS = ("cls_token", "class_embedding", "distillation_token", "register_tokens")


def _body_name(model: Any) -> str:
    """Return the name of the model inside the classifier that gives hidden states."""
    if isinstance(getattr(model, model.base_model_prefix, None), nn.Module) and model.base_model_prefix:
        return model.base_model_prefix
    bodies = [name for name, child in model.named_children() if derives(child, "PreTrainedModel")]
    if len(bodies) != 1:
        raise ValueError(f"model: {type(model).__name__} is no classifier with one body and a head; {_advice(model)}")
    return bodies[0]


def _head_name(model: Any, body: str) -> str:
    """Return the name of the layer behind the body that has an output for each label."""
    labels = model.config.num_labels
    found = [
        name
        for name, module in model.named_modules()
        if not f"{name}.".startswith(f"{body}.")
        and getattr(module, "out_features", getattr(module, "out_channels", None)) == labels
    ]
    if not found:
        raise ValueError(
            f"model: {type(model).__name__} has no layer of num_labels = {labels} outputs behind {body!r}; "
            f"{_advice(model)}"
        )
    if len(found) > 1 and all("." not in name for name in found):
        raise ValueError(f"model: {type(model).__name__} combines several classifiers ({listed(found)}), not one head")
    # It is the last of those found, or the module that adds several up, as LoRA does to a layer.
    parent = found[-1].rpartition(".")[0]
    beside = [model.get_submodule(name) for name in found if parent and name.rpartition(".")[0] == parent]
    sizes = {getattr(module, "in_features", None) for module in beside}
    return parent if len(sizes) > 1 and not isinstance(model.get_submodule(parent), nn.Sequential) else found[-1]


def _advice(model: nn.Module) -> str:
    layers = listed(linear_layers(model))
    return f"take what AutoModelForSequenceClassification or its like gives, or pass head= (linear layers are {layers})"


def _stage_names(model: Any, body: str) -> list[str]:
    """Return the names of the blocks: the outermost layers that transformers checkpoints, else a list of layers."""
    module = model.get_submodule(body)
    # Blocks of these leave no tensor with a row for each example: two streams, channels or positions first.
    if type(module).__name__ in ("ReformerModel", "SqueezeBertModel", "XLNetModel"):
        return []
    blocks = [name for name, child in module.named_modules() if derives(child, "GradientCheckpointingLayer")]
    blocks = [name for name in blocks if not any(name.startswith(f"{other}.") for other in blocks)]
    blocks = blocks or _listed_blocks(module)
    if any("decoder" in name for name in blocks) and any("encoder" in name for name in blocks):
        return []  # one half mixed alone would meet the other half's own examples
    if model.main_input_name == "input_ids":
        blocks = [name for name in blocks if "vision" not in name]
    return [f"{body}.{name}" for name in blocks]


def _listed_blocks(body: nn.Module) -> list[str]:
    lists = {name: child for name, child in body.named_modules() if isinstance(child, nn.ModuleList)}
    usual = ("block", "blocks", "h", "layer", "layers", "stages")
    name = min((name for name in lists if name.rpartition(".")[2] in usual), key=lambda n: n.count("."), default="")
    inside = dict(lists[name].named_children()) if name else {}
    nested = any(isinstance(child, nn.ModuleList) for child in inside.values())
    return [] if nested else [f"{name}.{child}" for child in inside]


def objective_from_config(model: Any) -> Objective | None:
    """Return what the configuration of a classifier says that it is trained for; None of other models."""
    if not derives(model, "PreTrainedModel"):
        return None
    problem, labels = model.config.problem_type, model.config.num_labels
    if problem == "multi_label_classification":
        return BinaryCrossEntropy()
    return SquaredError() if problem == "regression" or (problem is None and labels == 1) else None


def derives(module: nn.Module, base: str) -> bool:
    """Whether a module's class derives from transformers' class of a name."""
    return any(cls.__name__ == base and cls.__module__.startswith("transformers.") for cls in type(module).__mro__)


@contextmanager
def _mappings(config: Any) -> Iterator[None]:
    """Let a model whose configuration asks for tuples return outputs with names."""
    before, config.return_dict = config.return_dict, True
    try:
        yield
    finally:
        config.return_dict = before


def _mean(body: Any, hidden: Tensor) -> Tensor:
    return hidden.mean(1) if hidden.ndim == 3 else hidden.mean((-2, -1))


# How bodies with a layer called pooler compute what they call pooler_output, told apart by its shape.
_POOLER: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "pooler": lambda body, x: body.pooler(x),
    "pooler of channels": lambda body, x: body.pooler(x.transpose(1, 2)),
}
# The same of bodies that do more or have none; by name, since new weights cannot tell one from the other.
_POOLINGS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "AlbertModel": lambda body, x: body.pooler_activation(body.pooler(x[:, 0])),
    "ASTModel": lambda body, x: (x[:, 0] + x[:, 1]) / 2,
    **dict.fromkeys(("ConvNextModel", "ConvNextV2Model"), lambda body, x: body.layernorm(_mean(body, x))),
    **dict.fromkeys(("LevitModel", "MobileViTModel", "MobileViTV2Model"), _mean),
    **_POOLER,
}


@torch.no_grad()
def _pooling_of(body: nn.Module, hidden: Tensor, pooled: Tensor) -> str:
    """Return which of the poolings gives what the body pooled, "" if none does."""
    own = type(body).__name__
    for name in [own] if own in _POOLINGS else _POOLER:
        with suppress(AttributeError, RuntimeError, TypeError, IndexError, ValueError):  # a body without such a layer
            ours = _POOLINGS[name](body, hidden).reshape(pooled.shape)
            if torch.allclose(ours, pooled, rtol=1e-3, atol=1e-3 * float(pooled.abs().max())):
                return name
    return ""
