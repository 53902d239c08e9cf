"""Networks by name, and our own against published counts and timm's ResNetV2."""

import re

import pytest
import torch
import torchvision
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnetv2 import ResNetV2
from torch import nn

from multimix.models import MODELS, PreActResNet, WideResNet, build, preact_resnet18, wide_resnet16_8
from multimix.protocols import Network

SMALL = preact_resnet18(width=2)


def test_parameter_counts():
    networks = (preact_resnet18(), preact_resnet18(final_norm=False), wide_resnet16_8())
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts == [11_172_170, 11_171_146, 10_961_370]


def timm_twin(network, *, stem):
    """timm's pre-activation network of the same widths, with our stem and weights."""
    groups = [group for name, group in network.named_children() if name.startswith("group")]
    twin = ResNetV2(
        [len(group) for group in groups],
        channels=[group[0].conv1.out_channels for group in groups],
        num_classes=network.head.out_features,
        stem_chs=stem,
        basic=True,
        bottle_ratio=1.0,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    )
    twin.stem = network.stem
    weights = {f"norm.{name}": value for name, value in network.norm[0].state_dict().items()}
    weights |= {"head.fc.weight": network.head.weight[..., None, None], "head.fc.bias": network.head.bias}
    for name, value in network.state_dict().items():
        if found := re.match(r"group(\d)\.(\d)\.(.*)", name):
            rest = found[3].replace("shortcut", "downsample.conv")
            weights[f"stages.{int(found[1]) - 1}.blocks.{found[2]}.{rest}"] = value
    missing, unexpected = twin.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("stem") for name in missing)
    return twin


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("network", "stem"), [(preact_resnet18(width=8), 8), (wide_resnet16_8(widen=1), 16)], ids=["preact", "wide"]
)
def test_forward_equals_timm(network, stem, training):
    twin = timm_twin(network, stem=stem).train(training)
    network.train(training)
    images = torch.randn(3, 3, 20, 12)
    torch.testing.assert_close(network(images), twin(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "side", "width"),
    [
        (lambda: preact_resnet18(width=4), 4, 32),
        (lambda: preact_resnet18(width=4, strides=(1, 1, 2, 2)), 8, 32),
        (lambda: preact_resnet18(width=4, strides=(2, 2, 2, 2), final_norm=False), 2, 32),
        (lambda: wide_resnet16_8(widen=1), 8, 64),
        (lambda: PreActResNet((1, 2), width=3, strides=(1, 2)), 16, 6),
        (lambda: WideResNet(10, widen=2), 8, 128),
    ],
)
def test_shapes(network, side, width):
    network = network()
    assert isinstance(network, Network)
    features = network.embed(torch.randn(2, 3, 32, 32)).features
    assert features.shape == (2, side * side, width)
    assert network.pool(features).shape == (2, width)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert network.classify(torch.randn(5, 4, width)).shape == (5, 4, 10)
    assert isinstance(network.head, nn.Linear)


def test_forward_is_the_three_parts_positions_are_row_major_and_pooling_is_a_mean():
    network, images = preact_resnet18(width=4, in_channels=1).eval(), torch.randn(2, 1, 24, 40)
    maps = []
    network.norm.register_forward_hook(lambda module, arguments, output: maps.append(output))
    features = network.embed(images).features
    assert maps[0].shape == (2, 32, 3, 5)
    assert torch.equal(features, maps[0].flatten(2).transpose(1, 2))
    torch.testing.assert_close(network.pool(features), features.sum(1) / 15)
    assert torch.equal(network.pool(features[:, 2:3]), features[:, 2])
    assert torch.equal(network(images), network.classify(network.pool(features)))
    assert network.embed(images).grid == (3, 5)


def test_convolutions_start_with_he_normal_over_the_fan_out():
    network = preact_resnet18(width=32)
    for weight in (network.group3[0].conv1.weight, network.group4[0].shortcut.weight):
        outputs, _, height, width = weight.shape
        assert weight.std().item() == pytest.approx((2 / (outputs * height * width)) ** 0.5, rel=0.02)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: preact_resnet18(width=0), "width must be at least 1, got 0$"),
        (lambda: preact_resnet18(num_classes=0), "num_classes must be at least 1, got 0"),
        (lambda: preact_resnet18(in_channels=-1), "in_channels must be at least 1"),
        (lambda: preact_resnet18(strides=(1, 2)), r"strides must hold 4 numbers, one for each group, got \(1, 2\)"),
        (lambda: preact_resnet18(strides=(1, 2, 0, 2)), "strides must hold values that each must be at least 1"),
        (lambda: PreActResNet(()), "depths must hold at least 1, got"),
        (lambda: WideResNet(18), "depth must be 10, 16, 22"),
        (lambda: WideResNet(4), r"depth must be 10, 16, 22, ... \(6 n \+ 4\), got 4"),
        (lambda: wide_resnet16_8(widen=0), "widen must be at least 1, got 0"),
        (lambda: SMALL(torch.randn(2, 1, 8, 8)), r"inputs must have shape \(b, 3, h, w\), got \(2, 1, 8, 8\)"),
        (lambda: SMALL(torch.randn(3, 8, 8)), r"inputs must have shape .* got \(3, 8, 8\)"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_settings_reach_our_own_models():
    for name in MODELS:
        assert build(name, num_classes=4, in_channels=1, width=2)(torch.randn(3, 1, 8, 8)).shape == (3, 4)
    network = build("preact_resnet18", num_classes=5, width=3, strides=(1, 1, 1, 2), final_norm=False)
    assert isinstance(network, PreActResNet)
    assert isinstance(network.norm, nn.Identity)
    assert network.embed(torch.randn(1, 3, 8, 8)).features.shape == (1, 16, 24)
    wide = build("wide_resnet16_8", num_classes=5, width=2, strides=(2, 2, 2))
    assert wide.embed(torch.randn(2, 3, 8, 8)).features.shape == (2, 1, 128)
    assert build("wide_resnet16_8", num_classes=10).head.in_features == 512
    assert isinstance(build("preact_resnet18", num_classes=10).norm, nn.Sequential)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("timm:test_resnet", {"in_channels": 1}, (2, 1, 32, 32)),
        ("timm:test_vit", {"image_size": 32}, (2, 3, 32, 32)),
        ("timm:test_vit.r160_in1k", {"image_size": 64, "in_channels": 4}, (2, 4, 64, 64)),
        ("torchvision:shufflenet_v2_x0_5", {}, (2, 3, 32, 32)),
        pytest.param("torchvision:maxvit_t", {"image_size": 224}, (1, 3, 224, 224), marks=pytest.mark.slow),
        pytest.param("torchvision:vit_b_16", {"image_size": 32}, (2, 3, 32, 32), marks=pytest.mark.slow),
    ],
)
def test_models_of_others_by_name(name, options, shape):
    network = build(name, num_classes=6, **options).eval()
    with torch.no_grad():
        assert network(torch.randn(shape)).shape == (shape[0], 6)


@pytest.mark.parametrize("classes", [1000, 3])
def test_pretrained_torchvision_weights_get_a_head_of_the_right_size(monkeypatch, classes):
    weights = torchvision.models.shufflenet_v2_x0_5().state_dict()
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda self, **_: weights)
    network = build("torchvision:shufflenet_v2_x0_5", num_classes=classes, pretrained=True)
    assert torch.equal(network.model.conv1[0].weight, weights["conv1.0.weight"])
    assert torch.equal(network.model.fc.weight, weights["fc.weight"]) == (classes == 1000)
    assert network.eval()(torch.randn(2, 3, 32, 32)).shape == (2, classes)


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18", "timm:test_vit"])
def test_pretrained_timm_weights_are_asked_for(monkeypatch, name):
    asked = []

    def create(model, **options):
        asked.append((model, options))
        return nn.Linear(2, 2)

    monkeypatch.setattr("timm.create_model", create)
    monkeypatch.setattr("torchvision.models.get_model", create)
    with pytest.raises(ValueError, match="Linear is a single layer; put it into"):
        build(name, num_classes=3, pretrained=True)
    expected = {"num_classes": 3, "in_chans": 3, "pretrained": True} if "timm" in name else {"weights": "DEFAULT"}
    assert asked == [(name.partition(":")[2], expected)]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "preact_resnet81",
            {},
            "name must be a known model, got 'preact_resnet81'; did you mean 'preact_resnet18'.*timm:",
        ),
        (3, {}, "model must be the name of a network, got 3"),
        ("preact_resnet18", {"widht": 3}, "options must be of width, strides, final_norm, pretrained, got widht"),
        ("zzz", {}, "name must be a known model, got 'zzz'; there are 'preact_resnet18', 'wide_resnet16_8'; other"),
        ("timm:", {}, "name must be a known model, got 'timm:'"),
        ("timm:resnet81", {}, "got 'timm:resnet81'; did you mean .*'resnet18'"),
        ("torchvision:fcn_resnet50", {}, "got 'torchvision:fcn_resnet50'"),
        ("preact_resnet18", {"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ("preact_resnet18", {"pretrained": True}, "pretrained does not apply to .*; what does is final_norm, str"),
        ("preact_resnet18", {"image_size": 0}, "image_size must be at least 1, got 0"),
        ("preact_resnet18", {"width": 0}, "width must be at least 1, got 0"),
        ("wide_resnet16_8", {"final_norm": False}, "final_norm does not apply to 'wide_resnet16_8'"),
        ("timm:test_resnet", {"width": 3}, "width does not apply to 'timm:test_resnet'"),
        ("torchvision:resnet18", {"strides": (1, 1)}, "strides does not apply to 'torchvision:resnet18'"),
        ("torchvision:resnet18", {"in_channels": 1}, "in_channels does not apply to 'torchvision:resnet18'.*got 1"),
        ("torchvision:vit_b_16", {"image_size": 30}, "image_size does not suit 'torchvision:vit_b_16', got 30"),
    ],
)
def test_names_and_options_that_are_refused(name, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        build(name, **({"num_classes": 5} | options))
