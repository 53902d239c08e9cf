"""PuzzleMix."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d

from multimix._declared import Checked, Count, Fraction, Ge, MinLen, Positive
from multimix.methods._images import Weight, input_gradient, kept_statistics, saliency_of, uniform
from multimix.methods._predict import MixesInputs, PairMixing, Step, wanted_of
from multimix.ops import beta, draw_partners, objective_of, solve_ordered_labels, transport_blocks
from multimix.protocols import Losses, Network


@dataclass(frozen=True)
class PuzzleMix(MixesInputs, Checked):
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
    needs_images: ClassVar[bool] = True
    needs_network: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution of lambda, one a step."""
    labels: Annotated[int, Ge(2)] = 3
    """How many values the mask can take on a block, from 0 to 1."""
    beta: Weight = 1.2
    """Weight of the mask's smoothness."""
    gamma: Weight = 0.5
    """Weight of the smoothness of the image across a change of the mask, relative to ``beta``."""
    eta: Weight = 0.2
    """Weight of the prior that the mask's mean be lambda."""
    grids: Annotated[tuple[Count, ...], MinLen(1)] = (2, 4, 8, 16)
    """How many blocks lie along the shorter side of an image, one of them drawn each step."""
    patch: Count = 4
    """Side, in pixels, of the patches whose difference is the cost of a border; at most a block."""
    transport: bool = True
    """Whether blocks move to where the mask shows them."""
    transport_eps: Weight = 0.8
    """Cost of a block's move across the image, in shares of saliency."""
    transport_size: Count | None = 4
    """Largest side, in pixels, of what moves as one; None moves the mask's own blocks."""
    adversarial: Fraction = 0.0
    """Probability that the first, and that the second, images of a step are perturbed against the network."""
    adversarial_eps: Weight = 10.0
    """Largest perturbation of a pixel, in 255ths of its range."""
    clean: Weight = 0.0
    """Weight of the loss of the images as they are, beside that of the mixed ones."""

    def losses(self, step: Step) -> Losses:
        """Return the losses of the mixed mini-batch, and with ``clean`` those of the mini-batch as it is."""
        losses = super().losses(step)
        if not self.clean:
            return losses
        network = step.network
        with kept_statistics(network):  # the mixed images have moved them
            logits = network(step.inputs)
        clean = objective_of(network)(logits, wanted_of(network, step.targets, logits))
        return Losses(losses.total + self.clean * clean, {**losses.terms, "clean": clean.detach()})

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners, lambda, a grid and perturbations; cut the masks and move the blocks."""
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        lam = beta(1, self.alpha, generator=generator, device=inputs.device)[0]
        sizes = block_sizes(inputs.shape[2], inputs.shape[3], self.grids)
        size = sizes[min(int(float(uniform(generator=generator)) * len(sizes)), len(sizes) - 1)]
        values = inputs.detach().float().transpose(0, 1).flatten(1)[..., None, None]
        scale = Scale(values.amin(1), values.amax(1))
        gradient, noise = self._look(cast("Network", network), inputs, targets, scale, generator)
        saliency = saliency_of(gradient)
        pixels = (inputs.detach().float() - scale.low) / scale.width
        mask = self._cut(pixels, pool_saliency(saliency, size), partners, lam)
        source = self._transport(mask, saliency, partners, size) if self.transport else None
        mask = spread(mask, size)
        drawn = {"mask": mask, "source": source, "noise": noise, "scale": scale}
        return PairMixing(partners, mask.mean((1, 2)), _assembled, **drawn)

    def _cut(self, pixels: Tensor, shares: Tensor, partners: Tensor, lam: Tensor) -> Float[Tensor, "b y x"]:
        """Return each pair's mask of least energy, one value a block, from pixels in [0, 1] and shares of saliency."""
        rows, columns = shares.shape[1:]
        size = pixels.shape[-1] // columns
        smooth = self.beta / (16 * min(rows, columns))
        # What choosing the first or the second image costs: the saliency of the other one, and half of each border.
        first, second = shares[partners].clone(), shares.clone()
        patch = largest_divisor(size, self.patch)
        patches = avg_pool2d(pixels, patch)
        weights = []
        for axis in (1, 2):
            borders = _borders(patches if axis == 1 else patches.transpose(2, 3), partners, size // patch)
            both, neither, leaving, entering = (border if axis == 1 else border.transpose(1, 2) for border in borders)
            half = smooth * self.gamma / 2
            cells = shares.shape[axis] - 1
            first.narrow(axis, 0, cells).add_(leaving + both, alpha=half)
            second.narrow(axis, 0, cells).add_(entering + neither, alpha=half)
            first.narrow(axis, 1, cells).add_(entering + both, alpha=half)
            second.narrow(axis, 1, cells).add_(leaving + neither, alpha=half)
            # Where both images have an edge, a change of mask may pay; it must not, or there would be no exact cut.
            weight = smooth + half * (leaving + entering - both - neither)
            weights.append(weight.clamp_min(0) / (self.labels - 1) ** 2)
        share = torch.linspace(0, 1, self.labels, device=shares.device).view(1, -1, 1, 1)
        unary = share * first.unsqueeze(1) + (1 - share) * second.unsqueeze(1)
        # Minus the logarithm of the binomial distribution of mean lambda, which is kept from 0 and 1: all is finite.
        lam, n = lam.float().clamp(1e-4, 1 - 1e-4), self.labels - 1
        count = torch.arange(self.labels, device=lam.device)
        ways = torch.tensor([math.log(math.comb(n, i)) for i in range(self.labels)], device=lam.device)
        prior = -(ways + count * lam.log() + (n - count) * (-lam).log1p())
        unary = unary + self.eta * prior.view(1, -1, 1, 1) / (rows * columns)
        return solve_ordered_labels(unary, *weights).to(pixels.dtype) / (self.labels - 1)

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
        chosen = [self.adversarial > 0 and float(uniform(generator=generator)) < self.adversarial for _ in range(2)]
        if not any(chosen):
            return input_gradient(network, inputs, targets), (None, None)
        noise = uniform(*inputs.shape, generator=generator, like=inputs)
        eps = scale.width * (self.adversarial_eps / 255)
        noise = scale.clamp(inputs + (2 * noise - 1) * eps) - inputs
        gradient = input_gradient(network, (inputs + noise).to(inputs.dtype), targets)
        # A step that outdoes the largest perturbation a little, as in fast adversarial training.
        noise = noise + scale.width * ((self.adversarial_eps + 2) / 255) * gradient.sign()
        noise = float(uniform(generator=generator)) * noise.clamp(-eps, eps)
        return gradient, (noise if chosen[0] else None, noise if chosen[1] else None)


class Scale(NamedTuple):
    """Where the pixels of a mini-batch lie, in each channel (c, 1, 1)."""

    low: Tensor
    high: Tensor

    @property
    def width(self) -> Tensor:
        """Return the range of each channel, 1 where all pixels are the same."""
        width = self.high - self.low
        return torch.where(width > 0, width, 1)

    def clamp(self, inputs: Tensor) -> Tensor:
        """Return inputs with pixels beyond the range brought back to it."""
        return torch.minimum(torch.maximum(inputs, self.low.to(inputs.dtype)), self.high.to(inputs.dtype))


def _assembled(
    images: Tensor,
    partners: Tensor,
    mask: Float[Tensor, "b h w"],
    source: tuple[Tensor, Tensor] | None,
    noise: tuple[Tensor | None, Tensor | None],
    scale: Scale,
) -> Tensor:
    """Return images and their partners mixed by the mask: perturbed by the noise, their pixels come from the source."""
    first, second = (images if n is None else scale.clamp(images + n.to(images.dtype)) for n in noise)
    second = second[partners]
    if source is not None:
        first, second = (move_pixels(x, where) for x, where in zip((first, second), source, strict=True))
    return torch.lerp(second, first, mask.unsqueeze(1).to(images.dtype))


def block_sizes(height: int, width: int, grids: tuple[int, ...]) -> list[int]:
    """Return the sides of square blocks that tile an image, with one of ``grids`` blocks along the shorter side."""
    short, both = min(height, width), math.gcd(height, width)
    fitting = [short // n for n in grids if short % n == 0 and both % (short // n) == 0]
    if fitting:
        return fitting
    tiling = [size for size in range(1, both + 1) if both % size == 0]
    return [next((size for size in tiling if short // size <= max(grids)), both)]


def largest_divisor(of: int, at_most: int) -> int:
    """Return the largest divisor of a number that does not exceed another."""
    return next(d for d in range(min(of, at_most), 0, -1) if of % d == 0)


def pool_saliency(saliency: Float[Tensor, "b h w"], size: int) -> Float[Tensor, "b y x"]:
    """Return each block's share of its image's saliency, equal where an image has none."""
    pooled = saliency if size == 1 else avg_pool2d(saliency.unsqueeze(1), size)[:, 0]
    total = pooled.sum((1, 2), keepdim=True)
    return torch.where(total > 0, pooled / total, 1 / pooled[0].numel())


def _borders(patches: Tensor, partners: Tensor, per_block: int) -> tuple[Tensor, ...]:
    """Return the differences across borders of blocks (b, rows - 1, columns): of each image and from one to another."""

    def difference(one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs().mean(1).unflatten(2, (-1, per_block)).mean(3)

    above, below = patches[:, :, per_block - 1 : -1 : per_block], patches[:, :, per_block::per_block]
    both = difference(above, below)
    return both, both[partners], difference(above, below[partners]), difference(above[partners], below)


def spread(blocks: Tensor, size: int) -> Tensor:
    """Return a value for each pixel from one for each block (..., y, x)."""
    return blocks.repeat_interleave(size, -2).repeat_interleave(size, -1)


def source_pixels(blocks: Int[Tensor, "b y x"], size: int) -> Int[Tensor, "b h w"]:
    """Return which pixel goes where, row-major, if these blocks of side ``size`` do."""
    b, rows, columns = blocks.shape
    pixels = torch.arange(blocks[0].numel() * size**2, device=blocks.device).view(rows, size, columns, size)
    each = pixels.transpose(1, 2).reshape(rows * columns, size, size)
    return each[blocks].transpose(2, 3).reshape(b, rows * size, columns * size)


def move_pixels(images: Float[Tensor, "b c h w"], source: Int[Tensor, "b h w"]) -> Float[Tensor, "b c h w"]:
    """Return images whose pixels come from the places given."""
    index = source.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view_as(images)
