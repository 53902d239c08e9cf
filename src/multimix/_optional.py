"""Libraries that only a part of the package needs, imported where that part is used."""

from importlib import import_module
from types import ModuleType

_PACKAGES = {
    "PIL": "pillow",
    "faster_coco_eval": "faster-coco-eval",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
}
"""What pip calls the packages whose modules have another name."""


def require(*names: str, by: str) -> ModuleType:
    """Return the first module of ``names`` that is installed.

    Args:
        names: Dotted names of modules that would do, the best one first.
        by: Who needs it, as the message names it.

    Raises:
        ImportError: If none is, with the command that installs it.
    """
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if not _belongs(error.name, name):
                raise  # the library is there, and something it needs is not
    modules = list(dict.fromkeys(name.partition(".")[0] for name in names))
    package = _PACKAGES.get(modules[0], modules[0])
    raise ImportError(f"{by} needs {' or '.join(modules)}, which is not installed: pip install {package}")


def _belongs(missing: str | None, name: str) -> bool:
    return missing is not None and (name == missing or name.startswith(f"{missing}."))
