"""Every classifier of torchvision is split, or refused with what to do instead.

A family is a class that a builder returns; some have a second variant of other blocks.
"""

import math
from functools import partial
from typing import get_type_hints

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import convnext, densenet, efficientnet, maxvit, vision_transformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from multimix.methods import DenseMultiMix, MultiMix
from multimix.models import adapt

pytestmark = pytest.mark.sweep

CLASSES = 7
tv = torchvision.models
MBConv = partial(efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
FusedMBConv = efficientnet.FusedMBConvConfig
SWIN = ([4, 4], 16, [2, 2], [2, 4], [4, 4])
FAMILIES = {  # what makes it, image size
    "AlexNet": (tv.alexnet, 64),
    "ConvNeXt": (
        partial(convnext.ConvNeXt, [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]),
        64,
    ),
    "DenseNet": (partial(densenet.DenseNet, 4, (1, 2, 1), 8), 64),
    "EfficientNet": (
        partial(efficientnet.EfficientNet, [MBConv(1, 3, 1, 8, 8, 1), MBConv(4, 3, 2, 8, 16, 2)], 0.2),
        64,
    ),
    "EfficientNet/v2": (
        partial(
            efficientnet.EfficientNet,
            [FusedMBConv(1, 3, 1, 8, 8, 1), MBConv(4, 3, 2, 8, 16, 1)],
            0.2,
            last_channel=32,
        ),
        64,
    ),
    "GoogLeNet": (partial(tv.googlenet, aux_logits=False, init_weights=False), 64),
    "GoogLeNet/transformed": (
        partial(tv.googlenet, aux_logits=False, init_weights=False, transform_input=True),
        64,
    ),
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
    "SwinTransformer": (partial(SwinTransformer, *SWIN), 64),
    "SwinTransformer/v2": (
        partial(SwinTransformer, *SWIN, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
        64,
    ),
    "VGG": (tv.vgg11_bn, 32),
    "VisionTransformer": (partial(vision_transformer.VisionTransformer, 32, 8, 2, 2, 24, 48), 32),
}
REFUSED = {  # what makes it, image size, what the error says
    "SqueezeNet": (tv.squeezenet1_1, 64, "SqueezeNet ends in a convolution and a ReLU, not in a linear layer"),
    "GoogLeNet/auxiliary": (
        partial(tv.googlenet, init_weights=False),
        64,
        r"GoogLeNet has auxiliary classifiers; adapt\(model, head='fc'\) trains its main one",
    ),
    "Inception3/auxiliary": (
        partial(tv.inception_v3, init_weights=False),
        96,
        r"Inception3 has auxiliary classifiers; adapt\(model, head='fc'\) trains its main one",
    ),
}
SLOW = {"AlexNet", "VGG"}


def make(family):
    torch.manual_seed(1)
    factory, size = (FAMILIES.get(family) or REFUSED[family])[:2]
    model = factory(num_classes=CLASSES)
    assert type(model).__name__ == family.partition("/")[0]
    return model, torch.randn(4, 3, size, size)


@torch.no_grad()
def settle(model, images):
    """Leave nothing at zero or unnormalised, which would hide a part that is left out."""
    for parameter in model.parameters():
        if parameter.abs().max() < 1e-3:
            parameter.normal_(std=0.1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def test_the_tables_have_every_class_that_a_builder_returns():
    names = torchvision.models.list_models(module=torchvision.models)
    assert len(names) > 70
    returned = {name: get_type_hints(tv.get_model_builder(name))["return"] for name in names}
    assert {cls.__name__ for cls in returned.values()} == {key.partition("/")[0] for key in FAMILIES | REFUSED}
    for name, cls in returned.items():
        assert tv.get_model_builder(name).__module__ == cls.__module__, name


@pytest.mark.parametrize("family", [pytest.param(f, marks=[pytest.mark.slow] if f in SLOW else []) for f in FAMILIES])
def test_a_family_is_split(family):
    model, images = make(family)
    settle(model, images)
    network = adapt(model).eval()
    with torch.no_grad():
        plain = model(images)
        gap = plain.std(0).max().item()
        torch.testing.assert_close(network(images), plain, rtol=1e-4, atol=1e-4 * gap)
        for stage in {1, len(network.stages) // 2, len(network.stages) - 1}:
            with network.mixing_at(stage, lambda x: x.flip(0)):
                mixed = network(images)
            torch.testing.assert_close(mixed, plain.flip(0), rtol=0, atol=0.02 * gap, msg=f"stage {stage}")
    assert gap > 1e-4
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == CLASSES]
    assert [network.head] == linear
    for method in (MultiMix(tuples=20), DenseMultiMix(tuples=5)):
        assert_learns(network.train(), method, images)


def assert_learns(network, method, images):
    network.zero_grad()
    losses = method(network, images, torch.tensor([0, 1, 2, 6]), generator=torch.Generator().manual_seed(0))
    losses.total.backward()
    assert math.isfinite(losses.total.item())
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
    first = next(name for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
    assert gradients[f"{first}.weight"].abs().max() > 0


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_cannot_be_split_is_refused(family):
    model, images = make(family)
    assert model.eval()(images).shape == (4, CLASSES)
    with pytest.raises(ValueError, match=REFUSED[family][2]):
        adapt(model)
