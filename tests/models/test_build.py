"""Networks by name."""

import pytest
import torch
import torchvision
from torch import nn

from multimix.models import MODELS, PreActResNet, build


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
def test_bad_input(name, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        build(name, **({"num_classes": 5} | options))
