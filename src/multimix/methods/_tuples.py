"""Interpolation vectors of a mini-batch, as MultiMix and Dense MultiMix draw them."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from multimix._declared import check_fields
from multimix.ops import IMPLS, Impl, LazyWeights, check_concentration, dirichlet, draw_between, scatter_tuples

DEFAULT_EFFECTIVE = 2.0
"""Images that effectively enter a tuple unless told otherwise; the paper's alpha in (0.5, 2) at m = 128 means 43 to
86."""


Spread = Literal["uniform", "log-uniform"]


@dataclass(frozen=True)
class TupleSettings:
    """How tuples are drawn, and what their gradient is scaled to."""

    tuples: int = 1000
    """Interpolated tuples a step, n."""
    tuple_length: int | None = None
    """Random examples that enter a tuple, m; None means the whole mini-batch."""
    alpha: float | tuple[float, float] | None = None
    """Concentration of the symmetric Dirichlet distribution, or a range from which each tuple draws its own."""
    effective: float | tuple[float, float] | None = None
    """Instead of alpha: examples that effectively enter a tuple, (1 + m alpha) / (1 + alpha), or a range. 2.0 if
    neither is given."""
    balanced: bool = False
    """Rescale the batch-centred gradient on the clean logits to the size it has in plain training."""
    balance_power: float = 1.0
    """Power of the gain that ``balanced`` rescales with: 1 restores all that interpolation takes, 0.5 half of it in
    orders of magnitude. The gain multiplies sampling noise too, which falls with n."""
    confidence: float | None = None
    """Probability of its label that a training example tends to in the limit of many images a tuple, by the scale of
    the logits; None leaves the scale as it is, by which the logits of k classes tend to be k apart."""
    spread: Spread = "uniform"
    """How each tuple draws its own concentration from a range of alpha or effective."""
    clean: float = 0.0
    """Weight of the plain cross-entropy on the clean mini-batch, which costs no second pass; tuples weigh the rest."""
    impl: Impl = "auto"
    """How the loss is computed, as :func:`multimix.ops.mixed_cross_entropy` has it; it changes nothing but speed."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        _check_count("tuples", self.tuples)
        if self.tuple_length is not None:
            _check_count("tuple_length", self.tuple_length)
        if self.alpha is not None and self.effective is not None:
            raise ValueError(
                f"give alpha or effective, not both, got alpha={self.alpha} and effective={self.effective}"
            )
        if self.alpha is not None:
            check_concentration("alpha", self.alpha)
        if self.effective is not None:
            check_concentration("effective", self.effective, above=1.0)
        check_fields(self)
        if self.spread not in get_args(Spread):
            raise ValueError(f"spread must be one of {', '.join(get_args(Spread))}, got {self.spread!r}")
        for name in ("balance_power", "clean"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {self.confidence}")
        if self.impl not in IMPLS:
            raise ValueError(f"impl must be one of {', '.join(IMPLS)}, got {self.impl!r}")

    @property
    def gain_power(self) -> float:
        """Return the power of the gain in force, 0 where the gradient is not balanced."""
        return self.balance_power if self.balanced else 0.0

    def weights(
        self, b: int, *, like: Tensor, generator: Generator | None = None, sets: int | None = None
    ) -> LazyWeights:
        """Return the weights of a step over a mini-batch of b, drawn by the loss: one set, or ``sets`` of them."""
        return LazyWeights(self.tuples, partial(self.draw_weights, b, like=like.detach(), generator=generator), sets)

    def draw_weights(
        self, b: int, rows: int | None = None, *, like: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Return interpolation vectors over a mini-batch of b, where ``like`` lies: (rows, b), n rows if not said.

        A tuple is no longer than the mini-batch, and in one of no more than ``effective`` images the weights are drawn
        from the flat distribution, alpha = 1.
        """
        m = min(self.tuple_length or b, b)
        alpha = self._concentrations(self.tuples if rows is None else rows, m, generator, like.device)
        weights = dirichlet(len(alpha), m, alpha, generator=generator, device=like.device)
        return weights if m == b else scatter_tuples(weights, b, generator=generator)

    def _concentrations(self, n: int, m: int, generator: Generator | None, device: torch.device) -> Tensor:
        draw = partial(_draw, spread=self.spread, n=n, generator=generator, device=device)
        if self.alpha is not None:
            return draw(self.alpha)
        effective = draw(DEFAULT_EFFECTIVE if self.effective is None else self.effective)
        return torch.where(effective < m, (effective - 1) / (m - effective).clamp_min(1e-6), 1.0)


def _draw(
    values: float | tuple[float, float], *, spread: Spread, n: int, generator: Generator | None, device: torch.device
) -> Tensor:
    if spread == "uniform" or isinstance(values, float | int):
        return draw_between(values, n, generator=generator, device=device)
    low, high = (math.log(value) for value in values)
    return draw_between((low, high), n, generator=generator, device=device).exp()


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
