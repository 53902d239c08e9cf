"""Settings of a wrong type, which comparisons would answer with an error that does not say which one it is."""

import types
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_WORDS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    str: (str, "a text"),
    bool: (bool, "True or False"),
    types.NoneType: (types.NoneType, "None"),
}
"""What a value of a type is an instance of, and what it is called; True and False are no numbers."""


def check_fields(settings: object) -> None:
    """Raise unless the fields of a dataclass hold values of their types: numbers, texts, switches, tuples of them.

    A list becomes a tuple where the field may be one, whatever it holds. Whether a number is in range, a text one of
    those known or a tuple of the right length is not looked at, nor are fields that may hold anything else, such as a
    method or a module.

    Raises:
        TypeError: If one does not, with its name, what was expected and what came.
    """
    cls: Any = type(settings)
    for name in _tuples(cls):
        if isinstance(value := getattr(settings, name), list):
            object.__setattr__(settings, name, tuple(value))  # which frozen classes allow in no other way
    for name, kinds in _kinds(cls).items():
        value = getattr(settings, name)
        if not any(_is(value, kind) for kind in kinds):
            expected = " or ".join(dict.fromkeys(_called(kind) for kind in kinds))
            raise TypeError(f"{name} must be {expected}, got {value!r}")


@cache
def _tuples(cls: type) -> tuple[str, ...]:
    """Return the names of the fields that may hold tuples."""
    hints = get_type_hints(cls)
    return tuple(f.name for f in fields(cls) if any(get_origin(kind) is tuple for kind in _parts(hints[f.name])))


@cache
def _kinds(cls: type) -> dict[str, tuple[Any, ...]]:
    """Return the types that each field may have, of the fields that have only such as can be told."""
    hints = get_type_hints(cls)
    found = {f.name: _parts(hints[f.name]) for f in fields(cls)}
    return {name: kinds for name, kinds in found.items() if all(_is_known(kind) for kind in kinds)}


def _parts(hint: Any) -> tuple[Any, ...]:
    """Return what a type is a union of, literals as the types of their values."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(part for kind in get_args(hint) for part in _parts(kind))
    if get_origin(hint) is Literal:
        return tuple(dict.fromkeys(type(value) for value in get_args(hint)))
    return (hint,)


def _is_known(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return all(_is_known(part) for item in _items(kind) for part in _parts(item))
    return kind in _WORDS


def _items(kind: Any) -> tuple[Any, ...]:
    """Return the types that a tuple's items may have."""
    return tuple(item for item in get_args(kind) if item is not Ellipsis)


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        parts = [part for item in _items(kind) for part in _parts(item)]
        return isinstance(value, (tuple, list)) and all(any(_is(item, part) for part in parts) for item in value)
    return isinstance(value, _WORDS[kind][0]) and (kind is bool or not isinstance(value, bool))


def _called(kind: Any) -> str:
    if get_origin(kind) is tuple:
        words = {int: "integers", float: "numbers", str: "texts"}
        return "a tuple of " + " or ".join(dict.fromkeys(words.get(item, "values") for item in _items(kind)))
    return _WORDS[kind][1]
