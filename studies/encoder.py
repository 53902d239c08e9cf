"""What reaches the encoder where training over-fits: tuples before a non-linearity, a teacher, the paper's own methods.

With an affine head, MultiMix at the last layer is a loss. These studies have what may do more: interpolation with
non-linear layers above it, a moving-average teacher, and the published methods in longer training. Nothing is tuned
here but what a question names; seeds 0 to 7 have training images of their own, and are tested once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from multimix.distill import SelfDistilled
from multimix.lab.recipes import Study, arms, cifar10_small, digits_few
from multimix.lab.train import SGD, Step, TrainConfig
from multimix.methods import ERM, AlignMix, ManifoldMixup, Mixup, MultiMix
from multimix.names import dense_multimix_paper, multimix_paper
from multimix.ops import interpolate, soft_cross_entropy
from multimix.protocols import Losses, Method, Network

PAPER: Mapping[str, Method] = {
    "erm": ERM(),
    "mixup": Mixup(),
    "manifold-mixup": ManifoldMixup(),
    "alignmix": AlignMix(),
    "multimix-paper": multimix_paper(),
    "dense-multimix-paper": dense_multimix_paper(),
}
"""The paper's own methods, and what it compares them with."""


@dataclass(frozen=True)
class StageTuples:
    """Interpolate Dirichlet tuples of the feature maps that leave a stage, and go on with those through the rest."""

    name: ClassVar[str] = "stage-tuples"

    stages: tuple[int, ...] = (4,)
    """Where: one of these, drawn at every step; 4 is the last group, with a norm and a ReLU above it."""
    times: int = 1
    """Tuples for each example of the mini-batch."""
    effective: float = 1.5
    """Examples that effectively enter a tuple."""
    tuple_length: int | None = None
    """Examples that enter a tuple; None for the whole mini-batch."""

    def __call__(
        self, network: Network, inputs: Tensor, targets: Tensor, *, generator: Generator | None = None, **_: object
    ) -> Losses:
        """Return the cross-entropy of the tuples."""
        b = len(inputs)
        draw = MultiMix(tuples=self.times * b, effective=self.effective, tuple_length=self.tuple_length, balanced=False)
        weights = draw.draw_weights(b, like=inputs, generator=generator)
        stage = self.stages[int(torch.randint(len(self.stages), (), generator=generator))]
        with network.mixing_at(stage, lambda features: interpolate(weights, features)):
            logits = network(inputs)
        return Losses(soft_cross_entropy(logits, weights @ F.one_hot(targets, logits.shape[1]).to(weights)))


def inside_digits() -> Study:
    """Before a non-linearity, on 200 digits: do tuples at a stage do what tuples at the last layer cannot?

    Success: an arm of tuples at a stage above MultiMix as a loss alone and above manifold mixup, the paired 95 %
    interval above 0 against both.
    """
    forms: dict[str, Method | Iterable[Method]] = {
        "erm": ERM(),
        "manifold-mixup": ManifoldMixup(alpha=0.2),
        "multimix": MultiMix(balanced=False),
        "last-stage": StageTuples(),
        "last-stage-4b": StageTuples(times=4),
        "any-stage": StageTuples(stages=(0, 1, 2, 3, 4)),
        "any-stage-2": StageTuples(stages=(0, 1, 2, 3, 4), effective=2.0),
    }
    return _study(inside_digits, "inside-digits", arms(digits_few(), forms))


def teacher_digits() -> Study:
    """A teacher, on 200 digits for 300 epochs: does self-distillation add to the method that the student trains with?

    Success: an arm with a teacher above the same one without, the paired 95 % interval above 0. The momentum that is
    the default becomes 0.99 if that is above 0.999 in the mean.
    """
    forms: dict[str, Method | Iterable[Method]] = {
        "erm": ERM(),
        "mixup": Mixup(alpha=0.5),
        "multimix": MultiMix(balanced=False),
        "distilled-erm": SelfDistilled(ERM(), momentum=0.99),
        "distilled-mixup": SelfDistilled(Mixup(alpha=0.5), momentum=0.99),
        "distilled-mixup-0.8": SelfDistilled(Mixup(alpha=0.5), momentum=0.99, gamma=0.8),
        "distilled-multimix": SelfDistilled(MultiMix(balanced=False), momentum=0.99),
        "distilled-multimix-0.999": SelfDistilled(MultiMix(balanced=False)),
    }
    base = replace(digits_few(), epochs=300, validate_every=300, ema=0.99)
    return _study(teacher_digits, "teacher-digits", arms(base, forms))


def paper_digits() -> Study:
    """The paper's own methods, on 200 digits for 400 epochs with its schedule and weight decay: is its order seen?

    Success: dense-multimix-paper above multimix-paper above AlignMix above the other two, in the mean.
    """
    base = replace(
        digits_few(),
        final_norm=False,
        optimizer=SGD(learning_rate=0.1, weight_decay=1e-4),
        schedule=Step(milestones=(0.25, 0.5, 0.75)),
        epochs=400,
        validate_every=5,
    )
    return _study(paper_digits, "paper-digits", arms(base, PAPER))


def paper_photos() -> Study:
    """The paper's own methods, on 2,000 photographs for 400 epochs with its schedule and decay: is its order seen?

    Images of CIFAR-10 at half their size, so that eight seeds fit an hour of two cores. The validation split is looked
    at every 20 epochs, the test set at the last one. Success: dense-multimix-paper above multimix-paper above AlignMix
    above the other two, in the mean, at the last epoch and at the best one.
    """
    base = replace(
        cifar10_small(),
        train_size=2000,
        split_seed=None,
        image_size=16,
        crop_padding=2,
        width=8,
        final_norm=False,
        optimizer=SGD(learning_rate=0.1, weight_decay=1e-4),
        schedule=Step(milestones=(0.25, 0.5, 0.75)),
        epochs=400,
        validate_every=20,
    )
    return _study(paper_photos, "paper-photos", arms(base, PAPER))


def _study(about: Callable[[], Study], name: str, chosen: dict[str, tuple[TrainConfig, ...]]) -> Study:
    return Study(name=name, question=" ".join((about.__doc__ or "").split()), arms=chosen, seeds=8)
