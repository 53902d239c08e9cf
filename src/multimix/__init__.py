"""MultiMix: interpolate a myriad of embeddings.

Every name below loads on first use, so that ``import multimix`` waits for nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimix import distill, integrations, lab, methods, models, names, ops, protocols
    from multimix.distill import EMATeacher, SelfDistilled
    from multimix.integrations.loss import MultiMixLoss
    from multimix.methods import (
        ERM,
        METHODS,
        AdaMixUp,
        AlignMix,
        Alternate,
        AutoMix,
        Chain,
        CoMixup,
        CutMix,
        DenseMultiMix,
        FMix,
        ManifoldMixup,
        Mixup,
        MultiMix,
        OptTransMix,
        PuzzleMix,
        ResizeMix,
        SaliencyMix,
        StyleCutMix,
        StyleMix,
        SuperMix,
        Until,
        ZetaMixup,
    )
    from multimix.models import adapt
    from multimix.names import method_named
    from multimix.ops import BinaryCrossEntropy, CrossEntropy, Objective, SquaredError
    from multimix.protocols import Losses, Method, Network

__version__ = "0.2.0.dev0"

_ROOMS = ("distill", "integrations", "lab", "methods", "models", "names", "ops", "protocols")
_HOMES = {
    "MultiMixLoss": "integrations.loss",
    "adapt": "models",
    "method_named": "names",
    **dict.fromkeys(("EMATeacher", "SelfDistilled"), "distill"),
    **dict.fromkeys(("Losses", "Method", "Network"), "protocols"),
    **dict.fromkeys(("BinaryCrossEntropy", "CrossEntropy", "Objective", "SquaredError"), "ops"),
}

__all__ = [
    "ERM",
    "METHODS",
    "AdaMixUp",
    "AlignMix",
    "Alternate",
    "AutoMix",
    "BinaryCrossEntropy",
    "Chain",
    "CoMixup",
    "CrossEntropy",
    "CutMix",
    "DenseMultiMix",
    "EMATeacher",
    "FMix",
    "Losses",
    "ManifoldMixup",
    "Method",
    "Mixup",
    "MultiMix",
    "MultiMixLoss",
    "Network",
    "Objective",
    "OptTransMix",
    "PuzzleMix",
    "ResizeMix",
    "SaliencyMix",
    "SelfDistilled",
    "SquaredError",
    "StyleCutMix",
    "StyleMix",
    "SuperMix",
    "Until",
    "ZetaMixup",
    "adapt",
    "distill",
    "integrations",
    "lab",
    "method_named",
    "methods",
    "models",
    "names",
    "ops",
    "protocols",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"multimix.{name}")
    if name in __all__:  # what has no other home is a method
        return getattr(import_module(f"multimix.{_HOMES.get(name, 'methods')}"), name)
    raise AttributeError(f"module 'multimix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
