"""Interpolation weights that are drawn when they are needed and forgotten right after."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from multimix.ops._arguments import check_sizes


@dataclass(frozen=True)
class LazyWeights:
    """As many interpolation vectors as you like, none of them in memory: a loss draws them a chunk at a time.

    Each loss draws anew. How many are drawn at a time depends on the sizes of the problem and on the kind of device
    only, so that a generator in the same state gives the same weights.

    Example:
        >>> weights = LazyWeights(1_000_000, lambda rows: dirichlet(rows, 128, 0.5, generator=generator))
        >>> loss = mixed_cross_entropy(logits, targets, weights)
    """

    n: int
    """Vectors a set."""
    draw: Callable[[int], Tensor]
    """Called with a number of vectors, returns that many as rows, (rows, b)."""
    sets: int | None = None
    """One set for each of so many positions, or one that all positions share."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        check_sizes(n=self.n)
        if self.sets is not None:
            check_sizes(sets=self.sets)

    def all(self) -> Tensor:
        """Return all of them after all: (n, b), or (sets, n, b)."""
        if self.sets is None:
            return self.draw(self.n)
        return self.draw(self.sets * self.n).unflatten(0, (self.sets, self.n))
