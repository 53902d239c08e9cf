"""MultiMix: interpolate a myriad of embeddings.

Every name below loads on first use, so that ``import multimix`` waits for nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimix import distill as distill
    from multimix import integrations as integrations
    from multimix import lab as lab
    from multimix import methods as methods
    from multimix import models as models
    from multimix import names as names
    from multimix import ops as ops
    from multimix import protocols as protocols
    from multimix.distill import EMATeacher as EMATeacher
    from multimix.distill import SelfDistilled as SelfDistilled
    from multimix.integrations.loss import MultiMixLoss as MultiMixLoss
    from multimix.lab.inference import load as load
    from multimix.methods import *  # noqa: F403
    from multimix.models import adapt as adapt
    from multimix.names import method_named as method_named
    from multimix.ops import BinaryCrossEntropy as BinaryCrossEntropy
    from multimix.ops import CrossEntropy as CrossEntropy
    from multimix.ops import Objective as Objective
    from multimix.ops import SquaredError as SquaredError
    from multimix.protocols import Losses as Losses
    from multimix.protocols import Method as Method
    from multimix.protocols import Network as Network

__version__ = "0.2.0.dev0"

_ROOMS = ("distill", "integrations", "lab", "methods", "models", "names", "ops", "protocols")
_HOMES = {
    "MultiMixLoss": "integrations.loss",
    "adapt": "models",
    "load": "lab.inference",
    "method_named": "names",
    **dict.fromkeys(("EMATeacher", "SelfDistilled"), "distill"),
    **dict.fromkeys(("Losses", "Method", "Network"), "protocols"),
    **dict.fromkeys(("BinaryCrossEntropy", "CrossEntropy", "Objective", "SquaredError"), "ops"),
}
"""Where the names are that are no methods; methods have theirs from ``multimix.methods``."""


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"multimix.{name}")
    if name in _HOMES:
        return getattr(import_module(f"multimix.{_HOMES[name]}"), name)
    if name == "__all__":
        return sorted({*_ROOMS, *_HOMES, *import_module("multimix.methods").__all__})
    if not name.startswith("_") and name in (methods := import_module("multimix.methods")).__all__:
        return getattr(methods, name)
    raise AttributeError(f"module 'multimix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__getattr__("__all__"), "__version__"})
