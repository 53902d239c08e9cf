"""What a computation consists of, operation by operation, seen by running it on tensors that have no values."""

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Work:
    """Some operations of one kind."""

    part: str
    """The part of a training step that they belong to."""
    kind: str
    """conv, conv_backward, matmul, norm, norm_backward, exp, move, scatter, draw, draw_low, draw_log or choose."""
    flops: int
    """Floating-point operations of matrix products and convolutions, two a multiply-add."""
    bytes: int
    """Read and written, every operand once; of draws, four a number drawn."""
    size: float = 0.0
    """What its rate depends on: channels of a convolution, the least side of a product, else the bytes of one call."""
    calls: float = 1
    """Kernels started; part of one where several works share it."""
    filled: float = 1.0
    """What a convolution's arithmetic is multiplied with on a CPU, whose channels come in blocks."""


_FREE = ("empty", "detach", "_unsafe_view", "lift_fresh", "_local_scalar_dense", "alias")
"""Operations that touch no numbers, besides views."""
_KINDS = (
    ("convolution_backward", "conv_backward"),
    ("convolution", "conv"),
    ("batch_norm_backward", "norm_backward"),
    ("layer_norm_backward", "norm_backward"),
    ("group_norm_backward", "norm_backward"),
    ("batch_norm", "norm"),
    ("layer_norm", "norm"),
    ("group_norm", "norm"),
    ("softmax", "exp"),
    ("gelu", "exp"),
    ("silu", "exp"),
    ("sigmoid", "exp"),
    ("tanh", "exp"),
)
"""By the first of these that is in its name; the rest are products, which count operations, or move numbers."""


class Recorder(TorchDispatchMode):
    """Lists the operations that run while it is active, and follows how much memory is held."""

    def __init__(self) -> None:
        super().__init__()
        self.works: list[Work] = []
        self.part = ""
        """Where operations belong from now on."""
        self.live = 0
        """Bytes held by tensors made while it was active."""
        self.peak = 0
        """The most of them since :meth:`restart`."""
        self._held: dict[int, int] = {}

    def restart(self) -> None:
        """Look for the most memory from now on."""
        self.peak = self.live

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Count operations as those of a part."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and note it down."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = {tensor.untyped_storage()._cdata for tensor in given}  # what is changed in place is held already
        for tensor in made:
            if tensor.untyped_storage()._cdata not in before:
                self._hold(tensor.untyped_storage())
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(_FREE) and name not in _FREE:
            counts = flop_registry.get(func.overloadpacket)
            flops = 0 if counts is None else int(counts(*args, **kwargs, out_val=out))
            self.works.append(_work(self.part, name, args, flops, given, made))
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._held:
            return
        self._held[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.live -= self._held.pop(key, 0)


def _work(part: str, name: str, args: tuple[Any, ...], flops: int, given: list[Tensor], made: list[Tensor]) -> Work:
    """Return an operation as work."""
    moved = sum(t.numel() * t.element_size() for t in {id(t): t for t in given}.values())
    moved += sum(t.numel() * t.element_size() for t in made)
    kind = next((kind for piece, kind in _KINDS if piece in name), "matmul" if flops else "move")
    # A call over a list of tensors, such as an optimiser's, does to each what a call of its own would.
    calls = max(1, len(made)) if name.startswith("_foreach") else 1
    filled = _filled(kind, args) if kind in ("conv", "conv_backward") else 1.0
    return Work(part, kind, flops, moved, _size(kind, args, moved // calls), calls, filled)


_BLOCK = 8
"""Channels that oneDNN computes at a time, and fills up to: the numbers of an AVX2 register."""


def _filled(kind: str, args: tuple[Any, ...]) -> float:
    """Return the share of channels that are computed, over those that there are; images' few are left as they are."""
    outputs, inputs = args[1 if kind == "conv" else 2].shape[:2]
    groups = args[8] if kind == "conv" else args[9]
    if groups > 1:
        return 1.0
    sides = (outputs, inputs) if inputs >= _BLOCK else (outputs,)
    return math.prod(math.ceil(side / _BLOCK) * _BLOCK / side for side in sides)


def _size(kind: str, args: tuple[Any, ...], moved: int) -> float:
    """Return what the rate of an operation depends on."""
    if kind in ("conv", "conv_backward"):
        outputs, inputs = args[1 if kind == "conv" else 2].shape[:2]  # of the filters, inputs of one group
        groups = args[8] if kind == "conv" else args[9]
        return math.sqrt(inputs * outputs / groups)
    if kind == "matmul":
        sides = [side for leaf in args if isinstance(leaf, Tensor) and leaf.ndim > 1 for side in leaf.shape[-2:]]
        return float(min(sides, default=1))
    return float(moved)
