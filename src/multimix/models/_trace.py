"""One forward pass of a model, written down: which layers ran, and which of them gives the model's output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from multimix.models._hooks import in_eval
from multimix.models._names import axes_of, listed
from multimix.models._values import first_output, outputs_of, same


@dataclass(frozen=True)
class Call:
    """One call of a module."""

    name: str
    module: nn.Module
    entered: Tensor | None
    """What it was called with, if that is one tensor."""
    left: Tensor | None
    """What it gave, if that is one row an example."""
    width: int
    """How many channels that has, at every position."""
    version: int
    """How often it had been changed in place."""

    @property
    def is_linear(self) -> bool:
        """Whether the layer is linear or a convolution."""
        return isinstance(self.module, nn.Linear) or axes_of(self.module) > 0


@dataclass(frozen=True)
class Trace:
    """The calls of one forward pass in the order in which they ended, and what the model returned."""

    model: nn.Module
    calls: list[Call]
    output: Any

    def head(self) -> str:
        """Return the name of the layer whose output is the model's."""
        found = self._final()
        if len(found) > 1:
            raise ValueError(
                f"model: {self._kind} returns what several layers give ({listed(found)}); pass head=, the one that "
                "gives the logits"
            )
        if found:
            return self.require_head(found[0])
        linear = [call for call in self.calls if call.is_linear]
        if not linear:
            raise ValueError(f"model: {self._kind} runs no linear layer as a module; {_MAKE_ONE}")
        rows = [call for call in linear if call.left is not None]
        return self.require_head((rows or linear)[-1].name)

    def require_head(self, name: str) -> str:
        """Return the name if that layer is called once, and gives the model's output."""
        calls = [call for call in self.calls if call.name == name]
        if not calls:
            raise ValueError(f"head: {self._kind} never runs {name!r} in its forward pass")
        if len(calls) > 1:
            raise ValueError(
                f"head: {self._kind} calls {name!r} {len(calls)} times in a forward pass, so what enters it is not the "
                "embedding; call it once, or pass encoder= and pool="
            )
        left = calls[0].left
        if left is None or _version(left) != calls[0].version:
            self._refuse_end(calls[0])
        given = [output for output in outputs_of(self.output) if same(output, left)]
        if not given:
            self._refuse_end(calls[0])
        if given[0].ndim == 1:
            raise ValueError(
                f"model: {self._kind} returns one number an example, {tuple(left.shape[:1])}, where its head {name!r} "
                f"gives a column, {tuple(left.shape)}; let it return the column"
            )
        return name

    def _final(self) -> list[str]:
        """Return the layers that give an output of the model."""
        return sorted({name for output in outputs_of(self.output) if (name := self._gives(output))})

    def _gives(self, output: Tensor) -> str | None:
        """Return the innermost module that gives an output; the output itself before one of equal values."""
        calls = [call for call in self.calls if call.left is not None and same(output, call.left)]
        calls = [call for call in calls if call.is_linear or _acts_affine(call)]
        itself = [call for call in calls if call.left is not None and call.left.data_ptr() == output.data_ptr()]
        return next((call.name for call in itself or calls), None)

    def _refuse_end(self, head: Call) -> NoReturn:
        after = self.calls[self.calls.index(head) + 1 :]
        leaves = [call for call in after if not any(True for _ in call.module.children())]
        subject = f"model: {self._kind}"
        if self._final() not in ([], [head.name]):
            raise ValueError(f"head: {self._kind} returns what {listed(self._final())} gives, not {head.name!r}")
        if head.left is not None and _version(head.left) != head.version:
            raise ValueError(f"{subject} changes in place what its head {head.name!r} gives, {_NEEDS}; leave that out")
        output = first_output(self.output)
        if head.left is None and isinstance(output, Tensor):
            self._refuse_positions(head, output)
        if leaves:
            layers = ", ".join(f"{type(call.module).__name__} ({call.name!r})" for call in leaves[:3])
            advice = f"put nn.Identity() in the place of {listed([call.name for call in leaves], 3)}"
            raise ValueError(f"{subject} ends in {layers} after its head {head.name!r}, {_NEEDS}; {advice}")
        if how := _what_follows(head, output):
            raise ValueError(
                f"{subject} makes {how} of what its head {head.name!r} gives, {_NEEDS}; let it return what "
                f"{head.name!r} gives, and do the rest outside"
            )
        raise ValueError(
            f"{subject} goes on after its last linear layer {head.name!r}, {_NEEDS}; {_MAKE_ONE}, and let "
            "the model return what it gives"
        )

    def _refuse_positions(self, head: Call, output: Tensor) -> None:
        """Raise for logits at every position, or for those that are pooled."""
        name = head.name
        if output.ndim > 2:
            raise ValueError(
                f"model: {self._kind} has logits at every position, {tuple(output.shape)}; pass dense=True and head=, "
                f"the layer that gives them ({name!r} is the last linear one)"
            )
        if output.shape[-1] == head.width:
            raise ValueError(
                f"model: {self._kind} pools what its last linear layer {name!r} gives, {_NEEDS}; let it pool what "
                f"enters that layer instead, or pass head={name!r}, encoder=, the module in front of it, and pool="
            )
        raise ValueError(f"model: {self._kind} makes its logits in no layer; {_MAKE_ONE}")

    @property
    def _kind(self) -> str:
        return type(self.model).__name__


_MAKE_ONE = "make the layer that gives them a module of its own (nn.Linear), called once"
_NEEDS = "while methods need the logits themselves"


def trace(model: nn.Module, run: Callable[[], Any]) -> Trace:
    """Return the trace of a model inside ``run()``."""
    calls: list[Call] = []
    handles = [
        module.register_forward_hook(_recorder(name, calls), with_kwargs=True)
        for name, module in model.named_modules()
        if name and not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        output = run()
    finally:
        for handle in handles:
            handle.remove()
    return Trace(model, calls, output)


def _recorder(name: str, calls: list[Call]) -> Callable[..., None]:
    def record(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        given = (*arguments, *keywords.values())
        rows = _is_plain(output) and output.shape[1:].numel() == output.shape[1]
        one = rows and len(given) == 1 and isinstance(given[0], Tensor)  # larger tensors are not worth their memory
        calls.append(
            Call(
                name,
                module,
                entered=given[0] if one else None,
                left=output if rows else None,
                width=output.shape[1 if axes_of(module) else -1] if _is_plain(output) else 0,
                version=_version(output) if rows else 0,
            )
        )

    return record


def _is_plain(output: Any) -> bool:
    return isinstance(output, Tensor) and not output.is_nested and output.ndim > 1


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


@torch.no_grad()
def _acts_affine(call: Call) -> bool:
    """Whether a layer of another kind (one with LoRA around it) adds up, as a linear one does."""
    x = call.entered
    holds_weights = any(parameter.ndim > 1 for parameter in call.module.parameters())
    if x is None or not x.is_floating_point() or not holds_weights:
        return False
    with in_eval(call.module):
        one, other, both, none = (call.module(rows) for rows in (x, x.flip(0), x + x.flip(0), torch.zeros_like(x)))
    scale = float(both.abs().max()) + float(none.abs().max())
    return bool(((one + other - both - none).abs() <= 0.01 * scale).all())


_ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "a log-softmax": lambda x: x.log_softmax(1),
    "a softmax": lambda x: x.softmax(1),
    "a sigmoid": torch.sigmoid,
    "the negative": torch.neg,
}


def _what_follows(head: Call, output: Any) -> str:
    left = head.left
    if left is None or not isinstance(output, Tensor) or output.numel() != left.numel():
        return ""
    rows, wanted = left.flatten(1), output.reshape(len(left), -1)
    named = (name for name, end in _ENDS.items() if torch.allclose(end(rows), wanted, rtol=1e-3, atol=1e-5))
    ratio = (wanted.norm() / rows.norm().clamp_min(1e-12)).to(rows.dtype)
    return next(named, "a multiple" if torch.allclose(rows * ratio, wanted, rtol=1e-3, atol=1e-5) else "")
