"""MultiMix."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Self

from multimix.methods._tuples import Encoded, TupleMethod
from multimix.protocols import Network, encode, pool


@dataclass(frozen=True)
class MultiMix(TupleMethod):
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

    def encode(self, network: Network, inputs: Any) -> Encoded:
        """Return the pooled embeddings, (b, d), which are interpolated and, with ``clean``, classified as they are."""
        output = encode(network, inputs)
        embeddings = pool(network, output)
        return Encoded(embeddings, embeddings if self.clean > 0 else None, output.grid)

    def attend(self, network: Network, own: Encoded, targets: Tensor) -> None:
        """Return nothing: pooled embeddings have no positions."""
