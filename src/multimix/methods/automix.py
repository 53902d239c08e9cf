"""AutoMix, the learned barycentre of Zhu et al."""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Generator, Tensor, nn

from multimix._declared import check_fields
from multimix.methods._images import check_images
from multimix.methods._learned import LearnsBeside, build_beside, check_count, check_share, network_module
from multimix.methods._predict import InputMixing, MixesInputs, begin, classification_losses, wanted_of
from multimix.methods._unet import MixingUNet
from multimix.ops import (
    CrossEntropy,
    accurate,
    beta,
    check_batch,
    check_concentration,
    draw_partners,
    mix_pairs,
    objective_of,
)
from multimix.protocols import Losses, Network, Teacher


@dataclass(eq=False)
class AutoMix(LearnsBeside, MixesInputs):
    r"""Let a U-Net, trained with the classifier, mix part of the images; the others stay clean.

    Pairs (x, x') of the first half of the mini-batch become :math:`\tilde x = G(x, x', \lambda)`, with one lambda ~
    Beta(alpha, alpha) a step; their targets are mixed linearly. The loss is

    .. math::

        \mathrm{CE} - H(\text{targets}) + w \, [\lambda \, |x - \tilde x| + (1 - \lambda) \, |x' - \tilde x|]

    with the mean over mixed and clean images in the first two terms, and over values of the mixed ones in the last,
    where images and generated images are each scaled to [0, 1] by the least and the largest value of the mini-batch.

    The training engine trains the generator along with the network. In a loop of your own, build it before the
    optimiser and give its parameters to it::

        method.prepare(network)
        optimizer = torch.optim.SGD([*network.parameters(), *method.parameters()], lr=0.1)

    A method that nobody has prepared builds its generator in the first step, where no optimiser knows of it.

    Reference:
        Zhu et al., "AutoMix: mixup networks for sample interpolation via cooperative barycenter learning", ECCV 2020;
        generator, loss and defaults of the code at github.com/ReBoRn8888/AutoMix.
    """

    name: ClassVar[str] = "automix"
    trains_modules: ClassVar[bool] = True

    alpha: float = 1.0
    """Concentration of the Beta distribution."""
    distance_weight: float = 1.5
    """Weight w of the distance of a mixed image to the two that it is made of."""
    share: float = 0.5
    """Share of the mini-batch that is mixed, at least one image."""
    width: int = 16
    """Channels of the generator at the images' own size."""
    channels: int | None = None
    """Channels of the images; by default those that the network's first convolution takes."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        check_concentration("alpha", self.alpha)
        check_count("width", self.width)
        check_count("channels", self.channels)
        check_fields(self)
        if not 0 <= self.distance_weight < float("inf"):
            raise ValueError(f"distance_weight must be finite and not negative, got {self.distance_weight}")
        check_share("share", self.share, with_one=True)
        self.unet: MixingUNet | None = None

    def prepare(self, network: Network) -> None:
        """Build the generator, unless there is one.

        Raises:
            ValueError: If ``channels`` is not given and the network has no convolution to read it from.
            TypeError: If the network is not a torch module.
        """
        if self.unet is None:
            channels = self.channels or _image_channels(network_module(network, "AutoMix"))
            self.unet = build_beside(network, lambda: MixingUNet(channels, self.width), "AutoMix")

    def forward(
        self,
        network: Network,
        inputs: Tensor,
        targets: Tensor,
        *,
        generator: Generator | None = None,
        teacher: Teacher | None = None,
    ) -> Losses:
        """Return the classification losses plus the weighted distance of the mixed images to their two.

        Raises:
            ValueError: If the inputs are not images, have other channels than the generator, or the network is not
                trained for classes.
        """
        targets = begin(network, targets, generator, called=True)
        check_batch(inputs, targets)
        self.look_for_an_optimiser(network_module(network, "AutoMix"))
        objective = objective_of(network)
        if not isinstance(objective, CrossEntropy):
            raise ValueError(f"objective must be CrossEntropy for AutoMix, a divergence of classes, got {objective!r}")
        drawn = self.draw(network, inputs, targets, generator)
        mixed = drawn.mix(inputs)
        logits = network(mixed)
        wanted = drawn.mix_targets(wanted_of(network, targets, logits))
        taught = None
        if teacher is not None:
            with torch.no_grad():
                taught = drawn.predict(teacher.network, teacher.inputs), teacher.gamma
        losses = classification_losses(logits, wanted, taught, objective)
        entropy = torch.special.entr(wanted).sum(-1).mean()
        distance = drawn.distance(inputs, mixed)
        labels_weight = 1.0 if teacher is None else teacher.gamma
        total = losses.total - labels_weight * entropy + self.distance_weight * distance
        return Losses(total, {**losses.terms, "entropy": entropy.detach(), "distance": distance.detach()})

    def draw(
        self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None
    ) -> "Generating":
        """Draw pairs, lambda, and whose features survive in the generator.

        Raises:
            ValueError: If the inputs are not images (b, c, h, w), have other channels than the generator, or there is
                neither a generator nor a network to build it for.
        """
        check_images(inputs, "AutoMix")
        unet = self._unet_for(network)
        if inputs.shape[1] != unet.channels:
            raise ValueError(f"inputs must have {unet.channels} channels for AutoMix, got {tuple(inputs.shape)}")
        place = {"generator": generator, "device": inputs.device}
        partners = draw_partners(max(int(len(inputs) * self.share), 1), **place)  # type: ignore[arg-type]
        lam = beta(1, self.alpha, **place)[0]  # type: ignore[arg-type]
        orders = [draw_partners(d, **place) for d in unet.levels]  # type: ignore[arg-type]
        return Generating(unet, partners, lam, [order < (lam * len(order)).round() for order in orders])

    def _unet_for(self, network: Network | None) -> MixingUNet:
        if self.unet is None and network is None:
            raise ValueError("network must be given to AutoMix, here or to prepare: its generator is not built yet")
        if self.unet is None:
            self.prepare(cast("Network", network))
        return cast("MixingUNet", self.unet)


@dataclass(frozen=True)
class Generating(InputMixing):
    """Who of the first images is mixed with whom, by which weight, and whose features survive in the generator."""

    unet: MixingUNet
    partners: Tensor
    lam: Tensor
    masks: list[Tensor]

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mini-batch with its first images replaced by mixed ones."""
        n = len(self.partners)
        mixed = self.unet(inputs[:n], self.partners, self.masks)
        return torch.cat([mixed.to(inputs.dtype), inputs[n:]])

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities, those of the mixed images mixed linearly."""
        n = len(self.partners)
        return torch.cat([mix_pairs(targets[:n], self.partners, self.lam), targets[n:]])

    def distance(self, inputs: Tensor, mixed: Tensor) -> Tensor:
        """Return the mean absolute difference of mixed images to the two that they are made of, weighed by lambda."""
        n = len(self.partners)
        images, mixed = _to_unit_range(inputs[:n]), _to_unit_range(mixed[:n])
        own, other = (images - mixed).abs().mean(), (images[self.partners] - mixed).abs().mean()
        return self.lam * own + (1 - self.lam) * other


def _to_unit_range(images: Tensor) -> Tensor:
    """Return images in full precision, scaled from their least and largest value to 0 and 1; constant ones are 0."""
    images = accurate(images)
    low, high = images.amin(), images.amax()  # torch 2.10 has no derivative of aminmax
    return (images - low) / torch.where(high > low, high - low, torch.ones_like(high))


def _image_channels(network: nn.Module) -> int:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise ValueError("channels must be given to AutoMix: the network has no convolution to read them from")
