"""Faster R-CNN over a feature pyramid on a classification network's stages."""

import re
from collections.abc import Iterable
from functools import partial
from itertools import takewhile
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from multimix.lab.data.boxes import BoxBatch, Objects
from multimix.lab.detect.config import DetectConfig
from multimix.lab.evaluate.detection import Detections
from multimix.lab.evaluate.passes import NonFiniteError, evaluating
from multimix.lab.train.folder import Facts
from multimix.protocols import Network

PROBE = 64
"""Side of the image by which strides and channels are found out."""


class Pyramid(nn.Module):
    """Feature pyramid network (Lin et al., CVPR 2017) over a residual network's own stages, which feed ``regions``.

    Levels beyond the last stage take every other place of the level before.
    """

    def __init__(self, config: DetectConfig, network: Network, *, in_channels: int) -> None:
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        model = cast("nn.Module", getattr(network, "model", network))
        names = stage_names(model)
        body = IntermediateLayerGetter(model, {name: name for name in names})
        maps = _maps_of_probe(network, body, in_channels)
        strides = {name: PROBE // maps[name].shape[-1] for name in names}
        deepest = {stride: name for name, stride in strides.items() if stride >= config.finest}
        if not deepest:
            raise ValueError(
                f"finest must be at most {max(strides.values())}, the stride of the backbone's last stage, got"
                f" {config.finest}"
            )
        self.strides = sorted(deepest)
        self.regions = [deepest[stride] for stride in self.strides]
        while self.strides[-1] < config.coarsest:
            self.strides.append(2 * self.strides[-1])
        self.body = body
        body.return_layers = {name: name for name in self.regions}
        self.out_channels = config.channels
        self.fpn = FeaturePyramidNetwork([maps[name].shape[1] for name in self.regions], config.channels)
        if config.init != "random":
            _freeze(body, names, config.trainable_stages)
        self._held = [part for part in body.modules() if config.norm == "frozen" and isinstance(part, _BatchNorm)]
        for part in self._held:
            part.requires_grad_(False)
            part.training = False

    def forward(self, images: Float[Tensor, "b c h w"]) -> dict[str, Tensor]:
        """Return each level's map (b, out_channels, h, w), the finest first."""
        levels = self.fpn(self.body(images))
        last = levels[self.regions[-1]]
        for stride in self.strides[len(self.regions) :]:
            last = last[:, :, ::2, ::2]
            levels[f"stride{stride}"] = last
        return levels

    def train(self, mode: bool = True) -> "Pyramid":  # noqa: FBT001, FBT002 (torch's signature)
        """Set the mode, but for batch normalisation that is frozen."""
        super().train(mode)
        for module in self._held:
            module.training = False
        return self


def stage_names(model: nn.Module) -> list[str]:
    """Return the names of the modules behind which a residual network's maps are taken, in order."""
    names = sorted(name for name, _ in model.named_children() if re.fullmatch(r"(layer|group)\d", name))
    if len(names) < 2:
        raise ValueError(
            "backbone must be preact_resnet18, wide_resnet16_8 or a ResNet of torchvision or timm, whose stages feed"
            f" the pyramid; {type(model).__name__} has none by the names layer1, layer2, ..."
        )
    # The last map of our own networks is taken behind the normalisation that the classifier sees.
    return [*names[:-1], "norm"] if names[0] == "group1" else names


def _maps_of_probe(network: Network, body: nn.Module, in_channels: int) -> dict[str, Tensor]:
    """Return the stages' maps of a random image, which must be those that the network itself computes."""
    names: list[str] = list(cast("Any", body).return_layers)
    own: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, arguments: object, output: Tensor) -> None:
        own.setdefault(name, output.clone())

    with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(network):
        probe = torch.randn(2, in_channels, PROBE, PROBE)
        hooks = [body.get_submodule(name).register_forward_hook(partial(keep, name)) for name in names]
        network(probe)
        for hook in hooks:
            hook.remove()
        maps: dict[str, Tensor] = body(probe)
    # torchvision's getter runs a model's modules in the order in which they were registered.
    if any(name not in own or not torch.equal(maps[name], own[name]) for name in names):
        raise ValueError("backbone: the network does not run its modules one after another, so its maps cannot be had")
    return maps


def _freeze(body: nn.Module, names: list[str], trainable: int | None) -> None:
    """Train so many of the deepest stages; by default all but the first."""
    trainable = len(names) - 1 if trainable is None else trainable
    if trainable > len(names):
        raise ValueError(f"trainable_stages must be at most {len(names)}, the backbone's stages, got {trainable}")
    first = names[len(names) - trainable] if trainable else None
    if first == "norm":  # the last group, in front of its normalisation
        first = f"group{len(names)}"
    for _, module in takewhile(lambda child: child[0] != first, body.named_children()):
        module.requires_grad_(False)


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

    pyramid = Pyramid(config, network, in_channels=facts.shape[0])
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
        box_roi_pool=MultiScaleRoIAlign(pyramid.regions, output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(config.channels * 7**2, config.hidden),
        box_predictor=FastRCNNPredictor(config.hidden, classes + 1),
        box_score_thresh=config.score_threshold,
        box_batch_size_per_image=config.sampled,
    )


def losses_of(detector: nn.Module, batch: BoxBatch) -> dict[str, Tensor]:
    """Return the four losses of Faster R-CNN on a mini-batch, whose detector is in training mode."""
    targets = [{"boxes": objects.boxes, "labels": objects.labels} for objects in batch.objects]
    return detector(batch.images, targets)


def detect_boxes(detector: nn.Module, batches: Iterable[BoxBatch]) -> tuple[list[Detections], list[Objects]]:
    """Return what a detector sees in every image beside what is there, on the CPU; the detector keeps its mode.

    Raises:
        NonFiniteError: If weights are NaN or infinite, with which torchvision's detectors find nothing.
    """
    if bad := [name for name, value in detector.state_dict().items() if not value.isfinite().all()]:
        raise NonFiniteError(f"the detector's weights are NaN or infinite, first in {bad[0]}")
    found: list[Detections] = []
    truths: list[Objects] = []
    with evaluating(cast("Network", detector)), torch.inference_mode():
        for batch in batches:
            for seen, there in zip(detector(batch.images), batch.objects, strict=True):
                found.append(Detections(seen["boxes"].cpu(), seen["scores"].float().cpu(), seen["labels"].cpu()))
                parts = (there.boxes, there.labels, there.areas, there.ignored)
                truths.append(Objects(*(part.cpu() for part in parts)))
    return found, truths
