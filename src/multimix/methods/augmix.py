"""AugMix."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from multimix._declared import Checked, Count, Interval, MinLen, Positive
from multimix._modules import outside
from multimix.methods._images import Weight, uniform
from multimix.methods._predict import MixesInputs, Mixing, Step
from multimix.ops import CrossEntropy, accurate, beta, dirichlet, looks_are_free, no_autocast, objective_of
from multimix.protocols import Losses, Network

Channels = Annotated[tuple[Annotated[float, Interval(gt=-math.inf, lt=math.inf)], ...], MinLen(1)]
Spreads = Annotated[tuple[Positive, ...], MinLen(1)]

OPERATIONS = (
    *("autocontrast", "equalize", "posterize", "solarize"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
"""What chains are made of: the first four change levels, the others move pixels."""
_MOVES = OPERATIONS.index("rotate")
_NOTHING = len(OPERATIONS)
_HAIR = 1 / 64  # of a level, by which coordinates in float32 may miss
_SLACK = 0.02  # how far outside of [0, 1] a resized pixel may be


@dataclass(frozen=True)
class AugMixing(Mixing):
    """Chains of operations for each of b images, and how much each of them and the image itself weighs."""

    lam: Float[Tensor, " b"]
    """Weight of the image as it is."""
    weights: Float[Tensor, "b m"]
    """What each of its m chains weighs of the rest."""
    operations: Int[Tensor, "d n"]
    """Number of each operation in ``OPERATIONS``, chain after chain, n = b * m; one more where a chain has ended."""
    strengths: Float[Tensor, "d n"]
    """Its strength, up to 10, with a sign where it has a direction."""
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @torch.no_grad()
    def _average(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the average of each image's chains."""
        black, span = self._range(images)
        levels = ((images - black) * (255 / span)).round().clamp(0, 255)
        levels = levels.repeat_interleave(self.weights.shape[1], 0)
        for operations, strengths in zip(self.operations, self.strengths, strict=True):
            levels = operated(levels, operations, strengths)
        levels = levels.unflatten(0, self.weights.shape)
        return black + span / 255 * torch.einsum("bm,bmchw->bchw", self.weights.to(levels), levels)

    def _range(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
        """Return each channel's value of black, and how much above it white is, (c, 1, 1)."""
        if self.mean is None or self.std is None:
            black, white = images.amin((0, 2, 3)), images.amax((0, 2, 3))
            span = torch.where(white > black, white - black, 1)
        else:
            span = 1 / images.new_tensor(self.std)
            black = -images.new_tensor(self.mean) * span
        return black.view(-1, 1, 1), span.view(-1, 1, 1)

    def mix(self, inputs: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the images, each mixed with its own chains."""
        given = accurate(inputs)
        with no_autocast(inputs.device.type):
            chains = self._average(given.float()).to(given.dtype)
            return torch.lerp(chains, given, self.lam.to(given.dtype).view(-1, 1, 1, 1)).to(inputs.dtype)


@dataclass(frozen=True)
class AugMix(Checked, MixesInputs):
    r"""Train on clean images, and ask for the same prediction on two views of each, mixed of chains of augmentations.

    A view mixes ``width`` chains in weights of Dirichlet(alpha), and their average with the image itself, which weighs
    lambda ~ Beta(alpha, alpha). Each operation of a chain is any of autocontrast, equalize, posterize, solarize,
    rotate, shear and translate along x or y, of a strength uniform in [0.1, ``severity``]. The loss is

    .. math::
        \mathrm{CE}(p, y) + w \, \tfrac13 \sum_{q \in \{p, p_1, p_2\}} \mathrm{KL}(q \,\|\, \tfrac13 (p + p_1 + p_2))

    with the predictions p of the clean image and p_1, p_2 of its views, all from one pass over 3b images. No label is
    mixed; ``mix`` returns one view of each image with its label.

    The operations are those of Pillow on 8-bit images. With ``mean`` and ``std``, by which inputs were normalised,
    pixels are known to be in [0, 1], and images for which they are not are refused (on a CPU, where a look is free).
    Without them, the least and the largest value of each channel in the mini-batch stand for black and white; a
    mini-batch of natural images has both.

    Reference:
        Hendrycks et al., "AugMix: a simple data processing method to improve robustness and uncertainty", ICLR 2020,
        arXiv 1912.02781; operations, loss and defaults of the authors' code for CIFAR.
    """

    name: ClassVar[str] = "augmix"
    needs_images: ClassVar[bool] = True
    mixes: ClassVar[bool] = False  # no example with another

    severity: Annotated[float, Interval(ge=0.1, le=10)] = 3.0
    """Largest strength of an operation: at 10, rotation by 30 degrees, a shear of 0.3, a translation by a third of the
    side, solarizing from 0 on, and no bits left by posterize."""
    width: Count = 3
    """Chains of a view."""
    depth: Count | None = None
    """Operations of a chain; by default 1, 2 or 3 of them, drawn for each chain."""
    alpha: Positive = 1.0
    """Concentration of the Beta and the Dirichlet distribution."""
    consistency: Weight = 12.0
    """Weight w of the divergence; at 0 there is none, and the network sees one view of each image and nothing else."""
    mean: Channels | None = None
    """What was subtracted from pixels in [0, 1], one value a channel."""
    std: Spreads | None = None
    """What they were divided by then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mean or ()) != len(self.std or ()):
            raise ValueError(f"mean must have as many values as std, got {self.mean} and {self.std}")

    def check(self, inputs: Tensor, targets: Tensor) -> None:
        """Raise unless these are images, and normalised by ``mean`` and ``std`` if they are given."""
        super().check(inputs, targets)
        if targets.ndim > 2:
            raise ValueError(
                "targets must be one row an example for AugMix, which moves pixels and no labels with them"
            )
        if self.mean is None or self.std is None:
            return
        if inputs.shape[1] != len(self.mean):
            raise ValueError(f"mean must have a value for each of {inputs.shape[1]} channels, got {self.mean}")
        if looks_are_free(inputs):
            mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
            low, high = (value.item() for value in (inputs.detach().float() * std + mean).aminmax())
            if low < -_SLACK or high > 1 + _SLACK:
                raise ValueError(
                    f"mean and std must be those that inputs were normalised by, so that pixels lie in [0, 1], got"
                    f" pixels from {low:.3g} to {high:.3g}"
                )

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> AugMixing:
        """Draw the chains of one view, and the weights."""
        b = len(inputs)
        d, n = self.depth or 3, b * self.width
        coins = uniform(3, d, n, generator=generator, like=inputs)
        operations = (coins[0] * _NOTHING).long()
        if self.depth is None:
            depths = 1 + (3 * uniform(n, generator=generator, like=inputs)).long()
            operations = operations.masked_fill(torch.arange(d, device=inputs.device)[:, None] >= depths, _NOTHING)
        strengths = (0.1 + (self.severity - 0.1) * coins[1]) * (coins[2] - 0.5).sign()
        lam = beta(b, self.alpha, generator=generator, device=inputs.device)
        weights = dirichlet(b, self.width, self.alpha, generator=generator, device=inputs.device)
        return AugMixing(lam, weights, operations, strengths, self.mean, self.std)

    def losses(self, step: Step) -> Losses:
        """Return the losses of the clean images plus the weighted divergence; without it, those of one view."""
        if not self.consistency:
            return super().losses(step)
        if not isinstance(objective := objective_of(step.network), CrossEntropy):
            raise ValueError(
                "objective must be CrossEntropy for AugMix, whose consistency is a divergence of classes, got"
                f" {objective!r}; AugMix(consistency=0) goes with any"
            )
        outputs = step.network(outside(self._views, step))
        if outputs.ndim != 2:
            raise ValueError(f"network must have one output an example, (b, k), for AugMix, got {tuple(outputs.shape)}")
        logits = outputs.unflatten(0, (3, -1))
        losses = self.compare(step, Mixing(), logits[0])
        divergence = jensen_shannon(logits)
        return Losses(
            losses.total + self.consistency * divergence, {**losses.terms, "consistency": divergence.detach()}
        )

    def _views(self, step: Step) -> Tensor:
        """Return the clean images and two views of each, (3b, c, h, w)."""
        views = [self.draw(*step[:4]).mix(step.inputs) for _ in range(2)]
        return torch.cat([step.inputs, *views])


def jensen_shannon(logits: Float[Tensor, "v *n k"]) -> Float[Tensor, ""]:
    """Return the mean over n examples of the Jensen-Shannon divergence of v predictions of each."""
    logs = accurate(logits).log_softmax(-1)
    average = logs.logsumexp(0) - math.log(len(logs))
    return (logs.exp() * (logs - average)).sum(-1).mean()


def operated(
    levels: Float[Tensor, "n c h w"], operations: Int[Tensor, " n"], strengths: Float[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Return images, whole levels from 0 to 255, after one operation each."""
    moving = (operations >= _MOVES) & (operations < _NOTHING)
    for chosen, change in ((operations < _MOVES, recoloured), (moving, moved)):
        if not looks_are_free(levels):  # either leaves alone what is not its own, which costs less than to wait
            levels = change(levels, operations, strengths)
        elif len(rows := chosen.nonzero().squeeze(1)):
            levels = levels.index_copy(0, rows, change(levels[rows], operations[rows], strengths[rows]))
    return levels


def recoloured(
    levels: Float[Tensor, "n c h w"], operations: Int[Tensor, " n"], strengths: Float[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Return images whose levels have become others, channel by channel, as Pillow's ImageOps has it."""
    pixels = levels.flatten(2).long()
    counts = pixels.new_zeros(*pixels.shape[:2], 256).scatter_add_(2, pixels, torch.ones_like(pixels))
    level, seen = torch.arange(256, device=levels.device), counts > 0
    first, last = level.where(seen, 255).amin(2, keepdim=True), level.where(seen, 0).amax(2, keepdim=True)
    stretched = 255 * (level - first) // (last - first).clamp(min=1)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, last)) // 255
    even = (counts.cumsum(2) - counts + step // 2) // step.clamp(min=1)
    strength = strengths.abs().view(-1, 1, 1)
    size = 2 ** (4 + (strength * 0.4).long())  # of a step between the levels that posterize leaves
    negative = level.where(level < 256 - (strength * 25.6).long(), 255 - level)
    changed = (stretched.where(last > first, level), even.where(step > 0, level), level // size * size, negative)
    tables = level.expand_as(counts)
    for number, table in enumerate(changed):
        tables = table.where((operations == number).view(-1, 1, 1), tables)
    return tables.clamp(0, 255).gather(2, pixels).view_as(levels).to(levels.dtype)


def moved(
    levels: Float[Tensor, "n c h w"], operations: Int[Tensor, " n"], strengths: Float[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Return images that are rotated about their centre, sheared along their edges or translated, black around them."""
    height, width = levels.shape[2:]

    def of(name: str, most: float, *, whole: bool = False) -> Tensor:
        amount = strengths * (most / 10)
        return (amount.trunc() if whole else amount) * (operations == OPERATIONS.index(name))

    angle = of("rotate", 30, whole=True).deg2rad()
    # where each pixel comes from, with coordinates from -1 to 1 along either side
    across = angle.sin() * -(height / width)
    down = angle.sin() * (width / height)
    along_x, along_y = of("shear_x", 0.3) * (height / width), of("shear_y", 0.3) * (width / height)
    right = of("translate_x", width / 3, whole=True) * (2 / width) + along_x
    below = of("translate_y", height / 3, whole=True) * (2 / height) + along_y
    rows = (angle.cos(), across + along_x, right), (down + along_y, angle.cos(), below)
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = affine_grid(theta, list(levels.shape), align_corners=False)
    inside = (grid.abs() < 1).all(3).unsqueeze(1)
    return (grid_sample(levels, grid, padding_mode="border", align_corners=False) * inside + _HAIR).floor()
