"""MultiMix: interpolate a myriad of embeddings.

The names below load on first use, so that ``import multimix`` (and with it ``multimix --help``) does not wait for
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimix import methods, models, ops
    from multimix.distill import EMATeacher, SelfDistilled
    from multimix.methods import ERM, Alternate, Chain, CutMix, DenseMultiMix, ManifoldMixup, Mixup, MultiMix, Until
    from multimix.models import adapt
    from multimix.ops import BinaryCrossEntropy, CrossEntropy, Objective, SquaredError
    from multimix.protocols import Losses, Method, Network

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("EMATeacher", "SelfDistilled"), "distill"),
    **dict.fromkeys(("Losses", "Method", "Network"), "protocols"),
    **dict.fromkeys(("BinaryCrossEntropy", "CrossEntropy", "Objective", "SquaredError"), "ops"),
    "adapt": "models",
}
_ROOMS = (
    "anatomy",
    "bench",
    "data",
    "detect",
    "distill",
    "evaluate",
    "integrations",
    "methods",
    "models",
    "ops",
    "protocols",
    "recipes",
    "report",
    "train",
)

__all__ = [
    "ERM",
    "Alternate",
    "BinaryCrossEntropy",
    "Chain",
    "CrossEntropy",
    "CutMix",
    "DenseMultiMix",
    "EMATeacher",
    "Losses",
    "ManifoldMixup",
    "Method",
    "Mixup",
    "MultiMix",
    "Network",
    "Objective",
    "SelfDistilled",
    "SquaredError",
    "Until",
    "adapt",
    "methods",
    "models",
    "ops",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"multimix.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return import_module(f"multimix.{name}")
    if name[:1].isupper() and name in (methods := import_module("multimix.methods")).__all__:
        return getattr(methods, name)
    raise AttributeError(f"module 'multimix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, "__version__"})
