"""Dense MultiMix."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

from torch import Tensor

from multimix.methods._tuples import Encoded, TupleMethod
from multimix.ops import attention, objective_of
from multimix.protocols import Network, encode, pool, require_part


@dataclass(frozen=True)
class DenseMultiMix(TupleMethod):
    """Interpolate embeddings at every spatial position, with attention as confidence in the image's label there.

    Every position of every image is classified as if the image were pooled to it alone; a teacher is interpolated with
    the student's weights, attention included. The loss is the mean over tuples and positions.

    Reference:
        Venkataramanan et al., "Embedding space interpolation beyond mini-batch, beyond pairs and beyond examples",
        NeurIPS 2023, arXiv 2311.05538, equations (9) to (14).
    """

    name: ClassVar[str] = "dense-multimix"
    needs_positions: ClassVar[bool] = True

    query: Literal["gap", "cam", "uniform"] = "gap"
    """What attention compares positions with: the pooled embedding, the classifier's weights of the class, or
    nothing."""
    activation: Literal["relu", "softmax"] = "relu"
    """What makes attention positive: ReLU, then l1 normalisation over positions, or a softmax."""
    shared: bool = False
    """One interpolation vector a tuple for all positions, instead of one for each."""
    detach: bool = True
    """Keep the gradient out of the attention."""

    def encode(self, network: Network, inputs: Any) -> Encoded:
        """Return embeddings at every position that some example has, (b, r, d), and those of whole images, (b, d).

        Each position is pooled by itself, so that it is in the space that the classifier knows.
        """
        require_part(network, "positions")
        output = encode(network, inputs)
        clean = pool(network, output) if self.clean > 0 else None
        mask, kept = output.mask, None
        if mask is not None and bool(mask.all()):
            mask = None
        if mask is not None:
            kept = mask.any(0)
            mask = mask[:, kept]
            output = replace(output, features=output.features[:, kept], mask=mask)
        b, r, _ = output.features.shape
        values = pool(network, output.each_position()).reshape(b, r, -1)
        return Encoded(values, clean, output.grid, mask, kept, None if self.shared else r)

    def attend(self, network: Network, own: Encoded, targets: Tensor) -> Tensor | None:
        """Return the attention of every image over its positions, (b, r); None for label maps, which need none.

        Raises:
            ValueError: If ``query`` is ``cam`` and the network has no affine head to take class weights from.
        """
        if objective_of(network).is_map(targets):
            return None
        features, weights = own.values, _class_weights(network, targets) if self.query == "cam" else None
        if self.detach:
            features, weights = features.detach(), None if weights is None else weights.detach()
        return attention(features, query=self.query, activation=self.activation, class_weights=weights, mask=own.mask)


def _class_weights(network: Network, targets: Tensor) -> Tensor:
    if network.head is None:
        raise ValueError("query='cam' needs a network with an affine head, whose weights are the class queries")
    weight = cast("Tensor", network.head.weight).flatten(1)
    return objective_of(network).targets(targets, len(weight), dtype=weight.dtype) @ weight
