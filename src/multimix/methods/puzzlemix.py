"""PuzzleMix."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from multimix._declared import check_fields
from multimix.methods._images import check_images
from multimix.methods._predict import InputMixing, MixesInputs, classification_losses, wanted_of
from multimix.methods._puzzle import (
    block_sizes,
    energy,
    largest_divisor,
    move_pixels,
    pool_saliency,
    source_pixels,
    spread,
)
from multimix.methods._saliency import input_gradient, kept_statistics, saliency_of
from multimix.ops import (
    beta,
    check_concentration,
    draw_partners,
    mix_pairs,
    objective_of,
    solve_ordered_labels,
    transport_blocks,
)
from multimix.protocols import Losses, Network, Teacher


@dataclass(frozen=True)
class PuzzleMix(MixesInputs):
    r"""Show the salient blocks of both images of a pair: a mask by graph cut, blocks moved to where they are seen.

    The mask z of a pair has one of ``labels`` values between 0 and 1 on each block of a random grid and minimises

    .. math:: \sum_i z_i s'_i + (1 - z_i) s_i + \beta \sum_{(i, j)} (z_i - z_j)^2
        + \beta \gamma \sum_{(i, j)} d_{ij}(z_i, z_j) - \eta \log p(z \mid \lambda)

    with the shares s and s' of saliency of the first image and its partner, the differences d of the pixels on both
    sides of a border, and a binomial prior. Targets are mixed by the mean of the mask. The saliency is that of the
    network's own input gradient, taken in eval mode.

    Pixels are scaled to [0, 1] by each channel's least and largest value in the mini-batch. Where no grid of ``grids``
    tiles an image with square blocks, the finest smaller one that does is used, or one block for want of any.

    Reference:
        Kim, Choo and Song, "Puzzle Mix: exploiting saliency and local statistics for optimal mixup", ICML 2020,
        equations (3) to (6) and algorithm 1; defaults of its CIFAR-100 recipe. Its adversarial variant is
        ``adversarial=0.1``, its Tiny-ImageNet recipe ``transport_size=None, clean=1.0``.
    """

    name: ClassVar[str] = "puzzlemix"
    needs_network: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    alpha: float = 1.0
    """Concentration of the Beta distribution of lambda, one a step."""
    labels: int = 3
    """How many values the mask can take on a block, from 0 to 1."""
    beta: float = 1.2
    """Weight of the mask's smoothness."""
    gamma: float = 0.5
    """Weight of the smoothness of the image across a change of the mask, relative to ``beta``."""
    eta: float = 0.2
    """Weight of the prior that the mask's mean be lambda."""
    grids: tuple[int, ...] = (2, 4, 8, 16)
    """How many blocks lie along the shorter side of an image, one of them drawn each step."""
    patch: int = 4
    """Side, in pixels, of the patches whose difference is the cost of a border; at most a block."""
    transport: bool = True
    """Whether blocks move to where the mask shows them."""
    transport_eps: float = 0.8
    """Cost of a block's move across the image, in shares of saliency."""
    transport_size: int | None = 4
    """Largest side, in pixels, of what moves as one; None moves the mask's own blocks."""
    adversarial: float = 0.0
    """Probability that the first, and that the second, images of a step are perturbed against the network."""
    adversarial_eps: float = 10.0
    """Largest perturbation of a pixel, in 255ths of its range."""
    clean: float = 0.0
    """Weight of the loss of the images as they are, beside that of the mixed ones."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        check_concentration("alpha", self.alpha)
        for name in ("beta", "gamma", "eta", "transport_eps", "adversarial_eps", "clean"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number, not negative, got {value!r}")
        for name, least in (("labels", 2), ("patch", 1), ("transport_size", 1)):
            value = getattr(self, name)
            if name == "transport_size" and value is None:
                continue
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        check_fields(self)
        if not 0 <= self.adversarial <= 1:
            raise ValueError(f"adversarial must lie in [0, 1], got {self.adversarial}")
        if not self.grids or not all(isinstance(n, int) and n >= 1 for n in self.grids):
            raise ValueError(f"grids must hold integers of at least 1, got {self.grids!r}")

    def __call__(
        self,
        network: Network,
        inputs: Tensor,
        targets: Tensor,
        *,
        generator: Generator | None = None,
        teacher: Teacher | None = None,
    ) -> Losses:
        """Return the losses of the mixed mini-batch, and with ``clean`` those of the mini-batch as it is."""
        losses = super().__call__(network, inputs, targets, generator=generator, teacher=teacher)
        if not self.clean:
            return losses
        with kept_statistics(network):  # the mixed images have moved them
            logits = network(inputs)
        wanted = wanted_of(network, targets, logits)
        clean = classification_losses(logits, wanted, None, objective_of(network)).total
        return replace(losses, total=losses.total + self.clean * clean, terms={**losses.terms, "clean": clean.detach()})

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Puzzle":
        """Draw partners, lambda, a grid and perturbations; cut the masks and move the blocks.

        Raises:
            ValueError: If the inputs are not images (b, c, h, w), or there is no network.
        """
        check_images(inputs, "PuzzleMix")
        if network is None:
            raise ValueError("network must be given: PuzzleMix mixes by its input gradient")
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        lam = beta(1, self.alpha, generator=generator, device=inputs.device)[0]
        sizes = block_sizes(inputs.shape[2], inputs.shape[3], self.grids)
        size = sizes[min(int(_uniform(generator) * len(sizes)), len(sizes) - 1)]
        scale = Scale.of(inputs)
        gradient, noise = self._look(network, inputs, targets, scale, generator)
        saliency = saliency_of(gradient)
        mask = self._cut(scale.pixels(inputs), saliency, partners, lam, size)
        source = self._transport(mask, saliency, partners, size) if self.transport else None
        return Puzzle(partners, spread(mask, size), source, noise, scale)

    def _cut(self, pixels: Tensor, saliency: Tensor, partners: Tensor, lam: Tensor, size: int) -> Tensor:
        """Return the mask of each pair, one value a block."""
        terms = energy(
            pixels,
            pool_saliency(saliency, size),
            partners,
            lam,
            labels=self.labels,
            beta=self.beta,
            gamma=self.gamma,
            eta=self.eta,
            patch=self.patch,
        )
        return solve_ordered_labels(*terms).to(pixels.dtype) / (self.labels - 1)

    def _transport(self, mask: Tensor, saliency: Tensor, partners: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return which pixel of the first and of the second image goes where."""
        moved = size if self.transport_size is None else largest_divisor(size, self.transport_size)
        mask, shares = spread(mask, size // moved), pool_saliency(saliency, moved)
        both, seen = torch.cat([shares, shares[partners]]), torch.cat([mask > 0, mask < 1])
        first, second = source_pixels(transport_blocks(both, seen, self.transport_eps), moved).chunk(2)
        return first, second

    def _look(
        self, network: Network, inputs: Tensor, targets: Tensor, scale: "Scale", generator: Generator | None
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        """Return the gradient on the inputs, and what perturbs the first and the second image of each pair."""
        if not self.adversarial:
            return input_gradient(network, inputs, targets), (None, None)
        first, second = (_uniform(generator) < self.adversarial for _ in range(2))
        if not (first or second):
            return input_gradient(network, inputs, targets), (None, None)
        where = generator.device if generator else inputs.device
        noise = torch.rand(inputs.shape, generator=generator, device=where).to(inputs.device)
        eps = scale.width * (self.adversarial_eps / 255)
        noise = scale.clamp(inputs + (2 * noise - 1) * eps) - inputs
        gradient = input_gradient(network, inputs + noise, targets)
        # A step that outdoes the largest perturbation a little, as in fast adversarial training.
        noise = noise + scale.width * ((self.adversarial_eps + 2) / 255) * gradient.sign()
        noise = _uniform(generator) * noise.clamp(-eps, eps)
        return gradient, (noise if first else None, noise if second else None)


class Scale(NamedTuple):
    """Where the pixels of a mini-batch lie, in each channel."""

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, inputs: Tensor) -> "Scale":
        """Return the least and the largest value of each channel."""
        return cls(*inputs.detach().float().transpose(0, 1).flatten(1).aminmax(dim=1))

    @property
    def width(self) -> Tensor:
        """Return the range of each channel (c, 1, 1), 1 where all pixels are the same."""
        width = self.high - self.low
        return torch.where(width > 0, width, 1).view(-1, 1, 1)

    def pixels(self, inputs: Tensor) -> Tensor:
        """Return inputs in [0, 1], in float32."""
        return (inputs.detach().float() - self.low.view(-1, 1, 1)) / self.width

    def clamp(self, inputs: Tensor) -> Tensor:
        """Return inputs with pixels beyond the range brought back to it."""
        low, high = (edge.to(inputs.dtype).view(-1, 1, 1) for edge in self)
        return torch.minimum(torch.maximum(inputs, low), high)


@dataclass(frozen=True)
class Puzzle(InputMixing):
    """Whose blocks go where, and what is seen of them."""

    partners: Tensor
    mask: Tensor
    """Weight of the first image of each pair at each pixel (b, h, w)."""
    source: tuple[Tensor, Tensor] | None
    """Which pixel of the first and of the second image goes where, row-major (b, h, w)."""
    noise: tuple[Tensor | None, Tensor | None]
    """What is added to the images as first, and as second ones."""
    scale: Scale

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mixed images."""
        first, second = (self._perturbed(inputs, noise) for noise in self.noise)
        second = second[self.partners]
        if self.source is not None:
            first, second = (move_pixels(x, source) for x, source in zip((first, second), self.source, strict=True))
        return torch.lerp(second, first, self.mask.unsqueeze(1).to(inputs.dtype))

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities mixed by the mean of the mask."""
        return mix_pairs(targets, self.partners, self.mask.mean((1, 2)))

    def _perturbed(self, inputs: Tensor, noise: Tensor | None) -> Tensor:
        return inputs if noise is None else self.scale.clamp(inputs + noise.to(inputs.dtype))


def _uniform(generator: Generator | None) -> float:
    return float(torch.rand((), generator=generator, device=generator.device if generator else None))
