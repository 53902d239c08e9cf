"""A classification network's stages, and the feature pyramid over them."""

import re
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from multimix.lab.evaluate.passes import evaluating
from multimix.protocols import Network

PROBE = 64
"""Side of the image by which strides and channels are found out."""


class Pyramid(nn.Module):
    """Feature pyramid network over stages of a residual network (Lin et al., CVPR 2017).

    The stages are the network's own modules. Levels beyond the last stage take every other place of the level before.

    Attributes:
        out_channels: Channels of every level.
        strides: Pixels from one place to the next, for each level.
        regions: Names of the levels that stages feed.

    Args:
        network: PreActResNet, wide ResNet, or a ResNet of torchvision or timm.
        in_channels: Channels of its images.
        finest: Least stride of a stage that feeds the pyramid.
        coarsest: Stride of the last level.
        channels: Of every level.
        trainable: How many of the deepest stages are trained; None for all, and what comes before them.
        frozen_norm: Whether batch normalisation keeps its statistics and scales.

    Raises:
        ValueError: If the network has no such stages, or none of a stride of at least ``finest``.
    """

    def __init__(
        self,
        network: Network,
        *,
        in_channels: int,
        finest: int,
        coarsest: int,
        channels: int,
        trainable: int | None,
        frozen_norm: bool,
    ) -> None:
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        model = cast("nn.Module", getattr(network, "model", network))
        names = stage_names(model)
        body = IntermediateLayerGetter(model, {name: name for name in names})
        maps = _maps_of_probe(network, body, in_channels)
        used = _used({name: PROBE // maps[name].shape[-1] for name in names}, finest)
        self.body = body
        body.return_layers = {name: name for name in used}
        self.strides = list(used.values())
        while self.strides[-1] < coarsest:
            self.strides.append(2 * self.strides[-1])
        self.regions = list(used)
        self.fpn = FeaturePyramidNetwork([maps[name].shape[1] for name in used], channels)
        self.out_channels = channels
        self._held: list[nn.Module] = []
        _freeze(body, names, trainable)
        if frozen_norm:
            self._hold_norms()

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

    def _hold_norms(self) -> None:
        for module in self.body.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(False)
                module.training = False
                self._held.append(module)


def stage_names(model: nn.Module) -> list[str]:
    """Return the names of the modules behind which a residual network's maps are taken, in order.

    The last stage of our own networks is followed by the normalisation that its classifier sees, and taken behind that.
    """
    children = dict(model.named_children())
    names = sorted(name for name in children if re.fullmatch(r"(layer|group)\d", name))
    if len(names) < 2:
        raise ValueError(
            "backbone must be preact_resnet18, wide_resnet16_8 or a ResNet of torchvision or timm, whose stages feed"
            f" the pyramid; {type(model).__name__} has none by the names layer1, layer2, ..."
        )
    return [*names[:-1], "norm"] if names[0] == "group1" else names


def _maps_of_probe(network: Network, body: nn.Module, in_channels: int) -> dict[str, Tensor]:
    """Return the stages' maps of a random image, which must be those that the network itself computes.

    torchvision's getter runs a model's modules in the order in which they were registered.
    """
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
    if any(name not in own or not torch.equal(maps[name], own[name]) for name in names):
        raise ValueError("backbone: the network does not run its modules one after another, so its maps cannot be had")
    return maps


def _used(strides: dict[str, int], finest: int) -> dict[str, int]:
    """Return the stages that feed the pyramid and their strides; of those with one stride, the deepest."""
    deepest = {stride: name for name, stride in strides.items() if stride >= finest}
    if not deepest:
        raise ValueError(
            f"finest must be at most {max(strides.values())}, the stride of the backbone's last stage, got {finest}"
        )
    return {name: stride for stride, name in sorted(deepest.items())}


def _freeze(body: nn.Module, names: list[str], trainable: int | None) -> None:
    if trainable is None:
        return
    if trainable > len(names):
        raise ValueError(f"trainable_stages must be at most {len(names)}, the backbone's stages, got {trainable}")
    kept = False
    first = names[len(names) - trainable] if trainable else None
    if first == "norm":  # the last group, in front of its normalisation
        first = f"group{len(names)}"
    for name, module in body.named_children():
        kept = kept or name == first
        if not kept:
            module.requires_grad_(False)
