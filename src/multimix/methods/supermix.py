"""SuperMix."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate, one_hot

from multimix._declared import Checked, Count, Fraction, Ge, Positive, check
from multimix._modules import copied, evaluating, not_alone, outside
from multimix.methods._images import Weight
from multimix.methods._predict import MixesInputs, Mixing, Step
from multimix.ops import accurate, as_probabilities, dirichlet, draw_partners, no_autocast
from multimix.protocols import Losses, Network, Stateful


class MixedSet(NamedTuple):
    """Mixed images that are ready to be stored or trained with."""

    images: Float[Tensor, "n c h w"]
    targets: Float[Tensor, "n k"]
    masks: Float[Tensor, "n m h w"]


@dataclass(frozen=True)
class MaskedSets(Mixing):
    """Which examples make up each set, how their targets are weighed, and where each one shows."""

    members: Int[Tensor, "m b"]
    """For each example the set that it leads: itself first."""
    weights: Float[Tensor, "b m"]
    """Of the members' targets."""
    values: Float[Tensor, "b m s s"]
    """The masks before upsampling, sigmoid and normalisation."""

    def mix(self, inputs: Tensor) -> Tensor:
        """Return one mixed image for each set."""
        return compose(inputs, self.members, masks_of(self.values, *inputs.shape[-2:]))

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the members' class probabilities, weighed."""
        weights = self.weights.to(targets.dtype)
        return sum((w[:, None] * targets[i] for w, i in zip(weights.T, self.members, strict=True)), 0 * targets)


@dataclass(eq=False)
class SuperMix(Stateful, MixesInputs, Checked):
    r"""Mix sets of images under masks chosen so that a trained teacher sees all of them in the right proportion.

    Weights :math:`\lambda \sim \mathrm{Dir}(\alpha)` of a set's images make the distribution
    :math:`q = \sum_j \lambda_j \, \mathrm{onehot}(f(x_j))` of the classes that the teacher sees in them. Masks of a few
    cells, upsampled, through a sigmoid and normalised over the set, are moved from even ones to lower
    :math:`\mathrm{KL}(q \,\|\, f(\sum_j m_j \odot x_j)) + \lambda_s \, \mathrm{mean} |m (m - 1)|` by Newton-like steps
    along a smoothed gradient, until the classes of q rank first. Targets are the images' own, weighed by lambda.

    Every step costs up to ``iterations`` passes through the teacher and back; :meth:`generate` mixes once for all.

    Without a teacher, the network supervises its own mixing as it is at that step, or its moving average does inside
    ``SelfDistilled(..., teacher="predict")``. That is a variation of ours. The teacher or the network is in evaluation
    mode meanwhile, and in full precision; its running statistics and gradients stay as they are.

    Reference:
        Dabouei et al., "SuperMix: supervising the mixing data augmentation", CVPR 2021, section 3; settings of its
        code for CIFAR-100.
    """

    name: ClassVar[str] = "supermix"
    needs_images: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    # A factory, since a default on the class would hide the module.
    teacher: nn.Module | None = field(default_factory=lambda: None, repr=False)
    """A trained network from images to logits, of which a frozen copy is kept."""
    images: Annotated[int, Ge(2)] = 2
    """How many images make up a set; in a smaller mini-batch some of them enter more than once."""
    alpha: Positive = 3.0
    """Concentration of the Dirichlet distribution."""
    side: Count = 8
    """Cells along a side of a mask; 16 for ImageNet."""
    sparsity: Weight = 25.0
    """Weight lambda_s of the term that wants masks of zeros and ones."""
    sigma: Weight = 1.0
    """Standard deviation of the smoothing, in cells; 2 for ImageNet."""
    iterations: Count = 50
    """Most steps for one mini-batch."""
    tolerance: Fraction = 0.3
    """Share of the sets that may be left unsolved when the search ends early."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is not None:
            if not isinstance(self.teacher, nn.Module):
                raise TypeError(f"teacher must be a torch module, got {type(self.teacher).__name__}")
            self.teacher = copied(self.teacher).requires_grad_(False).eval()

    forward = MixesInputs.__call__

    @property
    def needs_network(self) -> bool:  # type: ignore[override]
        """Whether the mixing depends on the network: there is no teacher."""
        return self.teacher is None

    def losses(self, step: Step) -> Losses:
        """Return the losses of the mixed mini-batch; a teacher of the step supervises the mixing."""
        network = step.network if step.teacher is None else step.teacher.network
        mixing = outside(self.draw, network, *step[1:4])
        return self.compare(step, mixing, mixing.predict(step.network, step.inputs))

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> MaskedSets:
        """Draw sets and weights, and search for the masks with the teacher or, if there is none, the network."""
        return self._search(network, inputs, generator)[0]

    def generate(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        *,
        num_classes: int,
        count: int = 500_000,
        generator: Generator | None = None,
    ) -> Iterator[MixedSet]:
        """Yield mixed sets to store, only those that the teacher sees as it should: one lot for each mini-batch.

        Args:
            batches: Mini-batches of images with class indices or probabilities, endless or as many as there are.
            num_classes: How many classes there are, k.
            count: Most sets in all.
            generator: Source of randomness.

        Raises:
            ValueError: If there is no teacher, or ``count`` is below 1.
        """
        if self.teacher is None:
            raise ValueError("teacher must be given to generate mixed sets: SuperMix(teacher)")
        check(Count, count=count)
        lots = (self._lot(inputs, targets, num_classes, generator) for inputs, targets in batches)
        return _first(count, lots)

    @torch.no_grad()
    def _lot(self, inputs: Tensor, targets: Tensor, num_classes: int, generator: Generator | None) -> MixedSet:
        self.check(inputs, targets)
        supervisor = cast("nn.Module", self.teacher)
        sets, wanted = self._search(None, inputs, generator)
        images = sets.mix(inputs.to(precision_of(supervisor, inputs)))
        with evaluating(supervisor), no_autocast(inputs.device.type):
            kept = solved(supervisor(images), wanted)
        mixed = sets.mix_targets(as_probabilities(targets, num_classes))
        return MixedSet(images[kept].to(inputs.dtype), mixed[kept], masks_of(sets.values, *inputs.shape[-2:])[kept])

    @torch.no_grad()
    def _search(
        self, network: Network | None, inputs: Tensor, generator: Generator | None
    ) -> tuple[MaskedSets, Tensor]:
        """Return the sets with their masks, and the class distributions that these are for."""
        supervisor = cast("nn.Module", network if self.teacher is None else self.teacher)
        b, inputs = len(inputs), inputs.detach()
        order = draw_partners(b, generator=generator, device=inputs.device)
        members = torch.empty(self.images, b, dtype=order.dtype, device=inputs.device)
        for j in range(self.images):  # neighbours in a circle: no image meets itself in a set that the batch can fill
            members[j, order] = order.roll(-j)
        weights = dirichlet(b, self.images, self.alpha, generator=generator, device=inputs.device)
        even = torch.zeros(b, self.images, self.side, self.side, device=inputs.device, dtype=accurate(inputs[:0]).dtype)
        sets = MaskedSets(members, weights, even)
        images = inputs.to(precision_of(supervisor, inputs))  # which autocast alone would have made up for
        with evaluating(supervisor), no_autocast(inputs.device.type):
            logits = supervisor(images)
            if logits.ndim != 2 or len(logits) != b:
                raise ValueError(f"teacher must return logits of shape ({b}, k), got {tuple(logits.shape)}")
            wanted = sets.mix_targets(one_hot(logits.argmax(1), logits.shape[1]).to(weights.dtype))
            return MaskedSets(members, weights, self.solve(supervisor, images, sets, wanted)), wanted

    @torch.no_grad()
    def solve(self, supervisor: Callable[[Tensor], Tensor], images: Tensor, sets: MaskedSets, wanted: Tensor) -> Tensor:
        """Return values of masks for which the supervisor sees the wanted classes (b, k), from those given on."""
        values, active = sets.values.clone(), torch.arange(len(images), device=images.device)
        for step in range(self.iterations):
            current = values[active].requires_grad_()
            with torch.enable_grad():
                masks = masks_of(current, *images.shape[-2:])
                mixed = compose(images, sets.members[:, active], masks)
                logits = accurate(supervisor(not_alone(mixed))[: len(mixed)])
                losses = objective(logits, wanted[active], masks, self.sparsity)
                (gradient,) = torch.autograd.grad(losses.sum(), current)
            # Along the smoothed gradient, to where the linearised objective is zero; bounds of the official code.
            smooth = blur(gradient, self.sigma)
            slope = (gradient * smooth).sum((1, 2, 3))
            length = (losses.detach().to(slope.dtype).abs() / (slope + 1e-10)).clamp(1e-4, 2000.0)
            moved = current.detach() - length[:, None, None, None] * smooth
            # Even masks would solve many a set; the official code takes one step before it looks.
            unsolved = ~solved(logits.detach(), wanted[active]) if step else torch.ones_like(active, dtype=torch.bool)
            active, moved = active[unsolved], moved[unsolved]
            if len(active) <= (self.tolerance * len(images) if step else 0):
                break
            values[active] = moved
        return values


def _first(count: int, lots: Iterator[MixedSet]) -> Iterator[MixedSet]:
    for lot in lots:
        if len(lot.images):
            yield MixedSet(*(part[:count] for part in lot))
        count -= len(lot.images)
        if count <= 0:
            return


def masks_of(values: Float[Tensor, "b m s s"], height: int, width: int) -> Float[Tensor, "b m h w"]:
    """Return values upsampled bilinearly, through a sigmoid, over their sum over the members of a set."""
    eye = torch.eye(values.shape[-1], device=values.device, dtype=values.dtype)[None]
    with no_autocast(values.device.type):
        # by products with matrices, which, unlike torch's own upsampling, repeat on a GPU
        down, across = (interpolate(eye, size, mode="linear")[0].mT for size in (height, width))
        masks = (down @ values @ across.mT).sigmoid()
        return masks / masks.sum(1, keepdim=True)


def compose(images: Tensor, members: Int[Tensor, "m b"], masks: Float[Tensor, "b m h w"]) -> Tensor:
    """Return the sum of each set's images under their masks."""
    shown = zip(masks.to(images.dtype).split(1, 1), members, strict=True)
    return cast("Tensor", sum(mask * images[member] for mask, member in shown))


def objective(
    logits: Float[Tensor, "b k"], wanted: Float[Tensor, "b k"], masks: Float[Tensor, "b m h w"], sparsity: float
) -> Float[Tensor, " b"]:
    """Return, for each set, KL(wanted || prediction) + sparsity * mean |m (m - 1)|."""
    wanted = wanted.to(logits.dtype)
    divergence = (torch.xlogy(wanted, wanted) - wanted * logits.log_softmax(1)).sum(1)
    return divergence + sparsity * (masks * (1 - masks)).mean((1, 2, 3))


def solved(logits: Float[Tensor, "b k"], wanted: Float[Tensor, "b k"]) -> Bool[Tensor, " b"]:
    """Return whether the q wanted classes are the q most likely ones, whatever their order."""
    among = wanted > 0
    least = logits.masked_fill(~among, torch.inf).amin(1)
    return least > logits.masked_fill(among, -torch.inf).amax(1)


def blur(values: Float[Tensor, "b m s s"], sigma: float) -> Float[Tensor, "b m s s"]:
    """Return values smoothed by a Gaussian that is cut off at two and a half standard deviations, zeros outside."""
    s = values.shape[-1]
    where = torch.arange(s, device=values.device, dtype=values.dtype)
    reach = int(5 * sigma) // 2
    if reach == 0:
        return values
    taps = torch.arange(-reach, reach + 1, device=values.device, dtype=values.dtype)
    total = (-(taps**2) / (2 * sigma**2)).exp().sum()
    apart = (where[:, None] - where).abs()
    weights = (-(apart**2) / (2 * sigma**2)).exp().masked_fill(apart > reach, 0) / total
    with no_autocast(values.device.type):
        return weights @ values @ weights.mT


def precision_of(network: object, inputs: Tensor) -> torch.dtype:
    """Return the dtype of a network's parameters, or of the inputs if it has none."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((p.dtype for p in parameters if p.is_floating_point()), inputs.dtype)
