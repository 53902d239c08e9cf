"""The library that a module is for, or one clear line on how to get it."""

from importlib import import_module
from types import ModuleType


def require_host(*names: str, extra: str | None = None) -> ModuleType:
    """Return the first module of ``names`` that is installed.

    Args:
        names: Dotted names of modules that would do, the best one first.
        extra: The extra of this package that installs it; None where the package itself needs it.

    Raises:
        ImportError: If none is, with the command that installs it.
    """
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if not _belongs(error.name, name):
                raise  # the host is there, and something it needs is not
    wanted = " or ".join(dict.fromkeys(name.partition(".")[0] for name in names))
    package = "multimix" if extra is None else f"multimix[{extra}]"
    raise ImportError(f"{wanted} is not installed, which this integration is for: pip install {package}")


def _belongs(missing: str | None, name: str) -> bool:
    return missing is not None and (name == missing or name.startswith(f"{missing}."))
