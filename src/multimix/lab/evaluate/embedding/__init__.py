"""What the geometry of a network's embeddings says of its classes."""

from multimix.lab.evaluate.embedding._geometry import (
    ClassDistances,
    alignment,
    class_distances,
    effective_rank,
    normalised,
    uniformity,
)
from multimix.lab.evaluate.embedding._neighbours import nearest, vote
from multimix.lab.evaluate.embedding._pooled import pooled
from multimix.lab.evaluate.embedding.suite import Embedding, EmbeddingSettings

__all__ = [
    "ClassDistances",
    "Embedding",
    "EmbeddingSettings",
    "alignment",
    "class_distances",
    "effective_rank",
    "nearest",
    "normalised",
    "pooled",
    "uniformity",
    "vote",
]
