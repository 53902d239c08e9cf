"""Between a model's own feature tensor and positions (b, r, d)."""

from dataclasses import dataclass
from math import isqrt, prod

from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self


@dataclass(frozen=True)
class Layout:
    """Where a feature tensor keeps its channels, and the grid that its positions come from.

    A map (b, d, h, w) or (b, h, w, d) has the grid (h, w), tokens (b, r, d) have (r,), a vector (b, d) has ().
    """

    grid: tuple[int, ...]
    channels_first: bool

    @classmethod
    def of(cls, raw: Tensor, width: int | None) -> Self:
        """Return the layout of features that have ``width`` channels, where that is known.

        Maps are channels first and tokens channels last unless only the other axis has that width.
        """
        usual, other = (1, -1) if raw.ndim >= 4 else (-1, 1)
        axis = other if raw.shape[usual] != width and raw.shape[other] == width else usual
        channels_first = axis == 1 and raw.ndim > 2
        grid = raw.shape[2:] if channels_first else raw.shape[1:-1]
        return cls(tuple(grid), channels_first)

    @property
    def positions(self) -> int:
        """How many positions the grid has."""
        return prod(self.grid)

    def flatten(self, raw: Tensor) -> Float[Tensor, "b r d"]:
        """Return features of this layout as positions, row by row."""
        if not self.grid:
            return raw.unsqueeze(1)
        return raw.flatten(2).transpose(1, 2) if self.channels_first else raw.flatten(1, -2)

    def restore(self, features: Float[Tensor, "b r d"]) -> Tensor:
        """Return positions as features of this layout, with the strides that they had."""
        if not self.grid:
            return features.squeeze(1)
        return (
            features.transpose(1, 2).unflatten(2, self.grid)
            if self.channels_first
            else features.unflatten(1, self.grid)
        )

    def resized(self, positions: int) -> Self:
        """Return the layout of another number of positions: any for tokens, a single or a square number for maps.

        Raises:
            ValueError: If no grid of this kind has so many positions.
        """
        axes = len(self.grid)
        side = isqrt(positions)
        if positions == 1:
            grid: tuple[int, ...] = (1,) * axes
        elif axes == 1:
            grid = (positions,)
        elif axes == 2 and side * side == positions:
            grid = (side, side)
        else:
            raise ValueError(
                f"features must have as many positions as embed gave, {self.positions} on a grid {self.grid}, or one; "
                f"got {positions}"
            )
        return type(self)(grid, self.channels_first)
