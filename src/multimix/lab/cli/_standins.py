"""Help texts and lists without the seconds that torch and its like take to import.

What help says comes from the classes of this package: their fields, defaults and docstrings. Their modules import torch
to define them, and define them as well over stand-ins, whose attributes are empty classes.
"""

import sys
from abc import ABCMeta
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_HEAVY = {"PIL", "jaxtyping", "lightning_fabric", "matplotlib", "numpy", "safetensors"} | {
    *("scipy", "sklearn", "timm", "torch", "torchmetrics", "torchvision")
}


class _Meta(ABCMeta):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _empty(name)

    def __getitem__(cls, _: Any) -> type:
        return cls


def _empty(name: str) -> type:
    """Return a class that can be a base, an annotation, a decorator or a constant."""

    def new(cls: type, *given: Any, **_: Any) -> Any:
        decorated = len(given) == 1 and callable(given[0]) and cls.__module__ == __name__
        return given[0] if decorated else object.__new__(cls)

    does: dict[str, Any] = {
        "__new__": new,
        "__init__": lambda self, *_, **__: None,
        "__call__": lambda self, f=None, *_, **__: f,
        "__bool__": lambda self: False,
        "__float__": lambda self: 1.0,
        "__getattr__": lambda self, name: _empty(name)(),
        **dict.fromkeys(("__add__", "__mul__", "__truediv__", "__pow__"), lambda self, _: self),
    }
    return _Meta(name, (), {"__module__": __name__, **does})


class _StandIn(ModuleType):
    __path__: MutableSequence[str] = []  # noqa: RUF012 (what makes a package of it)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _empty(name)
        setattr(self, name, value)
        return value


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.partition(".")[0] in _HEAVY else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is in it."""


@contextmanager
def standins() -> Iterator[None]:
    """Import stand-ins for heavy libraries while the context lasts, and forget what was imported over them."""
    if "torch" in sys.modules:  # there is nothing to save
        yield
        return
    before = dict(sys.modules)
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [*sys.modules]:
            if name not in before and name.partition(".")[0] in {"multimix", *_HEAVY}:
                del sys.modules[name]
