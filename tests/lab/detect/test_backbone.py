"""The pyramid stands on the network's own maps; what is frozen stays."""

import pytest
import torch
from torch import nn

from multimix.lab.detect.backbone import Pyramid, stage_names
from multimix.models import build

KINDS = {
    "preact_resnet18": {"width": 4, "strides": (1, 2, 2, 2)},
    "wide_resnet16_8": {"width": 1},
    "torchvision:resnet18": {},
    "timm:resnet18": {},
    "timm:resnet10t": {},
}


def network(name: str, **changes):
    return build(name, num_classes=5, **{**KINDS[name], **changes}).eval()


def pyramid(net, **changes) -> Pyramid:
    given = {"in_channels": 3, "finest": 1, "coarsest": 64, "channels": 8, "trainable": None, "frozen_norm": True}
    return Pyramid(net, **{**given, **changes})


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_maps_are_the_classifiers(name, size):
    """By hooks on the classifier itself, which a pyramid leaves as it is."""
    net, images = network(name), torch.randn(2, 3, *size)
    with torch.no_grad():
        before = net(images)
    built = pyramid(net)
    own: dict[str, torch.Tensor] = {}
    for name in built.regions:
        part = getattr(net, "model", net).get_submodule(name)
        part.register_forward_hook(lambda module, given, out, name=name: own.update({name: own.get(name, out)}))
    with torch.no_grad():
        assert torch.equal(net(images), before)
        maps, levels = built.eval().body(images), built(images)
    assert list(maps) == built.regions
    assert all(torch.equal(found, own[level]) for level, found in maps.items())
    assert [level.shape[1] for level in levels.values()] == [8] * len(built.strides)
    for (level, found), stride in zip(levels.items(), built.strides, strict=True):
        assert found.shape[-2:] == (-(-size[0] // stride), -(-size[1] // stride)), level


def test_the_last_map_is_what_the_classifier_pools():
    for final_norm in (True, False):
        net = network("preact_resnet18", final_norm=final_norm)
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            last = pyramid(net).eval().body(images)["norm"]
            assert torch.equal(last.flatten(2).transpose(1, 2), net.embed(images).features)


@pytest.mark.parametrize(
    ("name", "finest", "regions", "strides"),
    [
        ("preact_resnet18", 1, ["group1", "group2", "group3", "norm"], [1, 2, 4, 8, 16, 32, 64]),
        ("preact_resnet18", 4, ["group3", "norm"], [4, 8, 16, 32, 64]),
        ("preact_resnet18", 5, ["norm"], [8, 16, 32, 64]),
        ("wide_resnet16_8", 4, ["norm"], [4, 8, 16, 32, 64]),
        ("torchvision:resnet18", 4, ["layer1", "layer2", "layer3", "layer4"], [4, 8, 16, 32, 64]),
        ("timm:resnet18", 8, ["layer2", "layer3", "layer4"], [8, 16, 32, 64]),
    ],
)
def test_stages_of_small_strides_do_not_feed_the_pyramid(name, finest, regions, strides):
    built = pyramid(network(name), finest=finest)
    assert (built.regions, built.strides) == (regions, strides)
    short = pyramid(network(name), finest=finest, coarsest=1)
    assert short.strides == strides[: len(regions)]


def test_of_stages_with_one_stride_the_deepest_is_taken():
    built = pyramid(network("preact_resnet18", strides=(1, 2, 1, 2)), coarsest=4)
    assert (built.regions, built.strides) == (["group1", "group3", "norm"], [1, 2, 4])


def test_the_pyramid_is_torchvisions_on_torchvisions_network():
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    net = network("torchvision:resnet18")
    ours = pyramid(net, finest=4, channels=16).eval()
    names = {f"layer{i}": f"layer{i}" for i in range(1, 5)}
    theirs = BackboneWithFPN(net.model, names, [64, 128, 256, 512], 16).eval()
    theirs.fpn.load_state_dict(ours.fpn.state_dict())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for found, expected in zip(ours(images).values(), theirs(images).values(), strict=True):
            assert torch.equal(found, expected)


def trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", ["preact_resnet18", "torchvision:resnet18", "wide_resnet16_8"])
def test_the_deepest_stages_are_trained_and_no_others(name):
    net = network(name)
    count = len(net.stages) - 1
    for wanted in range(count + 1):
        built = pyramid(network(name), trainable=wanted, frozen_norm=False)
        parts = {part.split(".")[0] for part in trained(built.body)}
        stages = {part for part in parts if part[:5] in ("group", "layer")}
        assert sorted(int(part[5:]) for part in stages) == list(range(count - wanted + 1, count + 1))
        assert not parts & {"stem", "conv1", "bn1"}
        assert ("norm" in parts) == (wanted > 0 and name != "torchvision:resnet18")
    everything = trained(pyramid(network(name), frozen_norm=False).body)
    assert {"stem.weight", "conv1.weight"} & everything


def test_frozen_normalisation_keeps_its_statistics_and_scales():
    for frozen in (True, False):
        built = pyramid(network("torchvision:resnet18"), frozen_norm=frozen)
        norm = built.body["layer2"][0].bn1
        before = norm.running_mean.clone()
        assert not (frozen and norm.training)
        built.train()
        assert built.training
        assert norm.training is not frozen
        assert norm.weight.requires_grad is not frozen
        built(torch.randn(2, 3, 64, 64))["layer2"].sum().backward()
        assert torch.equal(norm.running_mean, before) is frozen
        assert (norm.weight.grad is None) is frozen
        built.eval()
        assert not norm.training


def test_building_draws_nothing_for_its_probe():
    net = network("preact_resnet18")
    torch.manual_seed(5)
    pyramid(net)
    after = torch.rand(3)
    torch.manual_seed(5)
    from torchvision.ops import FeaturePyramidNetwork

    FeaturePyramidNetwork([4, 8, 16, 32], 8)
    assert torch.equal(torch.rand(3), after)


class Skipping(nn.Module):
    """A network that does not run its modules one after another."""

    def __init__(self):
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.layer1(x)
        return self.fc((x + self.layer2(2 * x)).mean((2, 3)))


@pytest.mark.bad_input
def test_what_has_no_stages_is_refused():
    with pytest.raises(ValueError, match=r"backbone must be preact_resnet18, .* VGG has none by the names"):
        stage_names(build("torchvision:vgg11", num_classes=2).model)
    network = Skipping().eval()
    with pytest.raises(ValueError, match="does not run its modules one after another"):
        pyramid(network)
    with pytest.raises(ValueError, match="finest must be at most 8, the stride of the backbone's last stage, got 16"):
        pyramid(build("preact_resnet18", num_classes=2, width=2), finest=16)
    with pytest.raises(ValueError, match="trainable_stages must be at most 4, the backbone's stages, got 5"):
        pyramid(build("preact_resnet18", num_classes=2, width=2), trainable=5)
