"""Pre-activation residual networks for small images."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multimix._declared import Count, MinLen, check
from multimix.models._network import StagedNetwork
from multimix.protocols import EncoderOutput


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice, beside a shortcut that is a 1x1 convolution where the shape changes (arXiv 1603.05027)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3x3(outputs, outputs, 1)
        reshapes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if reshapes else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Return the residual sum; the shortcut convolution sees the activated input."""
        active = F.relu(self.norm1(x))
        residual = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return residual + (x if self.shortcut is None else self.shortcut(active))


class PreActNetwork(StagedNetwork):
    """A 3x3 convolution, groups of pre-activation blocks, mean over positions, one linear layer."""

    def __init__(
        self,
        widths: Sequence[int],  # of the stem and of each group
        depths: Sequence[int],
        strides: Sequence[int],
        *,
        in_channels: int,
        num_classes: int,
        final_norm: bool,
    ):
        check(Annotated[tuple[Count, ...], MinLen(1)], depths=depths, strides=strides)
        check(Count, in_channels=in_channels, num_classes=num_classes)
        if len(strides) != len(depths):
            raise ValueError(f"strides must hold {len(depths)} numbers, one for each group, got {tuple(strides)}")
        super().__init__([f"group{i}" for i in range(1, len(depths) + 1)])
        self.in_channels = in_channels
        self.stem = _conv3x3(in_channels, widths[0], 1)
        for i, (width, depth, stride) in enumerate(zip(widths[1:], depths, strides, strict=True)):
            rest = [PreActBlock(width, width, 1) for _ in range(depth - 1)]
            self.add_module(f"group{i + 1}", nn.Sequential(PreActBlock(widths[i], width, stride), *rest))
        self.norm = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU()) if final_norm else nn.Identity()
        self.head = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, inputs: Float[Tensor, "b c h w"]) -> EncoderOutput:
        """Return the last feature map, positions row by row: r = h * w of that map.

        Raises:
            ValueError: If the inputs are not a batch of images with the channels that the network was made for.
        """
        if inputs.ndim != 4 or inputs.shape[1] != self.in_channels:
            raise ValueError(f"inputs must have shape (b, {self.in_channels}, h, w), got {tuple(inputs.shape)}")
        x = self.stem(self.inputs(inputs))
        for stage in self._stage_names[1:]:
            x = self.get_submodule(stage)(x)
        x = self.norm(x)
        return EncoderOutput(x.flatten(2).transpose(1, 2), grid=tuple(x.shape[2:]))

    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b d"]:
        """Return the mean over positions."""
        return EncoderOutput.of(output).features.mean(1)

    def classify(self, embeddings: Float[Tensor, "*any d"]) -> Float[Tensor, "*any k"]:
        """Return the logits of embeddings."""
        return cast(nn.Linear, self.head)(embeddings)


class PreActResNet(PreActNetwork):
    """Pre-activation ResNet with basic blocks for small images: a 3x3 stem of stride 1 and no max-pooling.

    The mixup papers' PreActResNet-18 has ``final_norm=False``, so that features can be negative.

    Args:
        depths: Blocks of each of the four groups.
        width: Channels of the first group, doubled in each later one.
        strides: Stride of each group's first block.
        in_channels: Channels of the images.
        num_classes: Number of logits.
        final_norm: Whether batch normalisation and ReLU follow the last group.

    Raises:
        ValueError: If a number is below 1, or the groups are not as many in each argument.

    Reference:
        He et al., "Identity mappings in deep residual networks", arXiv 1603.05027.
    """

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 2, 2),
        *,
        width: int = 64,
        strides: Sequence[int] = (1, 2, 2, 2),
        in_channels: int = 3,
        num_classes: int = 10,
        final_norm: bool = True,
    ):
        check(Count, width=width)
        widths = [width, *(width * 2**i for i in range(len(depths)))]
        super().__init__(
            widths, depths, strides, in_channels=in_channels, num_classes=num_classes, final_norm=final_norm
        )


class WideResNet(PreActNetwork):
    """Wide residual network, which ends in batch normalisation and ReLU.

    Args:
        depth: Number of layers, 6 times the blocks of a group plus 4.
        widen: Factor on the channels 16, 32, 64 of the three groups.
        strides: Stride of each group's first block.
        in_channels: Channels of the images.
        num_classes: Number of logits.

    Raises:
        ValueError: If the depth is not 6 n + 4, a number is below 1 or there are not three strides.

    Reference:
        Zagoruyko and Komodakis, "Wide residual networks", arXiv 1605.07146.
    """

    def __init__(
        self,
        depth: int = 16,
        *,
        widen: int = 8,
        strides: Sequence[int] = (1, 2, 2),
        in_channels: int = 3,
        num_classes: int = 10,
    ):
        check(Count, depth=depth, widen=widen)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 10, 16, 22, ... (6 n + 4), got {depth}")
        widths, depths = [16, 16 * widen, 32 * widen, 64 * widen], [(depth - 4) // 6] * 3
        super().__init__(widths, depths, strides, in_channels=in_channels, num_classes=num_classes, final_norm=True)


preact_resnet18 = partial(PreActResNet, (2, 2, 2, 2))
"""A PreActResNet-18: 11,172,170 parameters at 10 classes, 11,171,146 without the final norm."""
wide_resnet16_8 = partial(WideResNet, 16)
"""A WRN-16-8: 10,961,370 parameters at 10 classes."""


def _conv3x3(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
