"""What models take and give: mappings, packed sequences and nested tensors, masks, layouts of features, outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from math import isqrt, prod
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from typing_extensions import Self

MaskSource = str | Callable[[Any], Tensor]  # a key of the inputs, or a function of them


def keywords(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping's items without labels, for which a model would compute its own loss."""
    return {name: value for name, value in inputs.items() if name != "labels"}


def detached(inputs: Any) -> Any:
    """Return inputs cut off from what they were computed from."""
    if isinstance(inputs, PackedSequence):
        return inputs._replace(data=inputs.data.detach())
    if isinstance(inputs, Mapping):
        return {name: detached(value) for name, value in inputs.items()}
    return inputs.detach() if isinstance(inputs, Tensor) else inputs


def padded(output: Tensor | PackedSequence) -> tuple[Tensor, Tensor | None]:
    """Return features padded with zeros, (b, r, d), and which positions are real, (b, r); None if nothing tells."""
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


def _lengths(values: Any) -> Tensor | None:
    if isinstance(values, PackedSequence):
        return pad_packed_sequence(values)[1].to(values.data.device)
    if isinstance(values, Tensor) and values.is_nested:
        return torch.tensor([len(sequence) for sequence in values.unbind()], device=values.device)
    return None


def _until(lengths: Tensor, positions: int) -> Bool[Tensor, "b r"]:
    return torch.arange(positions, device=lengths.device) < lengths.unsqueeze(1)


def given_mask(source: MaskSource, inputs: Any, features: Float[Tensor, "b r d"]) -> Bool[Tensor, "b r"]:
    """Return the mask that the user named, as booleans where the features lie."""
    if not isinstance(source, str):
        found: Any = source(inputs)
    elif not isinstance(inputs, Mapping):
        raise TypeError(f"inputs must be a mapping that holds mask={source!r}, got {type(inputs).__name__}")
    elif source not in inputs:
        raise ValueError(f"mask={source!r} must be a key of the inputs, got {', '.join(map(str, inputs))}")
    else:
        found = inputs[source]
    if not isinstance(found, Tensor):
        raise TypeError(f"mask must be a tensor (b, r), got {type(found).__name__}")
    if found.shape != (wanted := features.shape[:2]):
        raise ValueError(f"mask must have one value a position, {tuple(wanted)}, got {tuple(found.shape)}")
    return found.to(features.device, torch.bool)


def masked_mean(features: Float[Tensor, "b r d"], mask: Bool[Tensor, "b r"] | None) -> Float[Tensor, "b d"]:
    """Return the mean over real positions; zeros for an example that has none."""
    if mask is None:
        return features.mean(1)
    # Padding may hold anything, infinities too, which a factor of zero would make NaN.
    kept = features.masked_fill(~mask.unsqueeze(-1), 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp_min(1).to(features.dtype)


@dataclass(frozen=True)
class Layout:
    """Where features keep their channels, and their grid: (h, w) of a map, (r,) of tokens (b, r, d), () of a vector."""

    grid: tuple[int, ...]
    channels_first: bool

    @classmethod
    def of(cls, raw: Tensor, width: int | None) -> Self:
        """Return the layout: maps have channels first, others last, unless only the other axis has that width."""
        usual, other = (1, -1) if raw.ndim >= 4 else (-1, 1)
        axis = other if raw.shape[usual] != width and raw.shape[other] == width else usual
        channels_first = axis == 1 and raw.ndim > 2
        return cls(tuple(raw.shape[2:] if channels_first else raw.shape[1:-1]), channels_first)

    def flatten(self, raw: Tensor) -> Float[Tensor, "b r d"]:
        """Return features of this layout as positions, row by row."""
        if not self.grid:
            return raw.unsqueeze(1)
        return raw.flatten(2).transpose(1, 2) if self.channels_first else raw.flatten(1, -2)

    def restore(self, features: Float[Tensor, "b r d"]) -> Tensor:
        """Return positions as features of this layout: as many as embed gave, one, any number of tokens, a square."""
        positions, axes = features.shape[1], len(self.grid)
        side = isqrt(positions)
        grids = (self.grid, (1,) * axes, (positions,), (side, side))
        grid = next((grid for grid in grids if len(grid) == axes and prod(grid) == positions), None)
        if grid is None:
            raise ValueError(
                f"features must have as many positions as embed gave, {prod(self.grid)} on a grid {self.grid}, or one; "
                f"got {positions}"
            )
        if not self.grid:
            return features.squeeze(1)
        return features.transpose(1, 2).unflatten(2, grid) if self.channels_first else features.unflatten(1, grid)


def innermost(output: Any) -> Any:
    """Return the first of a tuple or list, of the first of nested ones, else what is given."""
    return innermost(output[0]) if isinstance(output, tuple | list) and output else output


def with_innermost(output: Any, first: Any) -> Any:
    """Return an output with another value in the place of its innermost."""
    if not (isinstance(output, tuple | list) and output):
        return first
    values = (with_innermost(output[0], first), *output[1:])
    return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)


def first_output(output: Any) -> Tensor | PackedSequence:
    """Return the output itself, the first of a tuple, or of named ones that of a usual name or the only tensor."""
    found, named = output, _named(output)
    if named is not None:
        tensors = [value for value in named.values() if isinstance(value, Tensor | PackedSequence)]
        only = tensors[0] if len(tensors) == 1 else None
        usual = ("logits", "last_hidden_state", "out")
        found = next((named[name] for name in usual if named.get(name) is not None), only)
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
    """Return the one output that is what left the head, where there are several, else the first."""
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
