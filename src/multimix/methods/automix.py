"""AutoMix, the learned barycentre of Zhu et al."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import max_pool2d, pad

from multimix._declared import Count, Interval, Positive
from multimix._modules import as_module
from multimix.methods._images import Weight
from multimix.methods._learned import LearnsBeside
from multimix.methods._predict import MixesInputs, PairMixing, Predicts, Step, wanted_of
from multimix.ops import CrossEntropy, accurate, beta, draw_partners, objective_of
from multimix.protocols import Losses, Network


class Generating(PairMixing):
    """Pairs of the first images, which the generator mixes by ``unet`` and ``masks``; the others stay clean."""

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mini-batch with its first images replaced by mixed ones."""
        n = len(self.partners)
        return torch.cat([super().mix(inputs[:n]).to(inputs.dtype), inputs[n:]])

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities, those of the mixed images mixed linearly."""
        n = len(self.partners)
        return torch.cat([super().mix_targets(targets[:n]), targets[n:]])

    def distance(self, inputs: Tensor, mixed: Tensor) -> Tensor:
        """Return the mean absolute difference of mixed images to the two that they are made of, weighed by lambda."""
        n = len(self.partners)
        images, mixed = _to_unit_range(inputs[:n]), _to_unit_range(mixed[:n])
        own, other = (images - mixed).abs().mean(), (images[self.partners] - mixed).abs().mean()
        return self.lam * own + (1 - self.lam) * other


@dataclass(eq=False)
class AutoMix(LearnsBeside, MixesInputs):
    r"""Let a U-Net, trained with the classifier, mix part of the images; the others stay clean.

    Pairs (x, x') of the first half of the mini-batch become :math:`\tilde x = G(x, x', \lambda)`, with one lambda ~
    Beta(alpha, alpha) a step; their targets are mixed linearly. The loss is

    .. math::

        \mathrm{CE} - H(\text{targets}) + w \, [\lambda \, |x - \tilde x| + (1 - \lambda) \, |x' - \tilde x|]

    with the mean over mixed and clean images in the first two terms, and over values of the mixed ones in the last,
    where images and generated images are each scaled to [0, 1] by the least and the largest value of the mini-batch.

    The training engine trains the generator along with the network. In a loop of your own, build it by
    ``method.prepare(network)`` and give the optimiser ``[*network.parameters(), *method.parameters()]``. Without
    ``prepare`` it is built in the first step, where no optimiser knows of it.

    Reference:
        Zhu et al., "AutoMix: mixup networks for sample interpolation via cooperative barycenter learning", ECCV 2020;
        generator, loss and defaults of the code at github.com/ReBoRn8888/AutoMix.
    """

    name: ClassVar[str] = "automix"
    needs_images: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution."""
    distance_weight: Weight = 1.5
    """Weight w of the distance of a mixed image to the two that it is made of."""
    share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """Share of the mini-batch that is mixed, at least one image."""
    width: Count = 16
    """Channels of the generator at the images' own size."""
    channels: Count | None = None
    """Channels of the images; by default those that the network's first convolution takes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unet: MixingUNet | None = None

    def prepare(self, network: Network) -> None:
        """Build the generator, unless there is one.

        Raises:
            ValueError: If ``channels`` is not given and the network has no convolution to read it from, or the
                network's objective is not cross-entropy.
            TypeError: If the network is not a torch module.
        """
        cross_entropy_of(network)
        self.meet(network, anew=True)
        if self.unet is None:
            convolutions = (m for m in as_module(network, "AutoMix").modules() if isinstance(m, nn.Conv2d))
            channels = self.channels or next((convolution.in_channels for convolution in convolutions), None)
            if channels is None:
                raise ValueError("channels must be given to AutoMix: the network has no convolution to read them from")
            self.unet = self.build(network, lambda: MixingUNet(channels, self.width))
        self.met(network)

    mix_ahead = Predicts.mix_ahead  # the loss takes the clean images, too

    def losses(self, step: Step) -> Losses:
        """Return the classification losses plus the weighted distance of the mixed images to their two."""
        self.look_for_an_optimiser(step.network)
        objective = cross_entropy_of(step.network)
        step, drawn = cast("tuple[Step, Generating]", self.drawn(step))
        mixed = drawn.mix(step.inputs)
        logits = step.network(mixed)
        losses = self.compare(step, drawn, logits)
        k = logits.shape[-1]
        wanted = objective.settled(drawn.mix_targets(wanted_of(step.network, step.targets, logits)), k)[..., -k:]
        entropy = torch.special.entr(wanted).sum(-1).mean()
        distance = drawn.distance(step.inputs, mixed)
        labels_weight = 1.0 if step.teacher is None else step.teacher.gamma
        total = losses.total - labels_weight * entropy + self.distance_weight * distance
        return Losses(total, {**losses.terms, "entropy": entropy.detach(), "distance": distance.detach()})

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Generating:
        """Draw pairs, lambda, and whose features survive in the generator, which is built if there is none."""
        if network is not None:
            self.ready(network)
        elif self.unet is None:
            raise ValueError("network must be given to AutoMix, here or to prepare: its generator is not built yet")
        unet = cast("MixingUNet", self.unet)
        if inputs.shape[1] != unet.channels:
            raise ValueError(f"inputs must have {unet.channels} channels for AutoMix, got {tuple(inputs.shape)}")
        place: dict[str, Any] = {"generator": generator, "device": inputs.device}
        partners = draw_partners(max(int(len(inputs) * self.share), 1), **place)
        lam = beta(1, self.alpha, **place)[0]
        orders = [draw_partners(d, **place) for d in unet.levels]
        masks = [order < (lam * len(order)).round() for order in orders]
        return Generating(partners, lam, unet, masks=masks)


def _to_unit_range(images: Tensor) -> Tensor:
    """Return images in full precision, scaled from their least and largest value to 0 and 1; constant ones are 0."""
    images = accurate(images)
    low, high = images.amin(), images.amax()  # torch 2.10 has no derivative of aminmax
    return (images - low) / torch.where(high > low, high - low, torch.ones_like(high))


class MixingUNet(nn.Module):
    """Mix images of any size in a small U-Net: at each level, complementary sets of channels survive of either one."""

    def __init__(self, channels: int, width: int = 16):
        """Make a generator for images with ``channels`` channels, with ``width`` channels at their own size."""
        super().__init__()
        self.channels = channels
        self.levels = [width, 2 * width, 4 * width, 8 * width, 8 * width]  # from the images' own size down
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
        """Return images (n, c, h, w) mixed with their partners (n,); masks are 1 for an image's own channels."""
        merged: list[Tensor] = []
        for down, merge, mask in zip(self.down, self.merge, masks, strict=True):
            if merged:  # an axis of a single position is not halved any more
                images = max_pool2d(images, [min(2, size) for size in images.shape[-2:]])
            features = down(images)
            own = mask.to(features.dtype)[:, None, None]
            images = features * own  # only what is kept goes on to the next level
            merged.append(merge(torch.cat([images, features[partners] * (1 - own)], 1)))
        mixed = merged.pop()
        for level in reversed(range(len(merged))):
            own, upper = merged[level], self.up[level](mixed)
            # as many pixels as its own level has: zeros are added, or pixels cut off
            down, right = (size - other for size, other in zip(own.shape[2:], upper.shape[2:], strict=True))
            upper = pad(upper, [right // 2, right - right // 2, down // 2, down - down // 2])
            mixed = self.join[level](torch.cat([own, upper], 1))
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
        hidden = max(d // 16, 1)
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


def cross_entropy_of(network: Network) -> CrossEntropy:
    """Return the objective of a network that is trained by cross-entropy; of any other, raise ValueError."""
    objective = objective_of(network)
    if not isinstance(objective, CrossEntropy):
        raise ValueError(f"objective must be CrossEntropy for AutoMix, a divergence of classes, got {objective!r}")
    return objective
