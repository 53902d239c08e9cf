"""A plugin of pytest that checks every shape in a signature: ``-p shape_checker --jaxtyping-packages=multimix,...``."""

from dataclasses import is_dataclass
from types import FunctionType
from typing import Any, get_args

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray

_in_context = jaxtyping.jaxtyped


def check(thing: Any, **_: Any) -> Any:
    """Return a function or a dataclass that checks the shapes of its arguments and of its result, and nothing else.

    Other types are mypy's business: here they would only get in the way of tests that put something simple in a
    network's place. What has no shape in its signature stays as it is: to check nothing takes time as well.
    """
    if is_dataclass(thing) and "__init__" in vars(thing):
        thing.__init__ = check(thing.__init__)
    if not isinstance(thing, FunctionType):
        return thing
    hints = thing.__annotations__
    shapes = {name: hint for name, hint in hints.items() if _holds_shape(hint)}
    if not shapes:
        return thing
    thing.__annotations__ = {name: shapes.get(name, Any) for name in hints}
    return _in_context(beartype(thing), typechecker=None)


def _holds_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_holds_shape, get_args(hint)))


# What jaxtyping's import hook decorates functions with checks arguments twice a call, and functions without shapes too.
jaxtyping.jaxtyped = lambda typechecker: check
