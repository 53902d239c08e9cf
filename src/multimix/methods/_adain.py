"""Autoencoders whose features carry style in the statistics of their channels: a small one of ours and the VGG one.

All weights are buffers: no optimiser sees them, and none is needed.
"""

import math
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import conv2d, interpolate, mse_loss, pad, pixel_shuffle

from multimix.ops import as_probabilities, channel_statistics, no_autocast

_TINY = 1e-8
_VGG_CONVOLUTIONS = (0, 2, 5, 9, 12, 16, 19, 22, 25, 29)
_DECODER_CONVOLUTIONS = (1, 5, 8, 11, 14, 18, 21, 25, 28)
"""Indices of the layers with weights in the official files."""
_VGG_SHAPES = [(3, 3, 1), *((after, before, 3) for before, after in pairwise((3, 64, 64, 128, 128, *[256] * 4, 512)))]
_DECODER_SHAPES = [(after, before, 3) for before, after in pairwise((512, *[256] * 4, 128, 128, 64, 64, 3))]
"""Channels after and before, and side, of those layers."""


class Convolution(nn.Module):
    """A padded convolution with fixed weights."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, *, stride: int = 1, mode: str = "reflect", relu: bool = True, kept: bool
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float(), persistent=kept)
        self.register_buffer("bias", bias.float(), persistent=kept)
        self.stride, self.mode, self.relu = stride, mode, relu

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same size, or of half the size, rounded up."""
        maps = _convolve(maps, self.weight, self.bias, stride=self.stride, mode=self.mode)
        return maps.relu() if self.relu else maps


class Autoencoder(nn.Module):
    """Encodes images, of one channel or three, and decodes feature maps into images of the size they came from."""

    def __init__(self, stages: list[nn.Module], size: int | None) -> None:
        super().__init__()
        self.stages, self.size = nn.ModuleList(stages), size

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps of every stage, in float32 or better."""
        with no_autocast(images.device.type):
            maps = [self._enter(images)]
            for stage in self.stages:
                maps.append(stage(maps[-1]))
        return maps[1:]

    def decode(self, features: Tensor, like: Tensor) -> Tensor:
        """Return images of the shape and dtype of ``like``, as many as there are features."""
        with no_autocast(features.device.type):
            images = self._decode(features)
        height, width = like.shape[-2:]
        if self.size is None:
            images = images[..., :height, :width]
        elif images.shape[-2:] != (height, width):
            images = interpolate(images, (height, width), mode="bilinear", align_corners=False)
        if like.shape[1] == 1:
            images = images.mean(1, keepdim=True)
        return images.to(like.dtype)

    def _decode(self, features: Tensor) -> Tensor:
        raise NotImplementedError

    def _enter(self, images: Tensor) -> Tensor:
        """Return images of three channels, of the working size, in the precision of the weights."""
        images = images.to(next(self.buffers()).dtype)
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if self.size is None:
            return images
        scale = self.size / min(images.shape[-2:])
        height, width = (round(side * scale) for side in images.shape[-2:])
        return interpolate(images, (height, width), mode="bilinear", align_corners=False)


class SmallAutoencoder(Autoencoder):
    """Two fixed random convolutions, and two that learn to undo them: 15 and 17 thousand weights."""

    weights: Tensor
    first: Tensor
    second: Tensor
    steps: Tensor

    def __init__(self, size: int | None = None) -> None:
        generator = Generator().manual_seed(0)
        stages: list[nn.Module] = [
            Convolution(*_initial(after, before, generator), stride=stride, mode="replicate", kept=True)
            for after, before, stride in ((32, 3, 2), (48, 32, 1))
        ]
        super().__init__(stages, size)
        # at last the three colours of 2 x 2 pixels
        layers = [_initial(after, before, generator) for after, before in ((32, 48), (12, 32))]
        self.shapes = [weight.shape for weight, _ in layers]
        weights = torch.cat([part.flatten() for layer in layers for part in layer]).float()
        # The decoder's are one vector, which a step replaces: a graph that holds the old one stays valid.
        self.register_buffer("weights", weights)
        self.register_buffer("first", torch.zeros_like(weights))
        self.register_buffer("second", torch.zeros_like(weights))
        self.register_buffer("steps", torch.zeros(()))
        self._warm = False

    @torch.no_grad()
    def learn(self, images: Tensor, rate: float, warmup: int) -> None:
        """Take a step of Adam on the mean squared error of reconstruction, and ``warmup`` more if it is the first."""
        steps = 1 if self._warm or int(self.steps) else warmup + 1
        self._warm = True
        images = images.detach()[:32]  # enough to learn from
        with no_autocast(images.device.type):
            features, images = self.encode(images)[-1], self._enter(images)
        slow, fast = 0.9, 0.99  # the short memory of squares suits the few steps there are
        height, width = images.shape[-2:]
        for _ in range(steps):
            weights = self.weights.detach().requires_grad_()
            with torch.enable_grad(), no_autocast(images.device.type):
                error = mse_loss(self._decode(features, weights)[..., :height, :width], images)
                (gradient,) = torch.autograd.grad(error, weights)
            gradient = gradient.nan_to_num(0, 0, 0)  # one bad mini-batch must not end the decoder
            self.steps = self.steps + 1
            self.first = self.first.lerp(gradient, 1 - slow)
            self.second = self.second.lerp(gradient.square(), 1 - fast)
            mean, square = self.first / (1 - slow**self.steps), self.second / (1 - fast**self.steps)
            self.weights = self.weights - rate * mean / (square.sqrt() + _TINY)

    def _decode(self, features: Tensor, weights: Tensor | None = None) -> Tensor:
        counts = [count for shape in self.shapes for count in (shape.numel(), shape[0])]
        parts = (self.weights if weights is None else weights).split(counts)
        for i, shape in enumerate(self.shapes):
            features = _convolve(features, parts[2 * i].view(shape), parts[2 * i + 1], mode="replicate")
            features = features if i + 1 == len(self.shapes) else features.relu()
        return pixel_shuffle(features, 2)


class VGGAutoencoder(Autoencoder):
    """VGG-19 up to relu4_1 and its decoder, from files in the layout of pytorch-AdaIN, which alone hold the weights."""

    def __init__(self, encoder: str, decoder: str, size: int | None) -> None:
        layers = _read("encoder", encoder, _VGG_CONVOLUTIONS, _VGG_SHAPES)
        layers[0].relu = False  # the 1x1 convolution that prepares the colours
        pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        stages: list[list[nn.Module]] = [
            [*layers[:2]],
            [layers[2], pool, layers[3]],
            [layers[4], pool, layers[5]],
            [*layers[6:9], pool, layers[9]],
        ]
        super().__init__([nn.Sequential(*stage) for stage in stages], size)
        up = nn.Upsample(scale_factor=2, mode="nearest")
        layers = _read("decoder", decoder, _DECODER_CONVOLUTIONS, _DECODER_SHAPES)
        layers[-1].relu = False
        self.decoder = nn.Sequential(layers[0], up, *layers[1:5], up, *layers[5:7], up, *layers[7:])

    def _decode(self, features: Tensor) -> Tensor:
        return cast("Tensor", self.decoder(features))


def _read(name: str, path: str, indices: tuple[int, ...], shapes: list[tuple[int, int, int]]) -> list[Convolution]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    layers = []
    for index, (after, before, side) in zip(indices, shapes, strict=True):
        wanted = {f"{index}.weight": (after, before, side, side), f"{index}.bias": (after,)}
        for key, shape in wanted.items():
            found = tuple(state[key].shape) if isinstance(state, dict) and key in state else None
            if found != shape:
                raise ValueError(
                    f"{name} must be a state dict in the layout of pytorch-AdaIN with {key} of shape {shape}, "
                    f"got {'none' if found is None else found} in {path}"
                )
        layers.append(Convolution(state[f"{index}.weight"], state[f"{index}.bias"], kept=False))
    return layers


def _convolve(maps: Tensor, weight: Tensor, bias: Tensor, *, stride: int = 1, mode: str) -> Tensor:
    around = weight.shape[-1] // 2
    return conv2d(pad(maps, [around] * 4, mode=mode) if around else maps, weight, bias, stride)


def _initial(after: int, before: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return weights that keep the size of what passes them and a ReLU (He et al. 2015), and zero biases."""
    return torch.randn(after, before, 3, 3, generator=generator) * math.sqrt(2 / (9 * before)), torch.zeros(after)


class ClassStyles(nn.Module):
    """The mean style of each class that was seen: channel means and deviations of every stage."""

    means: Tensor
    counts: Tensor

    def __init__(self, scale: float | None = None) -> None:
        """Take the mean distance that two classes are to have; by default distances are as they are."""
        super().__init__()
        self.scale = scale
        self.register_buffer("means", torch.zeros(0, 0))
        self.register_buffer("counts", torch.zeros(0))

    @torch.no_grad()
    def see(self, maps: list[Tensor], targets: Tensor) -> None:
        """Take a mini-batch into the means; a soft label gives each class its share."""
        styles = torch.cat([part.flatten(1) for stage in maps for part in channel_statistics(stage)], 1)
        labels = self._labels(targets)
        k = max(labels.shape[1], len(self.counts))
        more = k - len(self.counts)
        means = pad(self.means, (0, styles.shape[1] - self.means.shape[1], 0, more)).to(styles)
        counts = pad(self.counts, (0, more)).to(styles)
        seen, shares = slice(labels.shape[1]), labels.sum(0)
        counts[seen] += shares
        news = labels.T @ styles - shares.unsqueeze(1) * means[seen]
        means[seen] += news / counts[seen].clamp(min=_TINY).unsqueeze(1)
        self.means, self.counts = means, counts

    def distances(self, targets: Tensor, partners: Tensor) -> Tensor:
        """Return the mean squared difference of the styles of the two classes of each pair, 2 more if they are one."""
        labels = self._labels(targets)
        k, (known, width) = labels.shape[1], self.means.shape
        styles = labels @ pad(self.means, (0, max(1 - width, 0), 0, max(k - known, 0)))[:k]
        same = (labels * labels[partners]).sum(1)
        seen, unit = self.means[self.counts > 0], torch.ones(())
        if self.scale is not None and len(seen) > 1:  # the mean distance of all pairs is twice the variance
            unit = self.scale / (2 * seen.var(0).mean()).clamp(min=_TINY)
        return unit * (styles - styles[partners]).square().mean(1) + 2 * same  # as in the official code

    def _labels(self, targets: Tensor) -> Tensor:
        k = targets.shape[-1] if targets.is_floating_point() or targets.ndim > 1 else int(targets.max()) + 1
        try:
            return as_probabilities(targets, k)
        except (TypeError, ValueError) as error:
            classes = "StyleCutMix(gamma='auto') compares classes, and takes no other targets"
            raise type(error)(f"{error}; {classes}") from None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the shapes of what is loaded: how many classes there are shows in training only."""
        for name in ("means", "counts"):
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_zeros(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
