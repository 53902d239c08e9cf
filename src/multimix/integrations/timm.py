"""timm's training script with mixing of ours: its mixing function, and its loss function."""

from dataclasses import dataclass, replace
from math import inf
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from multimix._declared import Checked, Fraction, Interval, check
from multimix._optional import require
from multimix.integrations._training import InputMixer, MethodLike
from multimix.integrations.loss import MultiMixLoss
from multimix.methods._images import uniform
from multimix.methods._predict import MixesInputs, PairMixing
from multimix.methods.mixup import draw_sharing
from multimix.ops import (
    BinaryCrossEntropy,
    Boxes,
    CrossEntropy,
    Mode,
    Objective,
    beta,
    mix_pairs,
    objective_of,
    paste_boxes,
)
from multimix.protocols import Network

__all__ = ["MultiMixLoss", "TimmMixup"]

require("timm", by=__name__)


Alpha = Annotated[float, Interval(ge=0, lt=inf)]


@dataclass(frozen=True)
class _Switching(Checked, MixesInputs):
    """Input mixup and CutMix as timm's ``Mixup`` mixes them, for a step, a pair or an example by ``mode``."""

    name: ClassVar[str] = "timm-mixup"

    mixup_alpha: Alpha = 1.0
    cutmix_alpha: Alpha = 0.0
    cutmix_minmax: tuple[Fraction, Fraction] | None = None
    prob: Fraction = 1.0
    switch_prob: Fraction = 0.5
    mode: Mode = "batch"
    correct_lam: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cutmix_minmax is not None and self.cutmix_minmax[0] >= self.cutmix_minmax[1]:
            raise ValueError(f"cutmix_minmax must be (low, high) with low < high, got {self.cutmix_minmax}")
        if not (self.mixup_alpha or self.cuts):
            raise ValueError("mixup_alpha or cutmix_alpha must be above 0, or cutmix_minmax be given, got none of them")

    @property
    def cuts(self) -> bool:
        """Return whether any boxes are pasted."""
        return self.cutmix_alpha > 0 or self.cutmix_minmax is not None

    @property
    def needs_images(self) -> bool:  # type: ignore[override]  # which other methods know before they have settings
        """Return whether inputs have to be images."""
        return self.cuts

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners, lambdas, which of them are areas of boxes, and boxes."""
        partners, shared, n = draw_sharing(len(inputs), self.mode, inputs, generator)
        given: dict[str, Any] = {"generator": generator, "device": inputs.device}
        coins = uniform(2, n, generator=generator, like=inputs)
        plain, cut = coins[0] >= self.prob, coins[1] < (self.switch_prob if self.mixup_alpha else 1.0) * self.cuts
        lam = beta(n, self.mixup_alpha or 1.0, **given)
        if self.cuts:
            alpha = 1.0 if self.cutmix_minmax else self.cutmix_alpha
            lam = torch.where(cut, beta(n, alpha, **given), lam)
        lam = lam.masked_fill(plain, 1.0)
        which = lam.new_zeros(len(inputs), dtype=torch.long) if shared is None and n == 1 else shared
        if not self.cuts:
            return PairMixing(partners, lam if which is None else lam[which])
        boxes = self._boxes(inputs.shape[-2:], lam, generator)
        if self.correct_lam or self.cutmix_minmax:
            lam = torch.where(cut, 1 - boxes.area / inputs[0, 0].numel(), lam)
        if which is not None:
            lam, cut, boxes = lam[which], cut[which], Boxes(*(corner[:, which] for corner in boxes))
        return PairMixing(partners, lam, _mixed_or_pasted, own=lam, cut=cut, boxes=boxes)

    def _boxes(self, size: tuple[int, ...], lam: Tensor, generator: Generator | None) -> Boxes:
        """Return a box for each lambda, none where that is 1: its centre is in the image, of minmax all of it is."""
        sides = lam.new_tensor(size).unsqueeze(1)
        places = uniform(2, len(lam), generator=generator, like=lam)
        if self.cutmix_minmax is None:
            box, centres = (sides * (1 - lam).sqrt()).floor(), (places * sides).floor()
            start, end = centres - (box / 2).floor(), centres + (box / 2).ceil()
            return Boxes(start.clamp(min=0), torch.minimum(end, sides))
        low, high = ((sides.double() * share).floor() for share in self.cutmix_minmax)
        if bool((low >= high).any()):
            raise ValueError(
                f"cutmix_minmax must leave boxes in images of {tuple(size)} pixels to choose from, got"
                f" {self.cutmix_minmax}"
            )
        box = low + (uniform(2, len(lam), generator=generator, like=lam) * (high - low)).floor()
        box = (box * (lam < 1)).to(lam.dtype)
        start = (places * (sides - box + 1)).floor()
        return Boxes(start, start + box)


def _mixed_or_pasted(images: Tensor, partners: Tensor, own: Tensor, cut: Tensor, boxes: Boxes) -> Tensor:
    pasted = paste_boxes(images, partners, boxes)
    return torch.where(cut.view(-1, 1, 1, 1), pasted, mix_pairs(images, partners, own))


class TimmMixup:
    """What timm's ``Mixup`` is to its training script, with timm's arguments or any method here that mixes inputs.

    ``TimmMixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=10)`` mixes as timm's does, from its default values on,
    in its order where arguments have no names: ``TimmMixup(0.8, 1.0)``. Partners are drawn, where timm's are the
    mini-batch backwards, and mini-batches may be odd. As timm's, lambda weighs the first example of a pair.

    Attributes:
        mixup_enabled: Set it to False, as the script does late in training, and only labels are smoothed.
        mixup_prob: Probability of mixing a mini-batch; timm calls it ``mix_prob``, which works too.
        label_smoothing: Share of a label that is spread over all classes; of each of several labels, that becomes 1/2.

    Args:
        method: A method that mixes inputs, the name of one, or an ``Alternate`` of such; None, and a number, which is
            ``mixup_alpha``, for input mixup and CutMix by timm's arguments.
        cutmix_alpha: As timm has it, 0 by default; likewise ``mixup_alpha`` (1), ``cutmix_minmax`` (None),
            ``switch_prob`` (0.5), ``mode`` ("batch") and ``correct_lam`` (True). They do not go with a method.
        prob: Probability of mixing a mini-batch; by timm's arguments, a pair or an example where ``mode`` says so.
        label_smoothing: As timm has it; likewise ``num_classes``, of which None takes targets (b, k) as they are, and
            ``multi_label``, which is ``objective=BinaryCrossEntropy()``.
        objective: What kind of targets they are, as :meth:`multimix.Mixup.mix` has it: ``BinaryCrossEntropy()`` for
            several labels an example.
        seed: Of the mixing; None for torch's own seed, which timm's script sets for each rank.
        network: For the methods whose mixing depends on it, such as ``PuzzleMix``.

    Raises:
        TypeError: If the method does not mix inputs.
        ValueError: If a setting is impossible, or contradicts another.
    """

    def __init__(
        self,
        method: MethodLike | float = None,
        cutmix_alpha: float | None = None,
        cutmix_minmax: tuple[float, float] | None = None,
        prob: float = 1.0,
        switch_prob: float | None = None,
        mode: Mode | None = None,
        correct_lam: bool | None = None,  # noqa: FBT001 (timm's own signature)
        label_smoothing: float = 0.1,
        num_classes: int | None = 1000,
        multi_label: bool = False,  # noqa: FBT001, FBT002
        *,
        mixup_alpha: float | None = None,
        objective: Objective | None = None,
        seed: int | None = None,
        network: Network | None = None,
    ) -> None:
        check(Fraction, prob=prob, label_smoothing=label_smoothing)
        if isinstance(method, (int, float)) and mixup_alpha is None:
            method, mixup_alpha = None, method
        given = {
            "mixup_alpha": mixup_alpha,
            "cutmix_alpha": cutmix_alpha,
            "cutmix_minmax": cutmix_minmax,
            "switch_prob": switch_prob,
            "mode": mode,
            "correct_lam": correct_lam,
        }
        timms: Any = {name: value for name, value in given.items() if value is not None}
        if timms and method is not None:
            raise ValueError(f"method must be left out beside {', '.join(timms)}, got {method!r}: both say what to mix")
        if multi_label and not isinstance(objective, (BinaryCrossEntropy, type(None))):
            raise ValueError(f"multi_label=True contradicts objective {objective!r}")
        objective = BinaryCrossEntropy() if multi_label and objective is None else objective
        chosen: Any = _Switching(**timms, prob=prob) if timms else method
        self._mixer = InputMixer(chosen, num_classes, objective=objective, seed=seed, network=network)
        self.mixup_prob, self.label_smoothing, self.mixup_enabled = prob, label_smoothing, True

    @property
    def num_classes(self) -> int | None:
        """Return how many classes there are, k."""
        return self._mixer.num_classes

    @property
    def mix_prob(self) -> float:
        """Return ``mixup_prob`` by timm's name."""
        return self.mixup_prob

    @mix_prob.setter
    def mix_prob(self, value: float) -> None:
        self.mixup_prob = value

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Float[Tensor, "b k"]]:
        """Return mixed images and soft targets; what is given is left as it was, and the first example's is lambda.

        Args:
            images: A mini-batch of any size, odd ones included, floating-point.
            targets: Class indices (b,), or probabilities (b, k); as the objective has them, if it is given.

        Raises:
            ValueError: If labels are to be smoothed, and targets are values.
        """
        share, mixer = self.mixup_prob if self.mixup_enabled else 0.0, self._mixer
        if isinstance(mixer.method, _Switching):  # which has a probability of each pair or example
            mixer.method, share = replace(mixer.method, prob=share), 1.0
        images, rows = mixer(images, targets, share=share)
        return images, self._smoothed(rows)

    def _smoothed(self, rows: Tensor) -> Tensor:
        share, objective = self.label_smoothing, self._mixer.objective or objective_of(self._mixer.network)
        if not share:
            return rows
        if isinstance(objective, BinaryCrossEntropy):
            return (1 - share) * rows + share / 2
        if not isinstance(objective, CrossEntropy):
            raise ValueError(f"label_smoothing must be 0 for {objective!r}, whose targets are no labels, got {share}")
        whole = 1 if objective.ignore_index is None else rows.sum(1, keepdim=True)
        return (1 - share) * rows + share * whole / rows.shape[1]
