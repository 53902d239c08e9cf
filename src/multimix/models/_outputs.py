"""The logits in what a model returns: a tensor, or one in a tuple, a mapping or a dataclass."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

_FIELDS = ("logits", "last_hidden_state", "out")
"""What the fields are called that hold logits or features, the first that is there."""


def first_output(output: Any) -> Tensor | PackedSequence:
    """Return the tensor or packed sequence in an output: it may be itself, in a mapping, or the first of a tuple.

    Of a mapping, a dataclass or a named tuple it is ``logits``, ``last_hidden_state`` or ``out``, or the only tensor.

    Raises:
        TypeError: If there is none, or no telling which.
    """
    found = output
    if (named := _named(output)) is not None:
        found = next((named[name] for name in _FIELDS if named.get(name) is not None), _only(named))
    elif isinstance(output, tuple | list) and not isinstance(output, PackedSequence) and output:
        found = output[0]
    if not isinstance(found, Tensor | PackedSequence):
        keys = f" of {', '.join(map(str, named))}" if named is not None else ""
        raise TypeError(f"the model and its encoder must return tensors, got {type(output).__name__}{keys}")
    return found


def outputs_of(output: Any) -> list[Tensor]:
    """Return the tensors that may be a model's logits: the field of that name, or every tensor there is."""
    if isinstance(output, Tensor):
        return [output]
    named = _named(output)
    if named is not None and isinstance(named.get("logits"), Tensor):
        return [named["logits"]]
    values = named.values() if named is not None else output if isinstance(output, tuple | list) else ()
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def logits_of(output: Any, left: Tensor | None) -> Tensor | PackedSequence:
    """Return the one output that is what left the head, where there are several, else the first.

    Raises:
        TypeError: If there is none, or no telling which.
    """
    found = [value for value in outputs_of(output) if left is not None and same(value, left)]
    return found[0] if len(found) == 1 else first_output(output)


def same(output: Tensor, left: Tensor) -> bool:
    """Whether an output is what left a layer, but for axes of length 1 behind."""
    if output.ndim < 1 or left.ndim < 2 or len(output) != len(left) or output.numel() != left.numel():
        return False
    return output.data_ptr() == left.data_ptr() or torch.equal(output.reshape(len(left), -1), left.flatten(1))


def _named(output: Any) -> Mapping[str, Any] | None:
    if isinstance(output, Mapping):
        return output
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    if isinstance(output, tuple) and "logits" in getattr(output, "_fields", ()):
        return output._asdict()  # type: ignore[attr-defined]
    return None


def _only(named: Mapping[str, Any]) -> Any:
    found = [value for value in named.values() if isinstance(value, Tensor | PackedSequence)]
    return found[0] if len(found) == 1 else None
