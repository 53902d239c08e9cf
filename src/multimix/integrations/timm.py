"""timm's training script with mixing of ours: its mixing function, and its loss function."""

from jaxtyping import Float
from torch import Tensor

from multimix._declared import Fraction, check
from multimix._optional import require
from multimix.integrations._training import InputMixer, MethodLike
from multimix.integrations.loss import MultiMixLoss
from multimix.ops import BinaryCrossEntropy, CrossEntropy, Objective, objective_of
from multimix.protocols import Network

__all__ = ["MultiMixLoss", "TimmMixup"]

require("timm", by=__name__)


class TimmMixup:
    """What timm's ``Mixup`` is to its training script, for every method here that mixes inputs.

    Attributes:
        mixup_enabled: Set it to False, as the script does late in training, and only labels are smoothed.
        mixup_prob: Probability of mixing a mini-batch; timm calls it ``mix_prob``, which works too.
        label_smoothing: Share of a label that is spread over all classes; of each of several labels, that becomes 1/2.

    Args:
        method: A method that mixes inputs, the name of one, or an ``Alternate`` of such; None for ``Mixup()``.
        prob: Probability of mixing a mini-batch.
        label_smoothing: As timm has it; likewise ``num_classes``, of which None takes targets (b, k) as they are.
        objective: What kind of targets they are, as :meth:`multimix.Mixup.mix` has it: ``BinaryCrossEntropy()`` for
            several labels an example.
        seed: Of the mixing; None for torch's own seed, which timm's script sets for each rank.
        network: For the methods whose mixing depends on it, such as ``PuzzleMix``.

    Raises:
        TypeError: If the method does not mix inputs.
        ValueError: If a setting is impossible.
    """

    def __init__(
        self,
        method: MethodLike = None,
        *,
        prob: float = 1.0,
        label_smoothing: float = 0.1,
        num_classes: int | None = 1000,
        objective: Objective | None = None,
        seed: int | None = None,
        network: Network | None = None,
    ) -> None:
        self._mixer = InputMixer(method, num_classes, objective=objective, seed=seed, network=network)
        check(Fraction, prob=prob, label_smoothing=label_smoothing)
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
        images, rows = self._mixer(images, targets, share=self.mixup_prob if self.mixup_enabled else 0.0)
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
