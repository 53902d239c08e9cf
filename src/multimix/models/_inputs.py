"""What models take and encoders give beside plain tensors: mappings, packed sequences, nested tensors."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

MaskSource = str | Callable[[Any], Tensor]
"""Where a mask comes from: a key of the inputs, or a function of them."""


def run(model: nn.Module, inputs: Any) -> Any:
    """Return what a model makes of inputs; a mapping's items are keyword arguments, labels left out."""
    return model(**keywords(inputs)) if isinstance(inputs, Mapping) else model(inputs)


def keywords(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping's items without labels, for which a model would compute its own loss."""
    return {name: value for name, value in inputs.items() if name != "labels"}


def require_keywords(model: nn.Module, inputs: Any) -> None:
    """Raise unless a mapping of inputs, if they are one, are keywords that the model's forward takes.

    Raises:
        ValueError: With the keywords that there are.
    """
    if not isinstance(inputs, Mapping):
        return
    signature = inspect.signature(model.forward)
    try:
        signature.bind(**keywords(inputs))
    except TypeError as error:
        raise ValueError(
            f"inputs: a mapping is passed to {type(model).__name__} as keywords, which are "
            f"{', '.join(signature.parameters)}; got {', '.join(map(str, inputs))} ({error})"
        ) from None


def padded(output: Tensor | PackedSequence) -> tuple[Tensor, Tensor | None]:
    """Return features padded with zeros, (b, r, d), and which positions are real, (b, r); None if nothing tells.

    Raises:
        ValueError: If this torch cannot pad a nested tensor of that layout.
    """
    if isinstance(output, PackedSequence):
        features, lengths = pad_packed_sequence(output, batch_first=True)
    elif output.is_nested:
        try:
            features, lengths = torch.nested.to_padded_tensor(output, 0.0), cast("Tensor", _lengths(output))
        except NotImplementedError as error:  # torch before 2.5
            raise ValueError(f"inputs: torch {torch.__version__} cannot pad nested tensors of this layout") from error
    else:
        return output, None
    return features, _until(lengths.to(features.device), features.shape[1])


def mask_of_lengths(inputs: Any, positions: int) -> Bool[Tensor, "b r"] | None:
    """Return which positions packed or nested inputs have; None for other inputs, or if their lengths do not fit."""
    lengths = _lengths(inputs)
    return None if lengths is None or int(lengths.max()) != positions else _until(lengths, positions)


def given_mask(source: MaskSource, inputs: Any, features: Float[Tensor, "b r d"]) -> Bool[Tensor, "b r"]:
    """Return the mask that the user named, as booleans where the features lie.

    Raises:
        ValueError: If the inputs have no such key, or the mask is not one value a position.
        TypeError: If a key is given for inputs that are no mapping, or what is found is no tensor.
    """
    found = _looked_up(source, inputs) if isinstance(source, str) else source(inputs)
    if not isinstance(found, Tensor):
        raise TypeError(f"mask must be a tensor (b, r), got {type(found).__name__}")
    if found.shape != features.shape[:2]:
        raise ValueError(
            f"mask must have one value a position of the encoder's output, {tuple(features.shape[:2])}, "
            f"got {tuple(found.shape)}"
        )
    return found.to(features.device, torch.bool)


def masked_mean(features: Float[Tensor, "b r d"], mask: Bool[Tensor, "b r"] | None) -> Float[Tensor, "b d"]:
    """Return the mean over real positions; zeros for an example that has none."""
    if mask is None:
        return features.mean(1)
    # Padding may hold anything, infinities too, which a factor of zero would make NaN.
    kept = features.masked_fill(~mask.unsqueeze(-1), 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp_min(1).to(features.dtype)


def _looked_up(key: str, inputs: Any) -> Any:
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs must be a mapping that holds mask={key!r}, got {type(inputs).__name__}")
    if key not in inputs:
        raise ValueError(f"mask={key!r} must be a key of the inputs, got {', '.join(map(str, inputs))}")
    return inputs[key]


def _lengths(values: Any) -> Tensor | None:
    if isinstance(values, PackedSequence):
        return pad_packed_sequence(values)[1].to(values.data.device)
    if isinstance(values, Tensor) and values.is_nested:
        return torch.tensor([len(sequence) for sequence in values.unbind()], device=values.device)
    return None


def _until(lengths: Tensor, positions: int) -> Bool[Tensor, "b r"]:
    return torch.arange(positions, device=lengths.device) < lengths.unsqueeze(1)
