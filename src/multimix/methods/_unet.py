"""The generator of AutoMix: a U-Net that takes channels from one or the other image of a pair."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

_REDUCTION = 16
"""Channels of the first level to one hidden unit of a gate."""


class MixingUNet(nn.Module):
    """Mix images in a small U-Net: at each level, complementary sets of channels survive of either image.

    Works on images of any size: an axis of a single position is not halved any more. Batch normalisation always takes
    the statistics of the mini-batch.

    Attributes:
        levels: Channels at each level, from the images' own size down.
    """

    def __init__(self, channels: int, width: int = 16):
        """Make a generator for images with ``channels`` channels, with ``width`` channels at their own size."""
        super().__init__()
        self.channels = channels
        self.levels = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        inside = [channels, *self.levels[:-1]]
        joined = [width, width, 2 * width, 4 * width]
        self.down = nn.ModuleList(
            nn.Sequential(*_convolutions(i, o), _Gate(o)) for i, o in zip(inside, self.levels, strict=True)
        )
        self.merge = nn.ModuleList(nn.Sequential(*_convolutions(2 * d, d)) for d in self.levels)
        self.up = nn.ModuleList(nn.ConvTranspose2d(d, d, 2, stride=2) for d in self.levels[:-1])
        self.join = nn.ModuleList(
            nn.Sequential(*_convolutions(2 * i, o)) for i, o in zip(self.levels[:-1], joined, strict=True)
        )
        self.out = nn.Sequential(nn.Conv2d(width, channels, 1), _BatchNorm(channels))

    def forward(self, images: Tensor, partners: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Return images (n, c, h, w) mixed with their partners (n,).

        ``masks`` holds for each level which channels are the image's own, 1, and which are its partner's, 0.
        """
        merged = []
        for level, (down, merge, mask) in enumerate(zip(self.down, self.merge, masks, strict=True)):
            features = down(_halve(images) if level else images)
            own = mask.to(features.dtype)[:, None, None]
            images = features * own  # only what is kept goes on to the next level
            merged.append(merge(torch.cat([images, features[partners] * (1 - own)], 1)))
        mixed = merged.pop()
        for level in reversed(range(len(merged))):
            upper = _fit(self.up[level](mixed), merged[level])
            mixed = self.join[level](torch.cat([merged[level], upper], 1))
        return self.out(mixed)


class _BatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the mini-batch alone; a single value a channel, which has no spread, is only scaled."""

    def __init__(self, d: int):
        super().__init__(d, track_running_stats=False)

    def forward(self, values: Tensor) -> Tensor:
        if values.numel() == values.shape[1]:
            return values * self.weight[:, None, None] + self.bias[:, None, None]
        return super().forward(values)


class _Gate(nn.Module):
    """Squeeze and excitation: scale channels by what their averages say."""

    def __init__(self, d: int):
        super().__init__()
        hidden = max(d // _REDUCTION, 1)
        self.score = nn.Sequential(
            nn.Linear(d, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, d, bias=False), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        return features * self.score(features.mean((2, 3)))[:, :, None, None]


def _convolutions(inside: int, outside: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for d in (inside, outside):
        layers += [nn.Conv2d(d, outside, 3, padding=1), _BatchNorm(outside), nn.LeakyReLU(0.2)]
    return layers


def _halve(features: Tensor) -> Tensor:
    """Return maxima of blocks of two by two; an axis of a single position stays."""
    return max_pool2d(features, [min(2, size) for size in features.shape[-2:]])


def _fit(features: Tensor, like: Tensor) -> Tensor:
    """Return features padded with zeros, or cropped, to the size of others."""
    down, right = (like.shape[axis] - features.shape[axis] for axis in (-2, -1))
    return pad(features, [right // 2, right - right // 2, down // 2, down - down // 2])
