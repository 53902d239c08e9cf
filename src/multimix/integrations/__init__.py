"""MultiMix inside other people's trainers: each module imports its host only when it is used.

``multimix.integrations.sklearn`` and its siblings are modules; the names below load from them on first use. Those of
the hub load from ``multimix.lab.hub``, which reads run folders.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimix.integrations.lightning import MultiMixCallback as MultiMixCallback
    from multimix.integrations.lightning import MultiMixModule as MultiMixModule
    from multimix.integrations.loss import MultiMixLoss as MultiMixLoss
    from multimix.integrations.sklearn import MultiMixClassifier as MultiMixClassifier
    from multimix.integrations.sklearn import MultiMixRegressor as MultiMixRegressor
    from multimix.integrations.timm import TimmMixup as TimmMixup
    from multimix.integrations.torchvision import MixCollate as MixCollate
    from multimix.integrations.torchvision import MixTransform as MixTransform
    from multimix.integrations.transformers import MultiMixTrainer as MultiMixTrainer
    from multimix.lab.hub import load_pretrained as load_pretrained
    from multimix.lab.hub import push_to_hub as push_to_hub
    from multimix.lab.hub import save_pretrained as save_pretrained

_HOMES = {
    **dict.fromkeys(("load_pretrained", "push_to_hub", "save_pretrained"), "multimix.lab.hub"),
    **dict.fromkeys(("MultiMixCallback", "MultiMixModule"), "multimix.integrations.lightning"),
    **dict.fromkeys(("MultiMixClassifier", "MultiMixRegressor"), "multimix.integrations.sklearn"),
    **dict.fromkeys(("MixCollate", "MixTransform"), "multimix.integrations.torchvision"),
    "MultiMixLoss": "multimix.integrations.loss",
    "MultiMixTrainer": "multimix.integrations.transformers",
    "TimmMixup": "multimix.integrations.timm",
}
_MODULES = ("lightning", "loss", "sklearn", "timm", "torchvision", "transformers")

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"multimix.integrations.{name}")
    raise AttributeError(f"module 'multimix.integrations' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
