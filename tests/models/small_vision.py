"""Small models of timm and torchvision, and images for them."""

from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import convnext, densenet, efficientnet, maxvit, swin_transformer, vision_transformer

CLASSES = 7
MBConv = partial(efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
TIMM = {  # name and settings, image size
    "resnet10t": ("resnet10t", {}, 40),
    "resnet-one-position": ("test_resnet", {}, 32),
    "resnet-avgmax": ("test_resnet", {"global_pool": "avgmax"}, 64),
    "vit-token": ("vit_tiny_patch16_224", SMALL_VIT, 32),
    "vit-average": ("vit_tiny_patch16_224", SMALL_VIT | {"global_pool": "avg"}, 32),
    "vit-registers": ("vit_tiny_patch16_224", SMALL_VIT | {"global_pool": "avg", "reg_tokens": 3}, 32),
    "vit-attention": ("vit_tiny_patch16_224", SMALL_VIT | {"global_pool": "map", "class_token": False}, 32),
    "vit-bare": ("vit_tiny_patch16_224", SMALL_VIT | {"global_pool": "avg", "class_token": False}, 32),
    "deit3": ("deit3_small_patch16_224", SMALL_VIT, 32),
    "convnext": ("test_convnext", {}, 64),
    "swin": ("swin_tiny_patch4_window7_224", {"img_size": 64, "embed_dim": 12, "depths": (1, 1, 1, 1)}, 64),
    "mobilenetv3": ("mobilenetv3_small_050", {}, 64),
    "efficientnet": ("test_efficientnet", {}, 64),
    "mixer": ("mixer_s32_224", {"img_size": 64}, 64),
    "densenet": ("densenet121", {"growth_rate": 4, "block_config": (1, 1, 1, 1)}, 64),
    "regnet": ("regnetx_002", {}, 64),
    "cait": ("cait_xxs24_224", {"img_size": 32, "depth": 2}, 32),
    "resnetv2-conv-head": ("resnetv2_18", {}, 40),
    "repvit-norm-head": ("repvit_m0_9", {"embed_dim": (8, 12, 16, 24), "depth": (1, 1, 1, 1)}, 64),
}
TORCHVISION = {
    "resnet18": (lambda **k: torchvision.models.resnet18(**k), 40),
    "mobilenet_v2": (lambda **k: torchvision.models.mobilenet_v2(width_mult=0.25, **k), 64),
    "mobilenet_v3": (lambda **k: torchvision.models.mobilenet_v3_small(width_mult=0.5, **k), 64),
    "efficientnet": (
        lambda **k: efficientnet.EfficientNet([MBConv(1, 3, 1, 8, 8, 1), MBConv(4, 3, 2, 8, 16, 2)], 0.2, **k),
        64,
    ),
    "densenet": (lambda **k: densenet.DenseNet(4, (1, 2, 1), 8, **k), 64),
    "shufflenet": (lambda **k: torchvision.models.shufflenet_v2_x0_5(**k), 64),
    "regnet": (lambda **k: torchvision.models.regnet_y_400mf(**k), 64),
    "convnext": (
        lambda **k: convnext.ConvNeXt([convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)], **k),
        64,
    ),
    "mnasnet": (lambda **k: torchvision.models.mnasnet0_5(**k), 64),
    "vit": (lambda **k: vision_transformer.VisionTransformer(32, 8, 2, 2, 24, 48, **k), 32),
    "vit-pre-logits": (
        lambda **k: vision_transformer.VisionTransformer(32, 8, 2, 2, 24, 48, representation_size=10, **k),
        32,
    ),
    "swin": (lambda **k: swin_transformer.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], **k), 64),
    "maxvit": (lambda **k: maxvit.MaxVit((64, 64), 8, 2, [8, 16], [1, 1], 4, 0.0, **k), 64),
    "alexnet": (lambda **k: torchvision.models.alexnet(**k), 64),
    "vgg": (lambda **k: torchvision.models.vgg11_bn(**k), 64),
}
HEAVY = {"vgg", "alexnet"}
NAMES = [
    *(f"timm/{name}" for name in TIMM),
    *(pytest.param(f"torchvision/{name}", marks=[pytest.mark.slow] if name in HEAVY else []) for name in TORCHVISION),
]


def make(name):
    """A model and a batch of images, with nothing left at zero or unnormalised that would hide a difference."""
    torch.manual_seed(1)
    source, _, family = name.partition("/")
    if source == "timm":
        architecture, settings, size = TIMM[family]
        model = timm.create_model(architecture, num_classes=CLASSES, **settings)
    else:
        factory, size = TORCHVISION[family]
        model = factory(num_classes=CLASSES)
    images = nn.functional.interpolate(4 * torch.randn(3, 3, 4, 4), size=size, mode="bicubic")
    if family not in HEAVY:
        settle(model, images)
    return model, images


@torch.no_grad()
def settle(model, images):
    """Leave nothing at zero or unnormalised, which would hide a part that is left out."""
    for parameter in model.parameters():
        if parameter.abs().max() < 1e-3:
            parameter.normal_(std=0.1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
