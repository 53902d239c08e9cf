"""MultiMix inside other people's trainers: each module imports its host only when it is used.

``multimix.integrations.sklearn`` and its siblings are modules; the names below load from them on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimix.integrations.hub import load_pretrained, push_to_hub, save_pretrained
    from multimix.integrations.lightning import MultiMixCallback, MultiMixModule
    from multimix.integrations.sklearn import MultiMixClassifier, MultiMixRegressor
    from multimix.integrations.timm import MultiMixLoss, TimmMixup
    from multimix.integrations.torchvision import MixCollate, MixTransform
    from multimix.integrations.transformers import MultiMixTrainer

_HOMES = {
    **dict.fromkeys(("load_pretrained", "push_to_hub", "save_pretrained"), "hub"),
    **dict.fromkeys(("MultiMixCallback", "MultiMixModule"), "lightning"),
    **dict.fromkeys(("MultiMixClassifier", "MultiMixRegressor"), "sklearn"),
    **dict.fromkeys(("MultiMixLoss", "TimmMixup"), "timm"),
    **dict.fromkeys(("MixCollate", "MixTransform"), "torchvision"),
    "MultiMixTrainer": "transformers",
}

__all__ = [
    "MixCollate",
    "MixTransform",
    "MultiMixCallback",
    "MultiMixClassifier",
    "MultiMixLoss",
    "MultiMixModule",
    "MultiMixRegressor",
    "MultiMixTrainer",
    "TimmMixup",
    "load_pretrained",
    "push_to_hub",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"multimix.integrations.{_HOMES[name]}"), name)
    if name in set(_HOMES.values()):
        return import_module(f"multimix.integrations.{name}")
    raise AttributeError(f"module 'multimix.integrations' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_HOMES.values()})
