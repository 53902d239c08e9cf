"""Modules looked up by dotted names and patterns."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatch

from torch import nn


def require_module(model: nn.Module, name: str, argument: str) -> nn.Module:
    """Return the module of a name.

    Raises:
        ValueError: If the model has none, with near matches; ``argument`` is what the message calls it.
    """
    known = dict(model.named_modules())
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be the dotted name of a module, got {type(name).__name__}")
    if not name or name not in known:
        raise ValueError(f"{argument} must name a module of {type(model).__name__}, got {name!r}; {near(name, known)}")
    return known[name]


def near(name: str, known: Iterable[str]) -> str:
    """Return a remark on the known names nearest to one that is not known."""
    names = [other for other in known if other]
    found = get_close_matches(name, names, n=4, cutoff=0.5) or [other for other in names if name and name in other][:4]
    return f"did you mean {', '.join(map(repr, found))}?" if found else f"there are {listed(names)}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names as text, cut after the first few."""
    shown = ", ".join(map(repr, names[:most])) or "none"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown


def matching(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Return the names that match any pattern, such as ``layer[1-4]`` or ``stages.*``; ``*`` stays within one level."""
    return [name for pattern in patterns for name in _children(model, pattern)]


def linear_layers(model: nn.Module) -> list[str]:
    """Return the names of a model's linear layers, the last one first."""
    return [name for name, module in model.named_modules() if name and isinstance(module, nn.Linear)][::-1]


def _children(model: nn.Module, pattern: str) -> list[str]:
    parent, _, last = pattern.rpartition(".")
    modules = dict(model.named_modules())
    if parent not in modules:
        return []
    prefix = f"{parent}." if parent else ""
    # A container that only holds modules is never called itself.
    children = [name for name, child in modules[parent].named_children() if not isinstance(child, nn.ModuleList)]
    return [f"{prefix}{name}" for name in children if fnmatch(name, last)]
