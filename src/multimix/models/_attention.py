"""The attention of a model's last block, read while the model runs as it is."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from multimix.ops import accurate, no_autocast

_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


class Watch(TorchFunctionMode):
    """Keeps what the last attention that runs is computed of: queries and keys, or a matrix that softmax gave."""

    def __init__(self) -> None:
        super().__init__()
        self._matrix: Tensor | None = None
        self._fused: dict[str, Any] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return what a function of torch returns."""
        output = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            given = dict(zip(_ARGUMENTS, args, strict=False)) | (kwargs or {})
            self._fused = {name: value for name, value in given.items() if name not in ("value", "dropout_p")}
        elif getattr(func, "__name__", "") == "softmax" and output.ndim == 4:
            self._fused, self._matrix = {}, output
        return output

    @torch.no_grad()
    def rows(self, queries: slice) -> Float[Tensor, "b heads q r"] | None:
        """Return some rows of the attention, in float32 or more; None if there was none, or it is of another form."""
        if not self._fused:
            return None if self._matrix is None else accurate(self._matrix[:, :, queries].detach())
        query, key, mask = self._fused["query"], self._fused["key"], self._fused.get("attn_mask")
        if query.ndim != 4 or query.shape[1] != key.shape[1] or self._fused.get("is_causal"):
            return None
        scale = self._fused.get("scale") or query.shape[-1] ** -0.5
        with no_autocast(key.device.type):
            scores = accurate(query[:, :, queries]) * scale @ accurate(key).transpose(-2, -1)
        if mask is not None:
            mask = mask.expand(*mask.shape[:-2], query.shape[-2], key.shape[-2])[..., queries, :]
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1)


@contextmanager
def watching(start: nn.Module | None) -> Iterator[Watch]:
    """Watch what runs in the context, from where a module begins, as every call of torch that is watched takes longer.

    Args:
        start: Where to begin; None watches everything, which compiled code is not slower by.
    """
    watch = Watch()
    with ExitStack() as stack:
        if start is None or torch.compiler.is_compiling():
            stack.enter_context(watch)
        else:

            def begin(*_: Any) -> None:
                stack.enter_context(watch)

            stack.enter_context(start.register_forward_pre_hook(begin))
        yield watch


def grid_of(positions: int, height: int, width: int) -> tuple[int, int] | None:
    """Return rows and columns of patches that an image is cut into; None if so many do not tile it."""
    rows = round((positions * height / width) ** 0.5)
    return (rows, positions // rows) if rows and positions % rows == 0 else None
