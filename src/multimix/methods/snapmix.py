"""What mixes by where a network looks: SnapMix by its class activation maps, AttentiveMix by its features."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate

from multimix._declared import Checked, Count, Fraction, Positive
from multimix._modules import copied, evaluating
from multimix.methods._images import uniform
from multimix.methods._predict import Mixed, MixesInputs, Mixing, PairMixing, Step, wanted_of
from multimix.methods.puzzlemix import pool_saliency
from multimix.methods.supermix import precision_of
from multimix.ops import Box, accurate, beta, draw_box, draw_partners, no_autocast, objective_of, paste_where
from multimix.protocols import EncoderOutput, Losses, Network, Stateful, encode, pool, require_part

_MOST_TOKENS = 8  # that may stand before those of a grid, such as a class token and registers
_FARTHEST = math.log(1.5)  # between the ratios of sides of an image and of a grid of its positions


class Proportional(PairMixing):
    """Pairs whose two weights have any sum: targets are mixed in their proportion, examples count by their sum."""

    def __init__(self, partners: Tensor, weights: tuple[Tensor, Tensor], otherwise: float, **given: Any) -> None:
        """Take the weights of both images of each pair, each (b,), and the share of the first where both are 0."""
        own, other = weights
        self.counts = own + other
        lam = torch.where(self.counts > 0, own / self.counts, otherwise)
        super().__init__(partners, lam, **given)


class _Counted(Mixed):
    """A mixing of inputs that took place already, with what its examples count."""

    def __init__(self, mixing: Mixing, inputs: Tensor) -> None:
        super().__init__(mixing)
        self.counts = (
            mixing.counts if isinstance(mixing, Proportional) else torch.ones(len(inputs), device=inputs.device)
        )


@dataclass(frozen=True)
class SnapMix(MixesInputs, Checked):
    r"""Paste a box of each image's partner into a box of another size; labels weigh what the classes lose and gain.

    Both boxes are drawn as CutMix draws one, each for a lambda ~ Beta(alpha, alpha) of its own, and serve all images of
    a step. The map S of an image, which sums to 1, is the output for its class at every position of the network,
    upsampled, less its least value. With the box B that is covered and the box B' that is cut out and resized,

    .. math:: \rho = 1 - \sum_B S, \qquad \rho' = \sum_{B'} S', \qquad
        \mathrm{loss} = \rho \, \ell(y) + \rho' \, \ell(y')

    The two weights need not sum to 1. Targets are mixed in their proportion, also by ``mix``, and each example's loss
    counts by their sum.

    The maps are made in eval mode, in one more pass without gradient, and soft labels have the mean map of their
    classes. The authors' code makes them in training mode; it also counts pairs of one class twice, which is not in the
    paper, and is left out here.

    Reference:
        Huang, Wang and Tao, "SnapMix: semantically proportional mixing for augmenting fine-grained data", AAAI 2021,
        arXiv 2012.04846, from its code, with the alpha and the share of steps that it recommends.
    """

    name: ClassVar[str] = "snapmix"
    calls_only: ClassVar[bool] = False
    needs_images: ClassVar[bool] = True
    needs_network: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True

    alpha: Positive = 5.0
    """Concentration of the Beta distribution; the authors call it beta."""
    prob: Fraction = 1.0
    """Share of the steps that are mixed; the others are plain."""
    weighted: bool = True
    """Whether an example counts by the sum of its two weights; if not, all count alike."""

    def mix_ahead(self, step: Step) -> tuple[Step, Mixing]:
        """Return a step whose inputs are mixed, a teacher's too, and the mixing of its targets with their weights."""
        mixing, teacher = self.draw(*step[:4]), step.teacher
        if teacher is not None:
            teacher = replace(teacher, inputs=mixing.mix(teacher.inputs))
        return step._replace(inputs=mixing.mix(step.inputs), teacher=teacher), _Counted(mixing, step.inputs)

    def compare(self, step: Step, mixing: Mixing, logits: Tensor, grid: tuple[int, ...] | None = None) -> Losses:
        """Return the losses of logits against mixed targets and a teacher's predictions, weighed alike.

        Each term is a mean over what the examples count; the total is in the scale of the paper's loss.
        """
        if not (self.weighted and isinstance(mixing, (Proportional, _Counted))):
            return super().compare(step, mixing, logits, grid)
        wanted, taught = wanted_of(step.network, step.targets, logits), None
        if step.teacher is not None:
            with torch.no_grad():
                taught = mixing.predict(step.teacher.network, step.teacher.inputs), step.teacher.gamma
        objective = objective_of(step.network)
        losses = objective.losses(logits, mixing.mix_targets(wanted), taught, present=mixing.counts)
        return Losses(losses.total * mixing.counts.mean(), losses.terms)

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw partners and both boxes, and weigh what they hold."""
        height, width = inputs.shape[-2:]
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        lams = beta(2, self.alpha, generator=generator).tolist()
        box, source = (draw_box(height, width, lam, generator=generator) for lam in lams)
        mixed = self.prob == 1 or float(uniform(generator=generator)) < self.prob
        if not (mixed and box.area and source.area):
            return Mixing()
        maps = class_maps(cast("Network", network), inputs, targets)
        weights = 1 - _sum_inside(maps, box), _sum_inside(maps, source)[partners]
        kept = 1 - box.area / (height * width)
        return Proportional(partners, weights, kept, how=_paste_resized, box=box, source=source)


def _sum_inside(maps: Float[Tensor, "b h w"], box: Box) -> Float[Tensor, " b"]:
    return maps[:, box.top : box.bottom, box.left : box.right].sum((1, 2)).clamp(max=1)


def _paste_resized(images: Tensor, partners: Tensor, box: Box, source: Box) -> Tensor:
    """Return images with their partners' box ``source`` in ``box``, resized to its size."""
    cut = images[..., source.top : source.bottom, source.left : source.right].contiguous()
    wide = cut.to(torch.promote_types(cut.dtype, torch.float32))
    size = box.bottom - box.top, box.right - box.left
    resized = interpolate(wide, size, mode="bilinear", align_corners=True).to(images.dtype)
    mixed = images.clone()
    mixed[..., box.top : box.bottom, box.left : box.right] = resized.index_select(0, partners)
    return mixed


@dataclass(eq=False)
class AttentiveMix(Stateful, MixesInputs, Checked):
    """Paste the patches of each image that a trained teacher attends to most into its partner; targets by area.

    Attention is the mean over channels of the teacher's last features, at each position of their grid. The image keeps
    the pixels of its ``patches`` most attended positions, and shows its partner everywhere else.

    Without a teacher the network attends itself, as it is at that step, which is a variation of ours. The teacher or
    the network is in eval mode meanwhile and gets no gradient. What has a single position, such as features that are
    pooled already, leaves images whole.

    Reference:
        Walawalkar et al., "Attentive CutMix: an enhanced data augmentation approach for deep learning based image
        classification", ICASSP 2020, arXiv 2003.13048, whose abstract was read; six patches of 7 x 7, those of an
        ImageNet ResNet-50, and the mean over channels are from openmixup.
    """

    name: ClassVar[str] = "attentivemix"
    calls_only: ClassVar[bool] = False
    needs_images: ClassVar[bool] = True
    pastes: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True

    # A factory, since a default on the class would hide the module.
    teacher: nn.Module | None = field(default_factory=lambda: None, repr=False)
    """A trained network, ``mm.adapt(model)``, of which a frozen copy is kept."""
    patches: Count = 6
    """How many positions an image keeps; all of them if there are no more."""
    size: Count | None = None
    """Side in pixels of the images that the teacher sees, resized to it; as they are by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is not None:
            if not (isinstance(self.teacher, nn.Module) and hasattr(self.teacher, "embed")):
                name = type(self.teacher).__name__
                raise TypeError(f"teacher must be an adapted network, mm.adapt(model), got {name}")
            self.teacher = copied(self.teacher).requires_grad_(False).eval()

    forward = MixesInputs.__call__

    @property
    def needs_network(self) -> bool:  # type: ignore[override]
        """Whether the mixing depends on the network: there is no teacher."""
        return self.teacher is None

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners, and find the patches that each image keeps."""
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        attention = self._attention(cast("Network", network if self.teacher is None else self.teacher), inputs)
        b, *grid = attention.shape
        best = attention.flatten(1).topk(min(self.patches, math.prod(grid))).indices
        cells = torch.zeros(b, math.prod(grid), device=inputs.device).scatter_(1, best, 1).view(b, *grid)
        down, along = (
            torch.arange(side, device=inputs.device) * n // side
            for side, n in zip(inputs.shape[-2:], grid, strict=True)
        )
        mask = cells[:, down][:, :, along]
        return PairMixing(partners, mask.mean((1, 2)), paste_where, kept=mask.unsqueeze(1))

    @torch.no_grad()
    def _attention(self, network: Network, inputs: Tensor) -> Float[Tensor, "b y x"]:
        if self.size is not None:
            size = self.size, self.size
            inputs = interpolate(accurate(inputs), size, mode="bilinear", antialias=True)
        with evaluating(network), no_autocast(inputs.device.type):
            output = _embedded(network, inputs)
        return as_maps(accurate(output.features).mean(2), output, inputs.shape[-2:])


@torch.no_grad()
def class_maps(network: Network, inputs: Float[Tensor, "b c h w"], targets: Tensor) -> Float[Tensor, "b h w"]:
    """Return how much each pixel speaks for an example's classes: at least 0, each map of sum 1."""
    with evaluating(network), no_autocast(inputs.device.type):
        output = _embedded(network, inputs)
        logits = accurate(network.classify(pool(network, output.each_position())))
        logits = logits.reshape(len(inputs), -1, logits.shape[-1])
        rows = wanted_of(network, targets, logits[:, 0])[..., -logits.shape[-1] :]
        maps = as_maps((logits * rows.unsqueeze(1).to(logits.dtype)).sum(2), output, inputs.shape[-2:])
    maps = interpolate(maps.unsqueeze(1), inputs.shape[-2:], mode="bilinear")[:, 0]
    return pool_saliency(maps - maps.amin((1, 2), keepdim=True), 1)


def _embedded(network: Network, inputs: Tensor) -> EncoderOutput:
    require_part(network, "positions")
    return encode(network, inputs.detach().to(precision_of(network, inputs)))


def as_maps(values: Float[Tensor, "b r"], output: EncoderOutput, size: torch.Size) -> Float[Tensor, "b y x"]:
    """Return values of a network's positions as maps: of its grid or, if that is unknown, of one like the image.

    Raises:
        ValueError: If the positions form no such grid, also without the few class tokens that may come first.
    """
    r, ratio = values.shape[1], size[0] / size[1]
    grid = output.grid
    if grid is None or len(grid) != 2:
        grids = [(rows, r // rows) for rows in range(1, r + 1) if r % rows == 0]
        away = {grid: abs(math.log(grid[0] / grid[1] / ratio)) for grid in grids}
        grid = min(grids, key=lambda grid: away[grid])
        if away[grid] > _FARTHEST:
            grid = min(max(int((r * ratio) ** 0.5), 1), r), max(int((r / ratio) ** 0.5), 1)
    tokens = r - math.prod(grid)
    if not 0 <= tokens <= _MOST_TOKENS:
        raise ValueError(
            f"network must embed images at the positions of a grid, got {r} positions for {size[0]} x {size[1]} pixels"
        )
    return values[:, tokens:].unflatten(1, grid)
