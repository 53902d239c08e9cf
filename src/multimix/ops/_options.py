"""The options of mixed losses."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor
from typing_extensions import TypedDict

from multimix._declared import Count, Fraction
from multimix.ops._checks import Options
from multimix.ops._objectives import CROSS_ENTROPY, Objective, check_objective

Impl = Literal["auto", "plain", "commuted", "fused"]
Classifier = Callable[[Tensor], Tensor]


class LossKeywords(TypedDict, total=False):
    """The options of :func:`mixed_cross_entropy` and :func:`dense_mixed_cross_entropy`, which explain them."""

    teacher_logits: Tensor | None
    gamma: float
    balanced: bool | float
    impl: Impl
    chunk: int | None


@dataclass(frozen=True)
class LossOptions(Options):
    """What a mixed loss depends on beside predictions, targets and weights."""

    teacher_logits: Tensor | None = None
    """A teacher's predictions for its view of the mini-batch, in the shape of the student's; they get no gradient."""
    gamma: Fraction = 1.0
    """Weight of the labels against the teacher; without a teacher it has no effect."""
    balanced: bool | Fraction = False
    """Power of the gain by which the centred gradient is rescaled; True is 1."""
    impl: Impl = "auto"
    """How plain cross-entropy is computed."""
    chunk: Count | None = None
    """Tuples that ``fused`` computes at a time; as many as suit the device if None."""
    attention: Tensor | None = None
    """Of each example over its positions, (b, r); where there are positions, uniform by default."""
    mask: Tensor | None = None
    """Which positions an example has, (b, r); all by default."""
    objective: Objective = field(default_factory=lambda: CROSS_ENTROPY)  # as a plain default, none that compiles
    """What predictions are compared with targets by."""
    classify: Classifier | None = None
    """A head that is not affine, (r, n, d) to (r, n, k); the mini-batch is then one of embeddings, to be classified."""
    teach: Classifier | None = None
    """The teacher's head without gradient, for its embeddings in ``teacher_logits``; needed with ``classify``."""

    def __post_init__(self) -> None:
        """Refuse what the annotations rule out, and what is no objective."""
        super().__post_init__()
        check_objective(self.objective)
