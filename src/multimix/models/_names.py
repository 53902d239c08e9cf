"""Modules looked up by dotted names and patterns, and which of them are affine."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatch

from torch import nn

_CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def axes_of(module: nn.Module) -> int:
    """Return how many axes a convolution slides along, 0 for any other layer."""
    return next((axes for axes, cls in enumerate(_CONVOLUTIONS, 1) if isinstance(module, cls)), 0)


def is_affine(module: nn.Module) -> bool:
    """Whether a layer is linear or a 1x1 convolution and computes what torch's do."""
    # A subclass may compute anything else, cosines for one; timm's computes what its base does.
    cls = type(module)
    if "forward" in vars(module):
        return False
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        single = {*module.kernel_size, *module.stride} == {1} and module.groups == 1 and not any(module.padding)
        return single and cls.forward is _CONVOLUTIONS[axes_of(module) - 1].forward
    return isinstance(module, nn.Linear) and (
        cls.forward is nn.Linear.forward or cls.__module__ == "timm.layers.linear"
    )


def width_of(layer: nn.Module | None) -> int | None:
    """Return how many channels a layer takes, if it says so."""
    width = getattr(layer, "in_features", getattr(layer, "in_channels", None))
    return width if isinstance(width, int) else None


def require_module(model: nn.Module, name: str, argument: str) -> nn.Module:
    """Return the module of a name."""
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


def matching(model: nn.Module, pattern: str) -> list[str]:
    """Return the names that match a pattern, such as ``layer[1-4]`` or ``stages.*``; ``*`` stays within one level."""
    levels = pattern.split(".")
    # A container that only holds modules is never called itself.
    names = [name.split(".") for name, module in model.named_modules() if not isinstance(module, nn.ModuleList)]
    return [".".join(name) for name in names if len(name) == len(levels) and all(map(fnmatch, name, levels))]


def linear_layers(model: nn.Module) -> list[str]:
    """Return the names of a model's linear layers, the last one first."""
    return [name for name, module in model.named_modules() if name and isinstance(module, nn.Linear)][::-1]
