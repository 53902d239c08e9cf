"""Where the parts of a transformers classifier are: its body, its head and its blocks."""

from typing import Any

from torch import nn

from multimix.models._names import linear_layers, listed


def body_name(model: Any) -> str:
    """Return the name of the model inside the classifier that gives hidden states.

    Raises:
        ValueError: If there is none, or more than one.
    """
    if isinstance(getattr(model, model.base_model_prefix, None), nn.Module) and model.base_model_prefix:
        return model.base_model_prefix
    bodies = [name for name, child in model.named_children() if derives(child, "PreTrainedModel")]
    if len(bodies) != 1:
        raise ValueError(
            f"model: {type(model).__name__} is no classifier with one body and a head; take one such as "
            "AutoModelForSequenceClassification gives, or pass head=, the dotted name of the layer that gives the "
            f"logits (its linear layers are {listed(linear_layers(model))})"
        )
    return bodies[0]


def head_name(model: Any, body: str) -> str:
    """Return the name of the layer behind the body that has an output for each label.

    Raises:
        ValueError: If there is none, or several classifiers are combined.
    """
    labels = model.config.num_labels
    found = [
        name
        for name, module in model.named_modules()
        if not f"{name}.".startswith(f"{body}.")
        and getattr(module, "out_features", getattr(module, "out_channels", None)) == labels
    ]
    if not found:
        raise ValueError(
            f"model: {type(model).__name__} has no layer of num_labels = {labels} outputs behind {body!r}; take a "
            "classifier such as AutoModelForSequenceClassification gives, or pass head= (its linear layers "
            f"are {listed(linear_layers(model))})"
        )
    if len(found) > 1 and all("." not in name for name in found):
        raise ValueError(
            f"model: {type(model).__name__} combines several classifiers ({listed(found)}), so it has no single head"
        )
    return _around(model, found)


def _around(model: nn.Module, found: list[str]) -> str:
    """Return the last of the layers found, or the module that adds several up, as LoRA does to a layer."""
    parent = found[-1].rpartition(".")[0]
    beside = [model.get_submodule(name) for name in found if parent and name.rpartition(".")[0] == parent]
    sizes = {getattr(module, "in_features", None) for module in beside}
    return parent if len(sizes) > 1 and not isinstance(model.get_submodule(parent), nn.Sequential) else found[-1]


def stage_names(model: Any, body: str) -> list[str]:
    """Return the names of the blocks: the outermost layers that transformers checkpoints, else a list of layers."""
    module = model.get_submodule(body)
    if type(module).__name__ in _UNMIXED:
        return []
    blocks = [name for name, child in module.named_modules() if derives(child, "GradientCheckpointingLayer")]
    blocks = [name for name in blocks if not any(name.startswith(f"{other}.") for other in blocks)]
    blocks = blocks or _listed_blocks(module)
    if any("decoder" in name for name in blocks) and any("encoder" in name for name in blocks):
        return []  # one half mixed alone would meet the other half's own examples
    if model.main_input_name == "input_ids":
        blocks = [name for name in blocks if "vision" not in name]
    return [f"{body}.{name}" for name in blocks]


_UNMIXED = {
    "ReformerModel": "two streams, of which the next block takes both",
    "SqueezeBertModel": "channels first, in a mapping",
    "XLNetModel": "positions first",
}
"""Bodies whose blocks leave no tensor with a row for each example."""


def _listed_blocks(body: nn.Module) -> list[str]:
    lists = [name for name, child in body.named_modules() if isinstance(child, nn.ModuleList)]
    lists = [name for name in lists if name.rpartition(".")[2] in ("block", "blocks", "h", "layer", "layers", "stages")]
    if not lists:
        return []
    name = min(lists, key=lambda name: name.count("."))
    inside = [f"{name}.{child}" for child, _ in body.get_submodule(name).named_children()]
    nested = [isinstance(body.get_submodule(child), nn.ModuleList) for child in inside]
    return [] if any(nested) else inside


def derives(module: nn.Module, base: str) -> bool:
    """Whether a module's class derives from transformers' class of a name."""
    return any(cls.__name__ == base and cls.__module__.startswith("transformers.") for cls in type(module).__mro__)
