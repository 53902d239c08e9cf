"""The type checker of `make shapes`: beartype, as ``--jaxtyping-packages=multimix,shape_checker.check``."""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable) -> Callable:
    """Return a function that checks the shapes of its arguments and of its result, and nothing else.

    Other types are mypy's business: here they would only get in the way of tests that put something simple in a
    network's place.
    """
    shapes = {name: hint for name, hint in function.__annotations__.items() if _holds_shape(hint)}
    function.__annotations__ = {name: shapes.get(name, Any) for name in function.__annotations__}
    return beartype(function)


def _holds_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_holds_shape, get_args(hint)))
