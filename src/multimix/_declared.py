"""Declared checks: what a field or an argument may hold stands in its annotation, and one function reads it.

``alpha: Annotated[float, Gt(0)]`` refuses -1 with "alpha must be above 0, got -1". Types that cannot be told, such as
a method or a module, are not looked at.
"""

import types
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from math import inf
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

__all__ = [
    "Checked",
    "Count",
    "Fraction",
    "Ge",
    "Gt",
    "Interval",
    "Le",
    "Lt",
    "MinLen",
    "Positive",
    "check",
    "check_fields",
    "shown",
]

Count = Annotated[int, Ge(1)]
"""A whole number of at least 1."""
Fraction = Annotated[float, Interval(ge=0, le=1)]
"""A share or a probability, in [0, 1]."""
Positive = Annotated[float, Interval(gt=0, lt=inf)]
"""A finite number above 0."""


class Checked:
    """Base of dataclasses whose fields are checked as they are annotated."""

    def __post_init__(self) -> None:
        """Refuse what the annotations rule out."""
        check_fields(self)


def check_fields(settings: object) -> None:
    """Raise unless the fields of a dataclass hold what their annotations say.

    A list becomes a tuple where the field may be one.

    Raises:
        TypeError: If a field holds a value of another type, with its name, what was expected and what came.
        ValueError: If it holds a value out of its range, or none of its choices.
    """
    cls: Any = type(settings)
    for name, kinds, may_be_tuple in _declared(cls):
        value = getattr(settings, name)
        if isinstance(value, list) and may_be_tuple:
            value = tuple(value)
            object.__setattr__(settings, name, value)  # which frozen classes allow in no other way
        _check(name, value, kinds)


def check(annotation: Any, **values: object) -> None:
    """Raise unless all values, given by name, are what an annotation says: ``check(Count, n=n)``.

    Raises:
        TypeError: If one is of another type.
        ValueError: If one is out of range, or none of the choices.
    """
    kinds = _kinds(annotation)
    for name, value in values.items():
        _check(name, value, kinds)


def shown(value: object) -> str:
    """Return a value as a message of one line shows it: its type alone where its text is long."""
    text = repr(value)
    return text if len(text) <= _LONG and "\n" not in text else f"a value of type {type(value).__name__}"


_LONG = 200


@dataclass(frozen=True)
class _Kind:
    """One of the types that an annotation allows, and what else a value of it has to be."""

    of: type
    words: str
    bounds: tuple[Any, ...] = ()
    choices: tuple[Any, ...] = ()
    items: tuple["_Kind", ...] = ()
    length: int | None = None

    def takes(self, value: object) -> bool:
        """Return whether a value is of this type; True and False are no numbers."""
        if isinstance(value, bool) and self.of is not bool:
            return False
        if self.items:
            return isinstance(value, (tuple, list)) and all(any(kind.takes(i) for kind in self.items) for i in value)
        return isinstance(value, self.of)

    def holds(self, value: Any) -> bool:
        """Return whether a value of this type is in range and one of the choices; NaN is in no range."""
        return (
            self._holds_items(value)
            and (not self.choices or value in self.choices)
            and all(_TESTS[type(b)](value, b) for b in self.bounds)
        )

    def asks(self, value: Any) -> str:
        """Return what a value that does not hold has to be, as a sentence goes on after "must"."""
        if self.choices:
            return "be one of " + ", ".join(map(str, self.choices))
        if self.length is not None and len(value) != self.length:
            return f"hold {self.length} values"
        if not self._holds_items(value):
            return "hold values that each must " + " or ".join(kind.asks(None) for kind in self.items)
        return _range(self.bounds) if self.bounds else f"be {self.words}"

    def _holds_items(self, value: Any) -> bool:
        if self.length is not None and len(value) != self.length:
            return False
        return not self.items or all(any(kind.takes(i) and kind.holds(i) for kind in self.items) for i in value or ())


_TESTS: dict[type, Callable[[Any, Any], bool]] = {
    Ge: lambda value, bound: value >= bound.ge,
    Gt: lambda value, bound: value > bound.gt,
    Le: lambda value, bound: value <= bound.le,
    Lt: lambda value, bound: value < bound.lt,
    MinLen: lambda value, bound: len(value) >= bound.min_length,
}
_TYPES: dict[Any, tuple[Any, str]] = {
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    str: (str, "a text"),
    bool: (bool, "True or False"),
    types.NoneType: (types.NoneType, "None"),
}
"""What a value of a type is an instance of, and what it is called."""


def _check(name: str, value: object, kinds: tuple[_Kind, ...]) -> None:
    if not kinds or any(kind.takes(value) and kind.holds(value) for kind in kinds):
        return
    fitting = [kind for kind in kinds if kind.takes(value)]
    if not fitting:
        raise TypeError(f"{name} must be {' or '.join(dict.fromkeys(k.words for k in kinds))}, got {shown(value)}")
    raise ValueError(f"{name} must {' or '.join(dict.fromkeys(k.asks(value) for k in fitting))}, got {shown(value)}")


@cache
def _declared(cls: Any) -> tuple[tuple[str, tuple[_Kind, ...], bool], ...]:
    """Return each field's name, the types that it allows and whether a tuple is among them."""
    hints = get_type_hints(cls, include_extras=True)
    return tuple((f.name, _kinds(hints[f.name]), "tuple[" in str(hints[f.name])) for f in fields(cls))


@cache
def _kinds(annotation: Any) -> tuple[_Kind, ...]:
    """Return the types that an annotation allows; none if any of them cannot be told."""
    if get_origin(annotation) in (Union, types.UnionType):
        found = [_kinds(part) for part in get_args(annotation)]
        return tuple(kind for kinds in found for kind in kinds) if all(found) else ()
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        of = dict.fromkeys(type(choice) for choice in choices)
        return tuple(_Kind(*_TYPES[t], choices=tuple(c for c in choices if type(c) is t)) for t in of)
    bounds: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *marks = get_args(annotation)
        bounds = tuple(b for m in marks for b in (m if isinstance(m, Interval) else (m,)) if type(b) in _TESTS)
    if get_origin(annotation) is tuple:
        given = get_args(annotation)
        items = tuple(_kinds(item) for item in given if item is not Ellipsis)
        length = None if Ellipsis in given else len(given)
        return (_tuple_of(tuple(dict.fromkeys(k for i in items for k in i)), bounds, length),) if all(items) else ()
    return (_Kind(*_TYPES[annotation], bounds=bounds),) if annotation in _TYPES else ()


def _tuple_of(items: tuple[_Kind, ...], bounds: tuple[Any, ...], length: int | None) -> _Kind:
    plural = {"an integer": "integers", "a number": "numbers", "a text": "texts"}
    words = dict.fromkeys(plural.get(kind.words, "values") for kind in items)
    return _Kind(tuple, f"a tuple of {' or '.join(words)}", bounds, items=items, length=length)


def _range(bounds: tuple[Any, ...]) -> str:
    """Return what lies within bounds: "lie in [0, 1)", "be at least 1", "be above 0 and finite"."""
    low = next((b for b in bounds if isinstance(b, (Ge, Gt))), None)
    high = next((b for b in bounds if isinstance(b, (Le, Lt))), None)
    if low is None and high is None:
        return f"hold at least {bounds[0].min_length}"
    below = "" if low is None else f"be at least {low.ge}" if isinstance(low, Ge) else f"be above {low.gt}"
    if high is None:
        return below
    top, closed = (high.le, "]") if isinstance(high, Le) else (high.lt, ")")
    if low is None:
        return "be finite" if top == inf else f"be at most {top}" if closed == "]" else f"be below {top}"
    if top == inf:
        return f"{below} and finite"
    return f"lie in [{low.ge}, {top}{closed}" if isinstance(low, Ge) else f"lie in ({low.gt}, {top}{closed}"
