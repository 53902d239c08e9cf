"""What mixes by the attention of a vision transformer: TransMix weighs labels by it, SMMix pastes by it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d

from multimix._declared import Checked, Fraction, Positive
from multimix._modules import evaluating, outside
from multimix.methods._images import Weight, uniform
from multimix.methods._predict import MixesInputs, PairMixing, Step, wanted_of
from multimix.methods.cutmix import CutMix
from multimix.ops import Box, Boxes, Mode, accurate, draw_partners, objective_of
from multimix.protocols import EncoderOutput, Losses, Network, encode, pool


class AttendsToImages(MixesInputs, Checked):
    """Base of the methods that ask a vision transformer where it looks."""

    calls_only: ClassVar[bool] = False
    needs_attention: ClassVar[bool] = True
    needs_images: ClassVar[bool] = True
    needs_network: ClassVar[bool] = True

    def losses(self, step: Step) -> Losses:
        """Return the losses of a step, of which nothing is compiled but what of the network is."""
        return outside(self.attending, step)

    def attending(self, step: Step) -> Losses:
        """Return the losses of a step."""
        return super().losses(step)


@dataclass(frozen=True)
class TransMix(AttendsToImages):
    r"""CutMix whose labels weigh as much as the network attends to what it sees of either image.

    Lambda of an image is a mean of two shares, of the attention that is on what the box leaves, and of the area,

    .. math:: \lambda = w \frac{\sum_{i \notin P} A_i}{\sum_i A_i} + (1 - w) \lambda_\mathrm{area}

    where A is what the class token of the last block attends to each patch, the mean over the heads, and a patch is in
    P if the pixel at its upper left is in the box. The attention is that of the training pass itself, and passes no
    gradient on. ``mix`` and ``Chain``, which need the labels before it, look at the mixed images in eval mode first.

    The network is a vision transformer of timm or transformers whose head reads a class token; others are refused, as
    the authors' code has no others. It draws CutMix in 80 % of the steps and mixup in the rest:
    ``Alternate((TransMix(), Mixup(0.8)), (0.8, 0.2))``.

    Reference:
        Chen et al., "TransMix: attend to mix for vision transformers", CVPR 2022 (arXiv 2111.09833), as in its code
        at github.com/Beckschen/TransMix.
    """

    name: ClassVar[str] = "transmix"

    alpha: Positive = 1.0
    """Concentration of the Beta distribution that the boxes' sizes are drawn from."""
    attention: Fraction = 0.5
    """Weight w of the share of attention in lambda; 0 is CutMix."""
    prob: Fraction = 1.0
    """Share of the steps that are mixed, or of the pairs or examples by ``mode``; the others are plain."""
    mode: Mode = "batch"
    """Who shares a box: ``batch``, all; ``pair``, two images that are each other's partners; ``elem``, nobody."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and a box, or boxes, as CutMix does."""
        pasted = CutMix(self.alpha, self.prob, self.mode).draw(None, inputs, targets, generator)
        return _Attended(pasted, cast("Network", network), inputs, self.attention)


class _Attended(PairMixing):
    """Pairs of which one image is pasted into the other, their labels weighed once a network has seen them."""

    def __init__(self, pasted: PairMixing, network: Network, inputs: Tensor, share: float) -> None:
        super().__init__(pasted.partners, pasted.lam, pasted.how, **pasted.given)
        self._network, self._inputs, self._share = network, inputs, share
        self._is_weighed = False

    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        """Return the logits of the mixed mini-batch; the first network that sees it weighs the labels."""
        if self._is_weighed:
            return super().predict(network, inputs)
        output, attention = _attention_of(network, self.mix(inputs), "class")
        self._weigh(attention)
        return network.classify(pool(network, output))

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities, or other values, of pairs mixed linearly."""
        if not self._is_weighed:
            self._weigh(outside(_look, self._network, self.mix(self._inputs), "class")[0])
        return super().mix_targets(targets)

    def _weigh(self, attention: Float[Tensor, "b rows columns"]) -> None:
        box = self.given["box"] if "box" in self.given else self.given["boxes"]
        kept = ~_patches_inside(box, self._inputs.shape[-2:], attention)
        whole, left = attention.sum((1, 2)), (attention * kept).sum((1, 2))
        left = torch.where(whole > 0, left / whole, self.lam.to(left))
        self.lam = self._share * left + (1 - self._share) * self.lam
        self._is_weighed = True


def _patches_inside(box: Box | Boxes, size: torch.Size, like: Float[Tensor, "b rows columns"]) -> Bool[Tensor, "..."]:
    """Return of which patches the first pixel is in the box, (rows, columns), or in each image's own, (b, ...)."""
    edges: Any = (box[:2], box[2:])
    if isinstance(box, Boxes):
        edges = zip(box.start.unsqueeze(2), box.end.unsqueeze(2), strict=True)
    inside = []
    for (start, end), pixels, patches in zip(edges, size, like.shape[1:], strict=True):
        first = torch.arange(patches, device=like.device) * pixels // patches
        inside.append((first >= start) & (first < end))
    rows, columns = inside
    return rows.unsqueeze(-1) & columns.unsqueeze(-2)


@dataclass(frozen=True)
class SMMix(AttendsToImages):
    r"""Paste the square that the network attends to most over the one that it attends to least, and compare parts.

    A look at the clean images, in eval mode, gives the attention of each patch, the mean over the heads and over the
    patches that ask in the last block, and the logits z. A square of s times s patches, s uniform and one a step,
    replaces the image's patches of least attention by its partner's of most; lambda is the share of patches that
    are left. To the loss of the mixed images two terms are added:

    - *fine*: the features of the patches that are left, and of those that are pasted, the mean of each, are
      classified as the one or the other image; the mean of both losses.
    - *consistency*: the loss against the predictions of ``lam * z + (1 - lam) * z[partners]``. The authors' code has
      the divergence from them, whose gradient is the same.

    The authors train a second linear layer for the parts and report that sharing the head is as good, which is done
    here. The network is a vision transformer of timm or transformers whose last block attends to all patches; a class
    token is not needed. Their code draws it in half of the steps and mixup in the others:
    ``Alternate((SMMix(), Mixup(0.8)))``.

    Reference:
        Chen et al., "SMMix: self-motivated image mixing for vision transformers", ICCV 2023 (arXiv 2212.12977), as in
        its code at github.com/ChenMnZ/SMMix.
    """

    name: ClassVar[str] = "smmix"

    sides: tuple[Fraction, Fraction] = (0.25, 0.75)
    """Least and largest side of the square, as a part of the shorter side of the grid of patches."""
    fine: Weight = 1.0
    """Weight of the loss of the parts."""
    consistency: Weight = 1.0
    """Weight of the loss against the mixed predictions of the clean images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sides[0] > self.sides[1]:
            raise ValueError(f"sides must be (low, high) with low <= high, got {self.sides}")

    def attending(self, step: Step) -> Losses:
        """Return the losses of the mixed mini-batch, of its parts, and against the clean predictions."""
        step, drawn = self.drawn(step)
        mixing, network, objective = cast("_Moved", drawn), step.network, objective_of(step.network)
        output = encode(network, mixing.mix(step.inputs))
        logits = network.classify(pool(network, output))
        losses = self.compare(step, mixing, logits)
        wanted = wanted_of(network, step.targets, logits)
        parts, rows = zip(*mixing.parts(output, wanted), strict=True)
        alone = EncoderOutput(torch.cat(parts).unsqueeze(1), context=output.context)
        fine = objective(network.classify(pool(network, alone)), torch.cat(rows))
        mixed = mixing.mix_targets(accurate(mixing.logits))
        consistency = objective(logits, objective.from_teacher(mixed, mixing.mix_targets(wanted)))
        total = losses.total + self.fine * fine + self.consistency * consistency
        return Losses(total, {**losses.terms, "fine": fine.detach(), "consistency": consistency.detach()})

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and the side of the squares, and look at the images."""
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        place = float(uniform(generator=generator))
        attention, logits = _look(cast("Network", network), inputs, "patches")
        low, high = (int(share * min(attention.shape[1:])) for share in self.sides)
        return _Moved(partners, max(low + int(place * (high - low + 1)), 1), attention, logits)


class _Moved(PairMixing):
    """Pairs of which a square of patches of one image is pasted into another place of the other."""

    def __init__(self, partners: Tensor, side: int, attention: Float[Tensor, "b rows columns"], logits: Tensor) -> None:
        grid, places = attention.shape[1:], avg_pool2d(attention.unsqueeze(1), side, stride=1).squeeze(1)
        least, most = (
            _corners(found, places.shape[2]) for found in (places.flatten(1).argmin(1), places.flatten(1).argmax(1))
        )
        given = {"side": side, "grid": grid, "taken": most[:, partners], "covered": least}
        super().__init__(partners, 1 - side**2 / grid.numel(), _moved, **given)
        self.logits = logits

    def parts(self, output: EncoderOutput, targets: Tensor) -> Iterator[tuple[Float[Tensor, "b d"], Tensor]]:
        """Yield the mean features of the patches that are left, if any are, and of those pasted, with their targets."""
        side, grid = self.given["side"], self.given["grid"]
        patches = output.features[:, -grid.numel() :]
        inside = _pixels(self.given["covered"], side, (1, 1), grid[1])
        pasted = patches.gather(1, inside.unsqueeze(2).expand(-1, -1, patches.shape[2])).sum(1)
        if side**2 < grid.numel():
            yield (patches.sum(1) - pasted) / (grid.numel() - side**2), targets
        yield pasted / side**2, targets.index_select(0, self.partners)


def _corners(places: Int[Tensor, " b"], columns: int) -> Int[Tensor, "2 b"]:
    return torch.stack([places // columns, places % columns])


def _moved(
    images: Float[Tensor, "b c h w"],
    partners: Int[Tensor, " b"],
    side: int,
    grid: torch.Size,
    taken: Int[Tensor, "2 b"],
    covered: Int[Tensor, "2 b"],
) -> Float[Tensor, "b c h w"]:
    """Return the images with a square of patches of their partners', from where it is taken to what it covers."""
    height, width = images.shape[2:]
    patch = (height // grid[0], width // grid[1])
    source, goal = (
        _pixels(corner, side, patch, width).unsqueeze(1).expand(-1, images.shape[1], -1) for corner in (taken, covered)
    )
    pasted = images.index_select(0, partners).flatten(2).gather(2, source)
    return images.flatten(2).scatter(2, goal, pasted).view(images.shape)


def _pixels(corners: Int[Tensor, "2 b"], side: int, patch: tuple[int, int], width: int) -> Int[Tensor, "b n"]:
    """Return where squares of patches, each from a corner on, lie in maps of a width that are read row by row."""
    rows, columns = (
        (corner * size).unsqueeze(1) + torch.arange(side * size, device=corner.device)
        for corner, size in zip(corners, patch, strict=True)
    )
    return ((rows * width).unsqueeze(2) + columns.unsqueeze(1)).flatten(1)


def _look(network: Network, images: Tensor, by: Literal["class", "patches"]) -> tuple[Tensor, Tensor]:
    """Return a network's attention to each patch, and its logits, in eval mode and without a gradient."""
    with evaluating(network), torch.no_grad():
        output, attention = _attention_of(network, images, by)
        return attention, network.classify(pool(network, output))


def _attention_of(
    network: Any, images: Tensor, by: Literal["class", "patches"]
) -> tuple[EncoderOutput, Float[Tensor, "b rows columns"]]:
    if not hasattr(network, "attention_of"):
        raise ValueError(
            "network must be a vision transformer whose attention can be read, mm.adapt(model) of one of timm or"
            f" transformers, got {type(network).__name__}"
        )
    return network.attention_of(images, by)
