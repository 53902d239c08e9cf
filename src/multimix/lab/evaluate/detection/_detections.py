"""What a detector says of an image."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Detections"]


@dataclass(frozen=True)
class Detections:
    """The objects that a detector sees in one image."""

    boxes: Float[Tensor, "detections 4"]
    """Left, top, right, bottom in pixels."""
    scores: Float[Tensor, " detections"]
    """How sure it is, higher for surer."""
    labels: Int[Tensor, " detections"]
    """Classes, from 1."""
