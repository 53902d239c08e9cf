"""Faster R-CNN over a feature pyramid."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from multimix.lab.data.boxes import BoxBatch, Objects
from multimix.lab.detect.backbone import Pyramid
from multimix.lab.detect.config import DetectConfig
from multimix.lab.evaluate.detection import Detections
from multimix.lab.train.folder import Facts
from multimix.protocols import Network


def build_detector(config: DetectConfig, network: Network, facts: Facts, *, classes: int) -> nn.Module:
    """Return torchvision's Faster R-CNN with the network's stages as its backbone, which it shares.

    It takes lists of images (c, h, w) in [0, 1] of any size, and normalises them as the network's training did. What is
    not the backbone's is drawn from torch's global generator.

    Args:
        config: Sizes, thresholds and what is trained.
        network: A classifier.
        facts: What it knows of the data that it was trained on.
        classes: How many there are to detect, without the background.

    Raises:
        ValueError: If the network is no residual network, or its stages and the configuration do not fit each other.
    """
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    pyramid = Pyramid(
        network,
        in_channels=facts.shape[0],
        finest=config.finest,
        coarsest=config.coarsest,
        channels=config.channels,
        trainable=_trainable(config, network),
        frozen_norm=config.norm == "frozen",
    )
    pool = MultiScaleRoIAlign(pyramid.regions, output_size=7, sampling_ratio=2)
    sizes = tuple((config.anchor * stride,) for stride in pyramid.strides)
    return FasterRCNN(
        pyramid,
        min_size=config.min_size,
        max_size=config.max_size,
        image_mean=list(facts.mean),
        image_std=list(facts.std),
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        rpn_pre_nms_top_n_train=2 * config.proposals,
        rpn_post_nms_top_n_train=2 * config.proposals,
        rpn_pre_nms_top_n_test=config.proposals,
        rpn_post_nms_top_n_test=config.proposals,
        box_roi_pool=pool,
        box_head=TwoMLPHead(config.channels * 7**2, config.hidden),
        box_predictor=FastRCNNPredictor(config.hidden, classes + 1),
        box_score_thresh=config.score_threshold,
        box_batch_size_per_image=config.sampled,
    )


def _trainable(config: DetectConfig, network: Network) -> int | None:
    if config.init == "random" or config.trainable_stages is not None:
        return config.trainable_stages
    return len(network.stages) - 2  # stage 0 is the input, stage 1 the first that could be trained


def losses_of(detector: nn.Module, batch: BoxBatch) -> dict[str, Tensor]:
    """Return the four losses of Faster R-CNN on a mini-batch, whose detector is in training mode."""
    targets = [{"boxes": objects.boxes, "labels": objects.labels} for objects in batch.objects]
    return detector(batch.images, targets)


def detect_boxes(detector: nn.Module, batches: Iterable[BoxBatch]) -> tuple[list[Detections], list[Objects]]:
    """Return what a detector sees in every image beside what is there, on the CPU.

    The detector is left in the mode it came in.
    """
    found: list[Detections] = []
    truths: list[Objects] = []
    training = detector.training
    detector.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                found += [_detections(output) for output in detector(batch.images)]
                truths += [Objects(*(x.cpu() for x in (t.boxes, t.labels, t.areas, t.ignored))) for t in batch.objects]
    finally:
        detector.train(training)
    return found, truths


def _detections(output: dict[str, Any]) -> Detections:
    return Detections(output["boxes"].cpu(), output["scores"].float().cpu(), output["labels"].cpu())
