"""Which computations a method stands for, and how often it does each."""

from dataclasses import dataclass, fields, replace
from typing import Any

from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate, CutMix, DenseMultiMix, Mixup, MultiMix
from multimix.protocols import Method


@dataclass(frozen=True)
class Form:
    """What one step of a method computes beside the network."""

    tuples: MultiMix | DenseMultiMix | None = None
    """How tuples are drawn; None for a method without any."""
    teacher: bool = False
    mixes: bool = False
    """Mixes pairs of images."""

    @property
    def dense(self) -> bool:
        """Return whether every position is classified."""
        return isinstance(self.tuples, DenseMultiMix)


def forms(method: Method) -> list[tuple[float, Form]]:
    """Return the forms of a method's step with the share of steps that each has.

    Raises:
        ValueError: If the cost of a method is not known.
    """
    if isinstance(method, SelfDistilled):
        inner = forms(method.method)
        return [(share, Form(form.tuples, teacher=True, mixes=form.mixes)) for share, form in inner]
    if isinstance(method, Alternate):
        shares = method.probabilities or (1 / len(method.methods),) * len(method.methods)
        pairs = zip(shares, method.methods, strict=True)
        return [(outer * share, form) for outer, part in pairs for share, form in forms(part)]
    if isinstance(method, MultiMix | DenseMultiMix):
        return [(1.0, Form(method))]
    if isinstance(method, Mixup | CutMix):
        return [(1.0, Form(mixes=True))]
    if isinstance(method, ERM):
        return [(1.0, Form())]
    name = getattr(method, "name", type(method).__name__)
    raise ValueError(
        f"method must be erm, mixup, cutmix, multimix, dense-multimix, these self-distilled or alternating, got {name}"
    )


def with_tuples(method: Any, tuples: int) -> Any:
    """Return a method that draws so many tuples a step, it or those inside it.

    Raises:
        ValueError: If there is none that draws any, or the number is below 1.
    """
    changed = _changed(method, tuples)
    if not any(form.tuples for _, form in forms(changed)):
        raise ValueError(f"tuples are not drawn by {method.name}, got {tuples}")
    return changed


def _changed(method: Any, tuples: int) -> Any:
    if isinstance(method, MultiMix | DenseMultiMix):
        return replace(method, tuples=tuples)
    if isinstance(method, Alternate):
        return replace(method, methods=tuple(_changed(part, tuples) for part in method.methods))
    if isinstance(method, SelfDistilled):  # a module, which replace() does not know how to copy
        given = {f.name: getattr(method, f.name) for f in fields(method)}
        return SelfDistilled(**{**given, "method": _changed(method.method, tuples)})
    return method
