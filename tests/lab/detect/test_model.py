"""What the detector is made of."""

import pytest
import torch

from detect.small import small
from multimix.lab.data.boxes import BoxBatches, load_boxes
from multimix.lab.detect import DetectConfig, build_detector, detect_boxes
from multimix.lab.detect.model import losses_of
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


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"trainable_stages": None}, {"group2", "group3", "group4", "norm"}),
        ({"trainable_stages": 1}, {"group4", "norm"}),
        ({"trainable_stages": 0}, set()),
        ({"trainable_stages": None, "init": "random"}, {"stem", "group1", "group2", "group3", "group4", "norm"}),
    ],
)
def test_by_default_all_but_the_first_stage_is_trained(changes, parts):
    body = detector(**changes, norm="trained").backbone.body
    assert {name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad} == parts


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


def test_what_is_found_does_not_depend_on_the_batch(coco):
    """Images of one size share no padding, so that only rounding is left."""
    built = detector(score_threshold=0.0).eval()
    boxes = load_boxes(coco, "train")
    whole, _ = detect_boxes(built, BoxBatches(boxes, batch_size=6))
    single, _ = detect_boxes(built, BoxBatches(boxes, batch_size=1))
    for one, other in zip(whole, single, strict=True):
        assert len(one.scores) == len(other.scores) > 0
        assert torch.allclose(one.scores, other.scores, atol=1e-5)
