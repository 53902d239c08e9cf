"""Interpolation: weights, drawn from a symmetric Dirichlet distribution, and convex combinations."""

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from multimix._declared import Count, Interval
from multimix.ops._checks import (
    Device,
    Natural,
    Options,
    check,
    check_dtype,
    check_floating,
    check_shape,
    check_weights,
    home_of,
    looks_are_free,
)

Concentration = float | tuple[float, float]

_DOUBTFUL = 127
_LOOKED_AT = 8  # rows of weights that somebody else draws
_UNDERFLOWS = 0.25  # concentration below which U^(1 / alpha) leaves the range of float32, U being at least 2^-26


def check_concentration(name: str, value: Concentration, *, above: float = 0.0) -> None:
    """Raise TypeError or ValueError unless ``value`` is a finite number over ``above``, or a range of two of them."""
    if torch.compiler.is_compiling():
        return
    check(_concentration(above), **{name: value})
    if isinstance(value, (tuple, list)) and (len(value) != 2 or value[0] > value[1]):
        raise ValueError(f"{name} must be a range (low, high) with low <= high, got {value!r}")


@cache
def _concentration(above: float) -> object:
    number = Annotated[float, Interval(gt=above, lt=math.inf)]
    return number | tuple[number, ...]


@dataclass(frozen=True)
class LazyWeights(Options):
    """As many interpolation vectors as you like, none of them in memory: each loss draws them anew, a chunk at a time.

    How many are drawn at a time depends on the sizes of the problem and on the kind of device only, so that a generator
    in the same state gives the same weights.

    Example:
        >>> weights = LazyWeights(1_000_000, lambda rows: dirichlet(rows, 128, 0.5, generator=generator))
        >>> loss = mixed_cross_entropy(logits, targets, weights)
    """

    n: Count
    """Vectors a set."""
    draw: Callable[[int], Tensor]
    """Called with a number of vectors, returns that many as rows, (rows, b)."""
    sets: Count | None = None
    """One set for each of so many positions, or one that all positions share."""

    def __post_init__(self) -> None:
        """Refuse what the annotations rule out, and what cannot be called."""
        super().__post_init__()
        if not (torch.compiler.is_compiling() or callable(self.draw)):  # of which torch 2.4 knows nothing in a graph
            raise TypeError(f"draw must be a function of a number of rows, got {self.draw!r}")

    def all(self, b: int | str = "b") -> Tensor:
        """Return all of them after all: (n, b), or (sets, n, b)."""
        if self.sets is None:
            return self.rows(self.n, b)
        return self.rows(self.sets * self.n, b).unflatten(0, (self.sets, self.n))

    def rows(self, count: int, b: int | str = "b") -> Tensor:
        """Return so many vectors over b examples that are drawn now, (count, b), the first few of them checked."""
        drawn = self.draw(count)
        check_shape(f"weights.draw({count})", drawn, count, b)
        check_weights(drawn[:_LOOKED_AT])
        return drawn


def alpha_for(effective: float, m: int) -> float:
    """Return the concentration at which ``effective`` of m examples enter a tuple.

    The inverse of ``effective = (1 + m alpha) / (1 + alpha)``, one over the expected sum of the squared weights.

    Raises:
        ValueError: Unless ``1 < effective < m``.
        TypeError: If either is no number.
    """
    check(float, effective=effective, m=m)
    if not 1 < effective < m:
        raise ValueError(f"effective must lie strictly between 1 and m = {m}, got {effective}")
    return (effective - 1) / (m - effective)


def draw_between(
    bounds: Concentration, n: int, *, generator: Generator | None = None, device: Device = None
) -> Float[Tensor, " n"]:
    """Return n numbers drawn uniformly from ``bounds``, a range, or n copies of it if it is a number.

    Raises:
        ValueError: If the bounds are not finite, or the range is no range.
        TypeError: If an argument is of another type.
    """
    check(Natural, n=n)
    check_concentration("bounds", bounds, above=-math.inf)
    device = home_of(generator, device)
    if not isinstance(bounds, (tuple, list)):
        return torch.full((n,), float(bounds), device=device)
    low, high = bounds
    return torch.rand(n, generator=generator, device=device) * (high - low) + low


def dirichlet(
    n: int,
    m: int,
    alpha: Concentration | Tensor,
    *,
    generator: Generator | None = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "n m"]:
    r"""Return n interpolation vectors over m examples, each drawn from a symmetric Dirichlet distribution.

    A low concentration is drawn by breaking a stick: pieces :math:`V_i \prod_{j<i} (1 - V_j)`, :math:`V_i` of
    Beta(1, :math:`m \alpha`), each for an example at random, until what is left is less than rounding, on average, and
    goes to the last; smaller weights are 0. Else the vectors are variates of the gamma distribution, normalised; where
    these would underflow, a softmax of their logarithms, :math:`\log \mathrm{Gamma}(\alpha + 1) + \log(U) / \alpha`.

    Args:
        n: How many vectors.
        m: How many examples each one weighs.
        alpha: The concentration: a number, a range (low, high) from which every vector draws its own uniformly, or
            each one's own (n,).
        generator: Source of randomness, torch's global one by default; the draw takes place on its device.
        device: Where the result goes, the generator's device by default.
        dtype: Of the result, float32 by default; lower precisions are drawn in float32.

    Raises:
        ValueError: If n or m is below 1, or ``alpha`` is not positive and finite.
        TypeError: If an argument is of another type, or ``dtype`` not floating-point.

    Reference:
        Venkataramanan et al., "Teach me how to interpolate a myriad of embeddings", section 3.2. Sethuraman, "A
        constructive definition of Dirichlet priors", Statistica Sinica 1994, for a base measure of m equal atoms.
    """
    check(Count, n=n, m=m)
    home = home_of(generator, device)
    if dtype is not None:
        check_dtype(dtype)
    drawn = torch.float64 if dtype == torch.float64 else torch.float32
    if isinstance(alpha, Tensor):
        check_shape("alpha", alpha, n)
        if looks_are_free(alpha) and len(wrong := alpha[~(alpha.isfinite() & (alpha > 0))]):
            raise ValueError(f"alpha must be above 0 and finite, got a tensor with {float(wrong[0]):.4g}")
        most = float(alpha.amax()) if looks_are_free(alpha) else math.inf
    else:
        check_concentration("alpha", alpha)
        most = max(alpha) if isinstance(alpha, (tuple, list)) else alpha
        alpha = draw_between(alpha, n, generator=generator, device=device)
    alpha, pieces = alpha.to(home, drawn).unsqueeze(1), _pieces(m * most, drawn)
    rows = _sticks(alpha, m, pieces, generator) if pieces < m else _dirichlet(alpha, m, generator)
    return rows.to(device=device, dtype=dtype or drawn)


def beta(
    n: int, alpha: float | Tensor, *, generator: Generator | None = None, device: Device = None
) -> Float[Tensor, " n"]:
    """Return n numbers drawn from the symmetric distribution Beta(alpha, alpha), one alpha for all or each its own."""
    if isinstance(alpha, Tensor):
        return dirichlet(n, 2, alpha, generator=generator, device=device)[:, 0]
    check(Natural, n=n)
    home = home_of(generator, device)
    check_concentration("alpha", alpha)
    if alpha == 1:  # the default of most methods, and uniform
        return torch.rand(n, generator=generator, device=home).to(device)
    concentrations = draw_between(alpha, n, generator=generator, device=device).unsqueeze(1)
    logs = _log_gamma(concentrations, (n, 2), generator)  # for so few numbers the least work, on any device
    return torch.sigmoid(logs[:, 0] - logs[:, 1]).to(device)


def scatter_tuples(
    weights: Float[Tensor, "n m"], b: int, *, generator: Generator | None = None
) -> Float[Tensor, "n b"]:
    """Return weights over a mini-batch of b, each row's m weights on m examples chosen at random without repetition.

    Raises:
        ValueError: If m exceeds b, or the weights leave the simplex.
        TypeError: If the weights are not floating-point.
    """
    check(Count, b=b)
    check_shape("weights", weights, "n", "m")
    check_weights(weights)
    home = home_of(generator, weights.device)
    n, m = weights.shape
    if m > b:
        raise ValueError(f"tuple_length must not exceed the mini-batch of {b}, got {m}")
    chosen = torch.rand(n, b, generator=generator, device=home).topk(m).indices
    return weights.new_zeros(n, b).scatter_(1, chosen.to(weights.device), weights)


def interpolate(weights: Float[Tensor, "n m"], values: Float[Tensor, " m *rest"]) -> Float[Tensor, " n *rest"]:
    """Return n convex combinations of m embeddings, images, targets or anything else.

    Equals ``torch.stack([sum(w[i] * values[i] for i in range(m)) for w in weights])``: equations (6) and (7) of the
    paper, with examples as rows.

    Raises:
        ValueError: If the weights do not have one column a value, or leave the simplex.
        TypeError: If the weights or the values are not floating-point.
    """
    check_floating("values", values)  # of integers, the product would be cut to such, mostly 0
    if values.ndim == 0:
        raise ValueError("values must have one row for each weight, got a single number")
    check_shape("weights", weights, "n", len(values))
    check_weights(weights)
    mixed = weights.to(values.dtype) @ values.reshape(len(values), -1)
    return mixed.reshape(len(weights), *values.shape[1:])


def zeta_weights(
    b: int, gamma: float, *, generator: Generator | None = None, device: Device = None
) -> Float[Tensor, "b b"]:
    r"""Return weights whose row i is :math:`1, 2^{-\gamma}, \dots, b^{-\gamma}`, normalised, over b examples.

    The largest weight of row i is that of example i; every order of the others is as likely.

    Reference:
        Abhishek et al., "Multi-sample zeta-mixup: richer, more realistic synthetic samples from a p-series
        interpolant", Journal of Big Data 2024.
    """
    check(Count, b=b)
    check(float, gamma=gamma)
    home = home_of(generator, device)
    columns, bits = torch.arange(b, device=home), int(b - 1).bit_length()
    drawn = torch.randint(2 ** (62 - bits), (b, b), generator=generator, device=home)
    keys = drawn.bitwise_left_shift_(bits).bitwise_or_(columns)
    keys.diagonal().copy_(columns - 2**bits)
    ranked = _in_order(keys).bitwise_and_(2**bits - 1)
    series = torch.arange(1, b + 1, dtype=torch.float32, device=home).pow_(-gamma)
    rows = (series / series.sum()).expand(b, b)
    return torch.empty_like(ranked, dtype=rows.dtype).scatter_(1, ranked, rows).to(device)


def _in_order(rows: Int[Tensor, "n m"]) -> Int[Tensor, "n m"]:
    """Return the rows, sorted in place: on a CPU by numpy if it is there, several times as fast as torch."""
    if looks_are_free(rows):
        with suppress(RuntimeError):
            rows.numpy().sort()
            return rows
    return rows.sort().values


def _pieces(theta: float, dtype: torch.dtype) -> int:
    """Return into how many pieces a stick is broken, each Beta(1, theta) of the rest, so that nothing is left."""
    left = theta / (1 + theta)  # of the rest, on average, after each piece
    return max(2, math.ceil(math.log(torch.finfo(dtype).eps / 64) / math.log(left))) if left < 1 else sys.maxsize


def _sticks(alpha: Tensor, m: int, pieces: int, generator: Generator | None) -> Tensor:
    """Return one vector over m examples for each concentration (n, 1), none above what ``pieces`` is made for.

    Vectors are columns in memory, which is how the fused loss takes them.
    """
    n, size = len(alpha), (pieces, len(alpha))
    logs = _log_uniform(size, alpha, generator).div_(alpha.T * m)
    rest = logs.cumsum(0).exp_()  # what each piece leaves
    sizes = logs.expm1_().neg_()
    sizes[1:].mul_(rest[:-1])
    sizes[-1] = rest[-2]
    atoms = torch.randint(m, size, generator=generator, device=alpha.device)
    if alpha.device.type == "cpu":
        return alpha.new_zeros(m, n).scatter_add_(0, atoms, sizes).T
    # Elsewhere additions come in any order, which does not matter to integers.
    scale = 2.0**52
    whole = torch.zeros(m, n, dtype=torch.int64, device=alpha.device)
    return whole.scatter_add_(0, atoms, sizes.double().mul_(scale).long()).double().div_(scale).to(alpha.dtype).T


def _dirichlet(alpha: Tensor, m: int, generator: Generator | None) -> Tensor:
    """Return one vector over m examples for each concentration (n, 1): Gamma(alpha, 1) variates, normalised."""
    size = (len(alpha), m)
    if not looks_are_free(alpha):
        return _log_gamma(alpha, size, generator).softmax(1)
    low = (alpha < 1)[:, 0].nonzero()[:, 0]  # where a variate is one of alpha + 1 times U^(1 / alpha)
    variates = _gamma(alpha.index_add(0, low, torch.ones_like(alpha[low])), size, generator)
    powers = _log_uniform((len(low), m), alpha, generator).div_(alpha[low])
    if alpha.amin() < _UNDERFLOWS:
        return variates.log_().index_add_(0, low, powers).softmax(1)
    variates.index_copy_(0, low, powers.exp_().mul_(variates.index_select(0, low)))
    return variates.div_(variates.sum(1, keepdim=True))


def _log_gamma(alpha: Tensor, size: tuple[int, int], generator: Generator | None) -> Tensor:
    """Return logarithms of Gamma(alpha, 1) variates for alpha (n, 1), finite however small it is."""
    logs = torch._standard_gamma((alpha + 1).expand(size).contiguous(), generator=generator).log_()
    return logs.add_(_log_uniform(size, alpha, generator).div_(alpha))


def _log_uniform(size: tuple[int, ...], like: Tensor, generator: Generator | None) -> Tensor:
    """Return logarithms of numbers in (0, 1]."""
    least = torch.finfo(like.dtype).eps / 4
    return torch.empty(size, dtype=like.dtype, device=like.device).uniform_(least, 1, generator=generator).log_()


def _gamma(alpha: Tensor, size: tuple[int, int], generator: Generator | None) -> Tensor:
    """Return Gamma(alpha, 1) variates for alpha (n, 1) of at least 1.

    By the exact rejection of Marsaglia and Tsang, "A simple method for generating gamma variables", 2000, all at once.
    A squeeze decides nearly all by 8 bits of a uniform number; torch's sampler, slow on a CPU, draws what is refused.
    """
    d = alpha - 1 / 3
    y = torch.randn(size, generator=generator, dtype=alpha.dtype).mul_((9 * d).rsqrt())
    count = size[0] * size[1]
    drawn = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    bits = drawn.view(torch.int8)[:count].view(size)  # -128 to 127
    doubt = _doubt(y, d, bits)
    doubtful = (doubt >= _DOUBTFUL).view(-1).nonzero()[:, 0]
    row = doubtful.div(size[1], rounding_mode="floor")
    rest = torch.rand(len(doubtful), generator=generator, dtype=y.dtype)
    uniform = rest.add_(bits.view(-1)[doubtful]).add_(128).div_(2**8)
    refused = _refused(y.view(-1)[doubtful], d[row, 0], uniform)
    root = y.add_(1)
    variates = torch.square(root, out=doubt).mul_(root).mul_(d)  # in memory that is there already
    again = torch._standard_gamma(alpha[row[refused], 0], generator=generator)
    variates.view(-1).index_copy_(0, doubtful[refused], again)
    return variates


def _doubt(y: Tensor, d: Tensor, bits: Tensor) -> Tensor:
    """Return a number that is below ``_DOUBTFUL`` only where every uniform number with these bits accepts."""
    # It is below (bits + 129) / 2^8, and u < 1 - (1/2 + 1.05 d) y^4 accepts: tighter than the article's squeeze.
    return y.square().square_().mul_((0.5 + 1.05 * d).mul_(2**8)).add_(bits)


def _refused(y: Tensor, d: Tensor, uniform: Tensor) -> Tensor:
    """Return whether the candidate d (1 + y)^3 is refused; the normal number was y times the root of 9 d."""
    log_root = y.log1p()  # not a number where y < -1, which refuses
    bound = (1.5 - y).mul_(y).sub_(3).mul_(y).add_(log_root, alpha=3).mul_(d)
    return ~(uniform.log_() < bound)
