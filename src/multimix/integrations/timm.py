"""timm's training script with mixing of ours: its mixing function, and its loss function."""

from jaxtyping import Float
from torch import Tensor

from multimix._declared import Fraction, check
from multimix._optional import require
from multimix.integrations._training import InputMixer, MethodLike, smooth
from multimix.integrations.loss import MultiMixLoss
from multimix.protocols import Network

__all__ = ["MultiMixLoss", "TimmMixup"]

require("timm", by=__name__)


class TimmMixup:
    """What timm's ``Mixup`` is to its training script, for every method here that mixes inputs.

    Attributes:
        mixup_enabled: Set it to False, as the script does late in training, and only labels are smoothed.
        mixup_prob: Probability of mixing a mini-batch; timm calls it ``mix_prob``, which works too.
        label_smoothing: Share of a label that is spread over all classes.
        num_classes: How many classes there are, k.

    Args:
        method: A method that mixes inputs, the name of one, or an ``Alternate`` of such; None for ``Mixup()``.
        prob: Probability of mixing a mini-batch.
        label_smoothing: As timm has it; likewise ``num_classes``.
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
        num_classes: int = 1000,
        seed: int | None = None,
        network: Network | None = None,
    ) -> None:
        self._mixer = InputMixer(method, num_classes, seed=seed, network=network)
        check(Fraction, prob=prob, label_smoothing=label_smoothing)
        self.mixup_prob, self.label_smoothing, self.num_classes = prob, label_smoothing, num_classes
        self.mixup_enabled = True

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
            targets: Class indices (b,), or probabilities (b, k).
        """
        images, soft = self._mixer(images, targets, share=self.mixup_prob if self.mixup_enabled else 0.0)
        return images, smooth(soft, self.label_smoothing)
