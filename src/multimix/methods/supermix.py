"""SuperMix."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot
from typing_extensions import Self

from multimix._declared import check_fields
from multimix._modules import copied
from multimix.methods._images import check_images
from multimix.methods._predict import MixesInputs, begin, classification_losses, wanted_of
from multimix.methods._saliency import evaluating
from multimix.methods._supermix import MaskedSets, Search, Supervisor, precision_of, solved
from multimix.ops import (
    accurate,
    as_probabilities,
    check_batch,
    check_concentration,
    dirichlet,
    draw_partners,
    no_autocast,
    objective_of,
)
from multimix.protocols import Losses, Network, Stateful, Teacher


class MixedSet(NamedTuple):
    """Mixed images that are ready to be stored or trained with."""

    images: Float[Tensor, "n c h w"]
    targets: Float[Tensor, "n k"]
    masks: Float[Tensor, "n m h w"]


@dataclass(eq=False)
class SuperMix(Stateful, MixesInputs):
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
    needs_network: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    # A factory, since a default on the class would hide the module.
    teacher: nn.Module | None = field(default_factory=lambda: None, repr=False)
    """A trained network from images to logits, of which a frozen copy is kept."""
    images: int = 2
    """How many images make up a set; in a smaller mini-batch some of them enter more than once."""
    alpha: float = 3.0
    """Concentration of the Dirichlet distribution."""
    side: int = 8
    """Cells along a side of a mask; 16 for ImageNet."""
    sparsity: float = 25.0
    """Weight lambda_s of the term that wants masks of zeros and ones."""
    sigma: float = 1.0
    """Standard deviation of the smoothing, in cells; 2 for ImageNet."""
    iterations: int = 50
    """Most steps for one mini-batch."""
    tolerance: float = 0.3
    """Share of the sets that may be left unsolved when the search ends early."""

    def __post_init__(self) -> None:
        """Refuse impossible settings, and freeze a copy of the teacher."""
        check_fields(self)
        check_concentration("alpha", self.alpha)
        for name, least in (("images", 2), ("side", 1), ("iterations", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("sparsity", "sigma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if not 0 <= self.tolerance <= 1:
            raise ValueError(f"tolerance must lie in [0, 1], got {self.tolerance}")
        if self.teacher is not None:
            if not isinstance(self.teacher, nn.Module):
                raise TypeError(f"teacher must be a torch module, got {type(self.teacher).__name__}")
            self.teacher = copied(self.teacher).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 (torch's own signature)
        """Leave the teacher in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(
        self,
        network: Network,
        inputs: Tensor,
        targets: Tensor,
        *,
        generator: Generator | None = None,
        teacher: Teacher | None = None,
    ) -> Losses:
        """Return the cross-entropy of the mixed mini-batch against mixed targets and a teacher's predictions."""
        targets = begin(network, targets, generator, called=True)
        check_batch(inputs, targets)
        mixing = self.draw(network if teacher is None else teacher.network, inputs, targets, generator)
        logits = mixing.predict(network, inputs)
        mixed = mixing.mix_targets(wanted_of(network, targets, logits))
        if teacher is None:
            return classification_losses(logits, mixed, None, objective_of(network))
        with torch.no_grad():
            taught = mixing.predict(teacher.network, teacher.inputs)
        return classification_losses(logits, mixed, (taught, teacher.gamma), objective_of(network))

    def mix(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        num_classes: int | None = None,
        network: Network | None = None,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return mixed images and their class probabilities, as every method of images; a teacher needs no network."""
        network = cast("Network | None", self.teacher) if network is None else network
        return super().mix(inputs, targets, num_classes=num_classes, network=network, generator=generator)

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> MaskedSets:
        """Draw sets and weights, and search for the masks with the teacher or, if there is none, the network.

        Raises:
            ValueError: If the inputs are not images (b, c, h, w), or there is neither teacher nor network.
        """
        return self._search(self._supervisor(network), inputs, generator)[0]

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
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        lots = (self._lot(inputs, targets, num_classes, generator) for inputs, targets in batches)
        return _first(count, lots)

    @torch.no_grad()
    def _lot(self, inputs: Tensor, targets: Tensor, num_classes: int, generator: Generator | None) -> MixedSet:
        check_batch(inputs, targets)
        supervisor = self._supervisor(None)
        sets, wanted = self._search(supervisor, inputs, generator)
        images = sets.mix(inputs.to(precision_of(supervisor, inputs)))
        with evaluating(supervisor), no_autocast(inputs.device.type):
            kept = solved(supervisor(images), wanted)
        mixed = sets.mix_targets(as_probabilities(targets, num_classes))
        return MixedSet(images[kept].to(inputs.dtype), mixed[kept], sets.masks(*inputs.shape[-2:])[kept])

    def _supervisor(self, network: Network | None) -> Supervisor:
        supervisor = self.teacher if self.teacher is not None else network
        if supervisor is None:
            raise ValueError("network must be given: SuperMix has no teacher and mixes by what the network sees")
        return supervisor

    @torch.no_grad()
    def _search(self, supervisor: Supervisor, inputs: Tensor, generator: Generator | None) -> tuple[MaskedSets, Tensor]:
        """Return the sets with their masks, and the class distributions that these are for."""
        check_images(inputs, "SuperMix")
        b, inputs = len(inputs), inputs.detach()
        order = draw_partners(b, generator=generator, device=inputs.device)
        members = torch.empty(self.images, b, dtype=order.dtype, device=inputs.device)
        for j in range(self.images):  # neighbours in a circle: no image meets itself in a set that the batch can fill
            members[j, order] = order.roll(-j)
        weights = dirichlet(b, self.images, self.alpha, generator=generator, device=inputs.device)
        even = torch.zeros(b, self.images, self.side, self.side, device=inputs.device, dtype=accurate(inputs[:0]).dtype)
        sets = MaskedSets(members, weights, even)
        search = Search(self.sparsity, self.sigma, self.iterations, self.tolerance)
        images = inputs.to(precision_of(supervisor, inputs))  # which autocast alone would have made up for
        with evaluating(supervisor), no_autocast(inputs.device.type):
            logits = supervisor(images)
            if logits.ndim != 2 or len(logits) != b:
                raise ValueError(f"teacher must return logits of shape ({b}, k), got {tuple(logits.shape)}")
            wanted = sets.mix_targets(one_hot(logits.argmax(1), logits.shape[1]).to(weights.dtype))
            return MaskedSets(members, weights, search.run(supervisor, images, sets, wanted)), wanted


def _first(count: int, lots: Iterator[MixedSet]) -> Iterator[MixedSet]:
    for lot in lots:
        if len(lot.images):
            yield MixedSet(*(part[:count] for part in lot))
        count -= len(lot.images)
        if count <= 0:
            return
