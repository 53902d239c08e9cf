"""Which images an attack may reach, and in which direction it moves: the l-inf and the l2 ball, cut by [0, 1]."""

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Generator, Size, Tensor


class Ball(Protocol):
    """The images within epsilon of others, each of its own."""

    def __init__(self, centre: Tensor, epsilon: float) -> None:
        """Surround each image of ``centre`` (b, ...), in [0, 1]."""
        ...

    def inside(self, moved: Tensor) -> Tensor:
        """Return the images brought back into the ball and into [0, 1]."""
        ...

    @staticmethod
    def direction(gradient: Tensor) -> Tensor:
        """Return the steps of length 1 that follow each image's gradient farthest; none where there is no gradient."""
        ...

    @staticmethod
    def draw(generator: Generator, shape: Size) -> Tensor:
        """Return a point of the ball of radius 1 around 0, uniformly."""
        ...


class Linf:
    """No pixel of any channel moves farther than epsilon."""

    def __init__(self, centre: Float[Tensor, "b *any"], epsilon: float) -> None:
        self._low, self._high = (centre - epsilon).clamp_(min=0), (centre + epsilon).clamp_(max=1)

    def inside(self, moved: Float[Tensor, "b *any"]) -> Float[Tensor, "b *any"]:
        """Return the nearest images of the ball and [0, 1]."""
        return moved.clamp(self._low, self._high)

    @staticmethod
    def direction(gradient: Float[Tensor, "b *any"]) -> Float[Tensor, "b *any"]:
        """Return the signs."""
        return gradient.sign()

    @staticmethod
    def draw(generator: Generator, shape: Size) -> Float[Tensor, "*any"]:
        """Return numbers from [-1, 1)."""
        return torch.rand(shape, generator=generator) * 2 - 1


class L2:
    """The Euclidean length of an image's change, over all its pixels and channels, is at most epsilon."""

    def __init__(self, centre: Float[Tensor, "b *any"], epsilon: float) -> None:
        self._centre, self._epsilon = centre, epsilon

    def inside(self, moved: Float[Tensor, "b *any"]) -> Float[Tensor, "b *any"]:
        """Return the nearest images of the ball, their pixels then clipped to [0, 1], which only shortens a change."""
        change = moved - self._centre
        shrink = (self._epsilon / _length(change).clamp_(min=_tiny(change))).clamp_(max=1)
        return (self._centre + change * shrink).clamp_(0, 1)

    @staticmethod
    def direction(gradient: Float[Tensor, "b *any"]) -> Float[Tensor, "b *any"]:
        """Return the gradients at length 1."""
        # The largest entry comes first: squares of tiny gradients would be lost.
        largest = gradient.abs().amax(_within(gradient), keepdim=True)
        scaled = gradient / largest.clamp_(min=_tiny(gradient))
        return scaled / _length(scaled).clamp_(min=_tiny(gradient))

    @staticmethod
    def draw(generator: Generator, shape: Size) -> Float[Tensor, "*any"]:
        """Return a normal direction at a length whose distribution makes the volume uniform."""
        normal = torch.randn(shape, generator=generator)
        radius = torch.rand((), generator=generator) ** (1 / max(1, shape.numel()))
        return normal / torch.linalg.vector_norm(normal).clamp_(min=_tiny(normal)) * radius


BALLS: dict[str, type[Ball]] = {"linf": Linf, "l2": L2}
"""The balls by the names of their norms."""


def _within(images: Tensor) -> tuple[int, ...]:
    return tuple(range(1, images.ndim))


def _length(images: Tensor) -> Tensor:
    """Return each image's Euclidean length, (b, 1, ...)."""
    return torch.linalg.vector_norm(images, dim=_within(images), keepdim=True)


def _tiny(images: Tensor) -> float:
    return torch.finfo(images.dtype).tiny
