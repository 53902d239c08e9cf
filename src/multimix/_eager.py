"""A call outside of compiled code. Imported only while code is compiled, as the compiler takes a second to import."""

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable
def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, no part of which is compiled."""
    return function(*arguments)
