"""The pyramid stands on the network's own maps, what is frozen stays, and the detector is torchvision's."""

import pytest
import torch
from torch import nn

from detect.small import small
from multimix.lab.data.boxes import BoxBatches, load_boxes
from multimix.lab.detect import DetectConfig, build_detector, detect_boxes
from multimix.lab.detect.model import Pyramid, losses_of, stage_names
from multimix.lab.train.folder import Facts
from multimix.models import build

FACTS = Facts(("a", "b"), (3, 32, 32), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def detector(**changes):
    network = build("preact_resnet18", num_classes=2, width=2)
    return build_detector(small("run", "coco:x", **changes), network, FACTS, classes=2)


def test_images_are_normalised_as_the_run_did_and_resized():
    built = detector(min_size=(24,), max_size=40).eval()
    images, _ = built.transform([torch.full((3, 48, 64), 0.5)])
    assert images.image_sizes == [(24, 32)]
    seen = images.tensors[0, :, :24, :32]
    for channel, (mean, std) in enumerate(zip(FACTS.mean, FACTS.std, strict=True)):
        assert torch.allclose(seen[channel], torch.tensor((0.5 - mean) / std))
    images, _ = built.transform([torch.zeros(3, 20, 100)])
    assert images.image_sizes == [(8, 40)]  # the longer side would be too long


def test_anchors_grow_with_the_stride_and_stages_alone_feed_regions():
    built = detector(coarsest=64)
    assert built.rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,))
    assert built.roi_heads.box_roi_pool.featmap_names == ["group3", "norm"]
    assert built.roi_heads.box_predictor.cls_score.out_features == 3  # and the background
    assert built.roi_heads.score_thresh == 0.05


def test_it_is_torchvisions_on_torchvisions_network(coco):
    """With one set of weights and its own settings, losses and detections are those of the library's own builder."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    config = DetectConfig(min_size=(64,), max_size=100, score_threshold=0.0)
    ours = build_detector(config, build("torchvision:resnet18", num_classes=2), FACTS, classes=2)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=3)
    theirs = FasterRCNN(
        backbone, 3, min_size=64, max_size=100, image_mean=FACTS.mean, image_std=FACTS.std, box_score_thresh=0.0
    )
    theirs.load_state_dict(ours.state_dict())
    frozen, other = ({n for n, p in m.named_parameters() if not p.requires_grad} for m in (ours, theirs))
    assert {name for name in frozen if "bn" not in name and "downsample.1" not in name} == other
    batch = next(iter(BoxBatches(load_boxes(coco, "train"), batch_size=2)))
    losses = []
    for model in (ours.train(), theirs.train()):
        torch.manual_seed(3)
        losses.append(losses_of(model, batch))
    for name, loss in losses[0].items():
        assert float(loss.detach()) == pytest.approx(float(losses[1][name].detach()), rel=1e-4), name
    found, expected = (detect_boxes(model, [batch])[0] for model in (ours, theirs))
    for one, another in zip(found, expected, strict=True):
        assert len(one.scores) == len(another.scores) == 100
        assert torch.allclose(one.scores, another.scores, rtol=1e-3)


def test_every_trained_weight_has_a_gradient_and_detecting_changes_nothing(coco):
    built = detector()
    batches = BoxBatches(load_boxes(coco, "train"), batch_size=3)
    built.train()
    losses = losses_of(built, next(iter(batches)))
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in built.parameters() if p.requires_grad)
    before = {name: value.clone() for name, value in built.state_dict().items()}
    found, truths = detect_boxes(built, batches)
    assert built.training
    assert len(found) == len(truths) == 6
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


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
    given = {"finest": 1, "coarsest": 64, "channels": 8, "init": "random"}
    return Pyramid(DetectConfig(**{**given, **changes}), net, in_channels=3)


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


@pytest.mark.parametrize(
    ("name", "finest", "regions", "strides"),
    [
        ("preact_resnet18", 1, ["group1", "group2", "group3", "norm"], [1, 2, 4, 8, 16, 32, 64]),
        ("preact_resnet18", 4, ["group3", "norm"], [4, 8, 16, 32, 64]),
        ("wide_resnet16_8", 3, ["norm"], [4, 8, 16, 32, 64]),
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


def trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", ["preact_resnet18", "torchvision:resnet18", "wide_resnet16_8"])
def test_the_deepest_stages_are_trained_and_no_others(name):
    net = network(name)
    count = len(net.stages) - 1
    for given in (*range(count + 1), None):
        built = pyramid(network(name), init="run", trainable_stages=given, norm="trained")
        wanted = count - 1 if given is None else given
        parts = {part.split(".")[0] for part in trained(built.body)}
        stages = {part for part in parts if part[:5] in ("group", "layer")}
        assert sorted(int(part[5:]) for part in stages) == list(range(count - wanted + 1, count + 1))
        assert not parts & {"stem", "conv1", "bn1"}
        assert ("norm" in parts) == (wanted > 0 and name != "torchvision:resnet18")
    everything = trained(pyramid(network(name), norm="trained").body)
    assert {"stem.weight", "conv1.weight"} & everything


def test_frozen_normalisation_keeps_its_statistics_and_scales():
    for frozen in (True, False):
        built = pyramid(network("torchvision:resnet18"), norm="frozen" if frozen else "trained")
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
        pyramid(build("preact_resnet18", num_classes=2, width=2), init="run", trainable_stages=5)
