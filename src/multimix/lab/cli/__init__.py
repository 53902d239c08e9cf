"""The command line; the only importer of tyro.

A command of one's own, as ``studies/anatomy`` is, takes from here what ours are made of: ``Parser``, ``output_file``,
``configured`` (a recipe, a method and any fields from arguments) and ``guarded`` (errors in one line, exit codes).
"""

from importlib import import_module
from typing import Any

_HOMES = {"Parser": "_parser", "configured": "_arguments", "guarded": "__main__", "output_file": "_parser"}

__all__ = ["Parser", "configured", "guarded", "output_file"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
