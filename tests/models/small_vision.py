"""Small models of timm and torchvision, and images for them."""

from functools import partial

import pytest
import timm
import torch
from torch import nn
from torchvision import models as tv
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
CNBlockConfig, EfficientNet = convnext.CNBlockConfig, efficientnet.EfficientNet
V2 = [efficientnet.FusedMBConvConfig(1, 3, 1, 8, 8, 1), MBConv(4, 3, 2, 8, 16, 1)]
GOOGLENET = partial(tv.googlenet, aux_logits=False, init_weights=False)
SWIN = ([4, 4], 16, [2, 2], [2, 4], [4, 4])
SWIN_V2 = {"block": swin_transformer.SwinTransformerBlockV2, "downsample_layer": swin_transformer.PatchMergingV2}
VIT = partial(vision_transformer.VisionTransformer, 32, 8, 2, 2, 24, 48)
TORCHVISION = {  # what makes it, image size
    "AlexNet": (tv.alexnet, 64),
    "ConvNeXt": (partial(convnext.ConvNeXt, [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]), 64),
    "DenseNet": (partial(densenet.DenseNet, 4, (1, 2, 1), 8), 64),
    "EfficientNet": (partial(EfficientNet, [MBConv(1, 3, 1, 8, 8, 1), MBConv(4, 3, 2, 8, 16, 2)], 0.2), 64),
    "EfficientNet/v2": (partial(EfficientNet, V2, 0.2, last_channel=32), 64),
    "GoogLeNet": (GOOGLENET, 64),
    "GoogLeNet/transformed": (partial(GOOGLENET, transform_input=True), 64),
    "Inception3": (partial(tv.inception_v3, aux_logits=False, init_weights=False), 96),
    "MNASNet": (tv.mnasnet0_5, 64),
    "MaxVit": (partial(maxvit.MaxVit, (64, 64), 8, 2, [8, 16], [1, 1], 4, 0.0), 64),
    "MobileNetV2": (partial(tv.mobilenet_v2, width_mult=0.25), 64),
    "MobileNetV3": (partial(tv.mobilenet_v3_small, width_mult=0.5), 64),
    "RegNet": (tv.regnet_y_400mf, 64),
    "RegNet/x": (tv.regnet_x_400mf, 64),
    "ResNet": (tv.resnet18, 40),
    "ResNet/next": (partial(tv.ResNet, tv.resnet.Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=4), 40),
    "ShuffleNetV2": (tv.shufflenet_v2_x0_5, 64),
    "SwinTransformer": (partial(swin_transformer.SwinTransformer, *SWIN), 64),
    "SwinTransformer/v2": (partial(swin_transformer.SwinTransformer, *SWIN, **SWIN_V2), 64),
    "VGG": (tv.vgg11_bn, 32),
    "VisionTransformer": (VIT, 32),
    "VisionTransformer/pre-logits": (partial(VIT, representation_size=10), 32),
}
SWEPT_ONLY = {"GoogLeNet", "GoogLeNet/transformed", "Inception3", "EfficientNet/v2", "RegNet/x", "ResNet/next"}
SWEPT_ONLY |= {"SwinTransformer/v2"}
HEAVY = {"VGG", "AlexNet"}
NAMES = [f"timm/{name}" for name in TIMM]
NAMES += [
    pytest.param(f"torchvision/{name}", marks=[pytest.mark.slow] if name in HEAVY else [])
    for name in TORCHVISION
    if name not in SWEPT_ONLY
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
