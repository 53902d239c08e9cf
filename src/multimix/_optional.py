"""Libraries that only a part of the package needs, imported where that part is used."""

from importlib import import_module
from types import ModuleType

PACKAGES = {
    "PIL": "pillow",
    "faster_coco_eval": "faster-coco-eval",
    "mlflow": "mlflow-skinny",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
}
"""What pip calls the packages whose modules have another name."""


def require(*names: str, by: str) -> ModuleType:
    """Return the first module of ``names`` that is installed; ImportError says how to install what ``by`` needs."""
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # the library is there, and something it needs is not
    modules = list(dict.fromkeys(name.partition(".")[0] for name in names))
    package = PACKAGES.get(modules[0], modules[0])
    raise ImportError(f"{by} needs {' or '.join(modules)}, which is not installed: pip install {package}")
