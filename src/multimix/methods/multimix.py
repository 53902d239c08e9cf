"""MultiMix."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Generator, Tensor
from typing_extensions import Self

from multimix.methods._predict import begin
from multimix.methods._tuple_loss import Embedded, Taught, keep_clean, tuple_losses
from multimix.methods._tuples import TupleSettings
from multimix.ops import check_examples
from multimix.protocols import Losses, Network, Teacher


@dataclass(frozen=True)
class MultiMix(TupleSettings):
    """Interpolate n tuples of the whole mini-batch's embeddings, right before the classifier.

    The paper's own setting is ``MultiMix(alpha=(0.5, 2.0))``, half of the steps being input mixup instead:
    ``Alternate((MultiMix(alpha=(0.5, 2.0)), Mixup(alpha=2.0)), (0.5, 0.5))``. The defaults differ: a tuple of the
    published concentration averages 43 to 86 images of a mini-batch of 128, which leaves the network little gradient.

    With an affine head nothing of size n x d is formed (:func:`multimix.ops.mixed_cross_entropy`); with any other head
    the embeddings are interpolated and classified as the equations say, and ``balanced`` acts on the gradient of the
    embeddings.

    Reference:
        Venkataramanan et al., "Teach me how to interpolate a myriad of embeddings", arXiv 2206.14868, equations (6) to
        (9).
    """

    name: ClassVar[str] = "multimix"

    @classmethod
    def recommended(cls) -> Self:
        """Return the form to start with: published tuples, balanced, half of the loss clean, a confidence of 0.9.

        Source: the study ``cifar10-small-forms``, whose trials prefer it to five other forms of ours.
        """
        return cls(alpha=(0.5, 2.0), tuples=4000, balanced=True, clean=0.5, confidence=0.9)

    def __call__(
        self,
        network: Network,
        inputs: Any,
        targets: Tensor,
        *,
        generator: Generator | None = None,
        teacher: Teacher | None = None,
    ) -> Losses:
        """Return the mean loss of the interpolated tuples."""
        targets = begin(network, targets, generator)
        check_examples(inputs, targets)
        embed = partial(_embedded, settings=self)
        student, pooled = embed(network, inputs)
        taught = Taught.of(teacher, embed)
        weights = self.weights(student.examples(), like=student.embeddings, generator=generator)
        losses = tuple_losses(student, targets, weights, taught=taught, balanced=self.gain_power, impl=self.impl)
        return keep_clean(losses, self.clean, pooled, targets, taught)


def _embedded(network: Network, inputs: Any, *, settings: MultiMix) -> tuple[Embedded, Embedded | None]:
    """Return what is interpolated and, if wanted, what is classified as it is."""
    embeddings = network.pool(network.embed(inputs))
    clean = Embedded(network, embeddings) if settings.clean > 0 else None
    return Embedded(network, embeddings, settings.confidence, settings.balanced), clean
