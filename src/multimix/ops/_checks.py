"""What an op refuses, in one line that names the argument."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from typing import Annotated, Any, cast

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import PackedSequence

from multimix import _declared
from multimix._declared import Checked, Count, Ge, Interval, shown

_ROW_SUM_TOLERANCE = 1e-2  # loose enough for weights in bfloat16, tight enough for what was never normalised
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_UNLABELLED = (-100, 255, -1)  # class indices by which data sets and torch mark what has no label
_SEVERAL_LABELS = "several labels an example are for BinaryCrossEntropy"
INTEGER_ROWS = f"integers (b, k) are taken where each row is one-hot, else give targets.argmax(1); {_SEVERAL_LABELS}"
"""What to do about targets that look like those of another objective."""
Device = torch.device | str | None
Natural = Annotated[int, Ge(0)]
NotNegative = Annotated[float, Ge(0)]
Finite = Annotated[float, Interval(gt=-math.inf, lt=math.inf)]


def check(annotation: Any, **values: object) -> None:
    """Raise unless all values are what an annotation says; compiled code is not slowed down by it."""
    if not torch.compiler.is_compiling():
        _declared.check(annotation, **values)


class Options(Checked):
    """Base of dataclasses whose fields are checked as they are annotated, but not in compiled code."""

    def __post_init__(self) -> None:
        """Refuse what the annotations rule out."""
        if not torch.compiler.is_compiling():
            super().__post_init__()


def check_tensor(name: str, values: object) -> None:
    """Raise TypeError unless a value is a tensor."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(values).__name__}")


def check_floating(name: str, values: object) -> None:
    """Raise TypeError unless a value is a floating-point tensor."""
    check_tensor(name, values)
    if not cast("Tensor", values).is_floating_point():
        raise TypeError(f"{name} must be floating-point, got {cast('Tensor', values).dtype}")


def check_dtype(dtype: object) -> None:
    """Raise TypeError unless ``dtype`` is a floating-point one."""
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be floating-point, got {dtype}")


def check_shape(name: str, values: Tensor, *shape: int | str, hint: str = "") -> None:
    """Raise unless a value is a tensor of a shape, in which a size that is a letter may be any."""
    check_tensor(name, values)
    fits = [size == wanted or isinstance(wanted, str) for size, wanted in zip(values.shape, shape, strict=False)]
    if values.ndim != len(shape) or not all(fits):
        wanted = f"{shape[0]}," if len(shape) == 1 else ", ".join(map(str, shape))
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(values.shape)}{hint}")


def check_pairs(name: str, values: Tensor, partners: Tensor, *shape: int | str) -> None:
    """Raise unless values are a tensor, of a shape if one is given, and partners are indices of as many of them."""
    check_tensor(name, values)
    if values.ndim == 0:
        raise ValueError(f"{name} must have one row an example, got a single number")
    if shape:
        check_shape(name, values, *shape)
    check_shape("partners", partners, len(values))
    if partners.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"partners must be indices, int64 or int32, got {partners.dtype}")


def check_fractions(name: str, values: Tensor) -> None:
    """Raise ValueError if numbers leave [0, 1]."""
    if looks_are_free(values) and values.numel():
        low, high = values.aminmax() if values.ndim else (values, values)
        if not (low.item() >= 0 and high.item() <= 1):
            raise ValueError(f"{name} must lie in [0, 1], got {values.tolist()}")


def check_generator(generator: object) -> None:
    """Raise TypeError unless ``generator`` is a torch.Generator, or None for torch's global one."""
    if generator is None or isinstance(generator, Generator):
        return
    seeded = f"; take torch.Generator().manual_seed({generator})" if isinstance(generator, Integral) else ""
    raise TypeError(f"generator must be a torch.Generator or None, got {shown(generator)}{seeded}")


def home_of(generator: Generator | None, device: Device) -> Device:
    """Return where to draw: on the device of a generator, which is checked, since it draws on no other."""
    check_generator(generator)
    return device if generator is None else generator.device


def widest(device: torch.device) -> torch.dtype:
    """Return float64 where a device has it, else float32: Apple's have not."""
    return torch.float32 if device.type == "mps" else torch.float64


def accurate(values: Tensor) -> Tensor:
    """Return half-precision values in float32, others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def no_autocast(device: str) -> AbstractContextManager[object]:
    """Return a context without autocast, for as little as nothing where there is none to begin with."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def looks_are_free(values: Tensor) -> bool:
    """Return whether values can be looked at without waiting for a device or breaking a compiled graph."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def as_probabilities(targets: Tensor, num_classes: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return targets as one row of class probabilities an example.

    Args:
        targets: Class indices (b,), integers, or probabilities (b, k), one-hot integers among them.
        num_classes: How many classes there are, k.
        dtype: Of the result.

    Raises:
        ValueError: If an index is outside ``0..k - 1``, or rows of probabilities do not fit or leave the simplex.
        TypeError: If the targets are neither integers nor floating-point, or ``dtype`` is not floating-point.
    """
    check(Count, num_classes=num_classes)
    check_dtype(dtype)
    targets = rows_of(targets, num_classes)
    check_target_form(targets, num_classes)
    check_class_indices(targets, num_classes)
    if targets.is_floating_point():
        return targets.to(dtype)
    zeros = torch.zeros(len(targets), num_classes, dtype=dtype, device=targets.device)
    return zeros.scatter_(1, targets.long().unsqueeze(1), 1)


def check_batch(inputs: Tensor, targets: Tensor) -> None:
    """Raise TypeError or ValueError unless inputs are finite floating-point numbers with one target an example.

    Whether they are finite is looked at on the CPU only: elsewhere the look would wait for the device.
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"inputs must be a tensor, got {type(inputs).__name__}; two views belong to SelfDistilled, and mappings to"
            " methods that mix embeddings, such as MultiMix"
        )
    if not inputs.is_floating_point():
        raise TypeError(f"inputs must be floating-point, got {inputs.dtype}")
    if inputs.ndim == 0:
        raise ValueError("inputs must have one row an example, got a single number")
    _check_rows(targets, len(inputs))
    if looks_are_free(inputs):
        values = inputs.detach()
        # A sum tells, in double precision if it overflows its own.
        if not (math.isfinite(values.sum().item()) or math.isfinite(values.sum(dtype=torch.float64).item())):
            raise ValueError("inputs must be finite, got NaN or infinity")


def check_examples(inputs: Any, targets: Tensor) -> None:
    """Raise TypeError or ValueError unless inputs, in any form that a network takes, hold one example a target.

    Numbers to be mixed are checked as :func:`check_batch` does; token indices (b, r), mappings of tensors, packed
    sequences and nested tensors are counted only.
    """
    tokens = isinstance(inputs, Tensor) and inputs.ndim == 2 and inputs.dtype in (torch.int64, torch.int32)
    if isinstance(inputs, Tensor) and not inputs.is_nested and not tokens:
        check_batch(inputs, targets)
    else:
        _check_rows(targets, batch_size(inputs))


def _check_rows(targets: Tensor, b: int) -> None:
    check_tensor("targets", targets)
    if targets.ndim == 0:
        raise ValueError("targets must have one row an example, got a single number")
    if len(targets) != b:
        raise ValueError(f"targets has {len(targets)} rows for a mini-batch of {b}")
    if b == 0:
        raise ValueError("inputs must hold at least one example, got an empty mini-batch")


def batch_size(inputs: Any) -> int:
    """Return how many examples inputs hold: a tensor, a mapping of tensors or a packed sequence.

    Raises:
        TypeError: If they are none of these.
        ValueError: If the tensors of a mapping have different lengths, or there is none.
    """
    if isinstance(inputs, PackedSequence):
        return int(inputs.batch_sizes[0])
    if isinstance(inputs, Tensor) and inputs.ndim > 0:
        return inputs.size(0)
    if not isinstance(inputs, Mapping):
        raise TypeError(
            f"inputs must be a tensor, a mapping of tensors or a packed sequence, got {type(inputs).__name__};"
            " two views belong to SelfDistilled"
        )
    lengths = {name: value.size(0) for name, value in inputs.items() if isinstance(value, Tensor) and value.ndim}
    if not lengths:
        raise ValueError(f"inputs must hold a tensor with one row an example, got a mapping of {list(inputs)}")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"inputs must hold as many rows in every tensor, got {lengths}")
    return next(iter(lengths.values()))


def rows_of(targets: Tensor, num_classes: int | None = None) -> Tensor:
    """Return one-hot labels in integers, (b, k), as floating-point probabilities, and all other targets as they are."""
    check_tensor("targets", targets)
    may_be = targets.ndim == 2 and targets.dtype in _INTEGERS and targets.numel() > 0
    if not may_be or targets.shape[1] != (num_classes or max(targets.shape[1], 2)):
        return targets
    one_hot = ((targets == 0) | (targets == 1)).all() & (targets.sum(1) == 1).all()
    return targets.float() if one_hot else targets


def check_class_indices(targets: Tensor, num_classes: int) -> None:
    """Raise if an integer target is no index of a class."""
    if targets.is_floating_point() or not looks_are_free(targets) or not targets.numel():
        return
    low, high = (edge.item() for edge in targets.aminmax())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        hint = f"; CrossEntropy(ignore_index={wrong}) leaves such labels out" if wrong in _UNLABELLED else ""
        raise ValueError(f"targets must lie in 0..{num_classes - 1} for {num_classes} classes, got {wrong}{hint}")


def check_target_form(targets: Tensor, num_classes: int, *, partial: bool = False) -> None:
    """Raise if ``targets`` cannot be labels of whole examples by their form; class indices are not looked at.

    Where ``partial``, probabilities may sum to less than 1: labels that are ignored, and what was mixed of such.
    """
    if targets.is_floating_point():
        hint = ""
        if targets.ndim > 2:
            hint = f"; label maps (b, h, w) are integers, probabilities at every position (b, r, {num_classes})"
        elif targets.shape[1:].numel() == 1:
            hint = "; values to predict are for SquaredError, class indices are integers"
        check_shape("targets that are probabilities", targets, "b", num_classes, hint=hint)
        check_simplex("targets", targets, hint=f"; {_SEVERAL_LABELS}", partial=partial)
    elif targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"targets must be class indices or probabilities, got {targets.dtype}; {_SEVERAL_LABELS}")
    else:
        check_shape("targets that are class indices", targets, "b", hint=f"; {INTEGER_ROWS}")


def check_weights(weights: Tensor) -> None:
    """Raise if ``weights`` (..., n, b) are not interpolation weights."""
    check_floating("weights", weights)
    if weights.shape[-2] < 1:
        raise ValueError("weights must have at least one row")
    check_simplex("weights", weights)


def check_attention(attention: Tensor) -> None:
    """Raise if attention, or anything else that scales weights, is negative or NaN."""
    if looks_are_free(attention) and attention.numel() and not attention.amin() >= 0:
        raise ValueError(f"attention must not be negative or NaN, got {float(attention.amin()):.4g}")


def check_mask(mask: Tensor, *shape: int) -> None:
    """Raise unless a mask is boolean, or of integers, 0 where there is nothing."""
    check_shape("mask", mask, *shape)
    if mask.is_floating_point() or mask.is_complex():  # 0 and minus infinity for one, which say the opposite
        raise TypeError(f"mask must be boolean, True where there is something, got {mask.dtype}")


def check_simplex(name: str, rows: Tensor, *, hint: str = "", partial: bool = False) -> None:
    """Raise if rows are negative or do not sum to 1; where ``partial``, to more than 1."""
    if not rows.numel() or not looks_are_free(rows):
        return
    rows = rows.detach()
    least = rows.amin().item()
    if least < 0:
        raise ValueError(f"{name} must not be negative, got {least:.4g}")
    low, high = (edge.item() - 1 for edge in rows.sum(-1).aminmax())
    off, most = (high, "at most 1") if partial else (max(abs(low), abs(high)), "1")
    if not off <= _ROW_SUM_TOLERANCE:  # NaN lands here too
        raise ValueError(f"{name} must have rows that sum to {most}, got a row that is off by {off:.4g}{hint}")
