"""Dense MultiMix."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, cast

from torch import Generator, Tensor

from multimix.methods._predict import begin
from multimix.methods._tuple_loss import Embedded, Taught, keep_clean, tuple_losses
from multimix.methods._tuples import TupleSettings
from multimix.ops import attention, check_examples, objective_of
from multimix.protocols import Losses, Network, Teacher, encode, pool, require_part


@dataclass(frozen=True)
class DenseMultiMix(TupleSettings):
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

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        for name, value, known in (
            ("query", self.query, ("gap", "cam", "uniform")),
            ("activation", self.activation, ("relu", "softmax")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")

    def __call__(
        self,
        network: Network,
        inputs: Any,
        targets: Tensor,
        *,
        generator: Generator | None = None,
        teacher: Teacher | None = None,
    ) -> Losses:
        """Return the mean loss of the interpolated tuples at every position.

        Targets are those of the examples or, for a network that has no pooling, of every position: (b, r), (b, h, w).
        """
        targets = begin(network, targets, generator)
        check_examples(inputs, targets)
        embed = partial(_at_every_position, settings=self)
        student, pooled = embed(network, inputs)
        taught = Taught.of(teacher, embed)
        sets = None if self.shared else student.embeddings.shape[1]
        own = objective_of(network).is_map(targets)  # a label of its own needs no confidence
        theirs = targets[:, student.held] if own and student.held is not None else targets
        weights = self.weights(student.examples(), like=student.embeddings, generator=generator, sets=sets)
        losses = tuple_losses(
            student,
            theirs,
            weights,
            attention=None if own else self.attend(student, targets),
            taught=taught,
            balanced=self.gain_power,
            impl=self.impl,
        )
        return keep_clean(losses, self.clean, pooled, targets, taught)

    def attend(self, student: Embedded, targets: Tensor) -> Tensor:
        """Return the attention of every image over its positions, (b, r).

        Raises:
            ValueError: If ``query`` is ``cam`` and the network has no affine head to take class weights from.
        """
        features = student.embeddings.detach() if self.detach else student.embeddings
        weights = _class_weights(student.network, targets) if self.query == "cam" else None
        if weights is not None and self.detach:
            weights = weights.detach()
        return attention(
            features, query=self.query, activation=self.activation, class_weights=weights, mask=student.mask
        )


def _at_every_position(network: Network, inputs: Any, *, settings: DenseMultiMix) -> tuple[Embedded, Embedded | None]:
    """Return embeddings at every position, (b, r, d), and if wanted those of whole images, (b, d).

    Each position is pooled by itself, so that it is in the space that the classifier knows.
    """
    require_part(network, "positions")
    output = encode(network, inputs)
    clean = Embedded(network, pool(network, output), grid=output.grid) if settings.clean > 0 else None
    features, mask, held = _present(output.features, output.mask)
    alone = replace(output, features=features, mask=mask).each_position()
    positions = pool(network, alone).reshape(*features.shape[:2], -1)
    return Embedded(network, positions, settings.confidence, settings.balanced, mask, held, output.grid), clean


def _present(features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the positions that some example has, which has which, and which these are; None where all have all."""
    if mask is None or bool(mask.all()):
        return features, None, None
    held = mask.any(0)
    return features[:, held], mask[:, held], held


def _class_weights(network: Network, targets: Tensor) -> Tensor:
    if network.head is None:
        raise ValueError("query='cam' needs a network with an affine head, whose weights are the class queries")
    weight = cast("Tensor", network.head.weight).flatten(1)
    return objective_of(network).targets(targets, len(weight), dtype=weight.dtype) @ weight
