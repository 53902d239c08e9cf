"""Networks that methods can mix inside: our own for small images, adaptors for timm, torchvision and any model."""

from multimix.models._adapt import MODELS, AdaptOptions, ModelOptions, adapt, build
from multimix.models._network import StagedNetwork
from multimix.models._preact import PreActResNet, WideResNet, preact_resnet18, wide_resnet16_8
from multimix.models._synced import synchronise_batchnorm

__all__ = [
    "MODELS",
    "AdaptOptions",
    "ModelOptions",
    "PreActResNet",
    "StagedNetwork",
    "WideResNet",
    "adapt",
    "build",
    "preact_resnet18",
    "synchronise_batchnorm",
    "wide_resnet16_8",
]
