"""Interpolation weights: points of the simplex, drawn from a symmetric Dirichlet distribution."""

import math
from numbers import Real

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Concentration = float | tuple[float, float]


def check_concentration(name: str, value: Concentration, *, above: float = 0.0) -> None:
    """Raise unless ``value`` is a finite number over ``above``, or a range (low, high) of such numbers.

    Raises:
        TypeError: If it is neither a number nor a pair of numbers.
        ValueError: If a number is not finite, not over ``above``, or low exceeds high.
    """
    ends = value if isinstance(value, (tuple, list)) else (value,)
    if not all(isinstance(end, Real) and not isinstance(end, bool) for end in ends) or len(ends) not in (1, 2):
        raise TypeError(f"{name} must be a number or a range (low, high), got {value!r}")
    if not all(math.isfinite(end) and end > above for end in ends):
        raise ValueError(f"{name} must be finite and greater than {above:g}, got {value!r}")
    if ends[0] > ends[-1]:
        raise ValueError(f"{name} must be a range (low, high) with low <= high, got {value!r}")


def alpha_for(effective: float, m: int) -> float:
    """Return the concentration at which ``effective`` of m examples enter a tuple.

    The inverse of ``effective = (1 + m alpha) / (1 + alpha)``, one over the expected sum of the squared weights.

    Raises:
        ValueError: Unless ``1 < effective < m``.
    """
    if not 1 < effective < m:
        raise ValueError(f"effective must lie strictly between 1 and m = {m}, got {effective}")
    return (effective - 1) / (m - effective)


def draw_between(
    bounds: Concentration, n: int, *, generator: Generator | None = None, device: torch.device | str | None = None
) -> Float[Tensor, " n"]:
    """Return n numbers drawn uniformly from ``bounds``, a range, or n copies of it if it is a number."""
    device = _home(generator, device)
    if isinstance(bounds, (tuple, list)):
        low, high = bounds
        return torch.rand(n, generator=generator, device=device) * (high - low) + low
    return torch.full((n,), float(bounds), device=device)


def dirichlet(
    n: int,
    m: int,
    alpha: Concentration | Tensor,
    *,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "n m"]:
    r"""Return n interpolation vectors over m examples, each drawn from a symmetric Dirichlet distribution.

    The vectors are a softmax of log-gamma variates, :math:`\log \mathrm{Gamma}(\alpha + 1) + \log(U) / \alpha`, so that
    no row underflows at any concentration.

    Args:
        n: How many vectors.
        m: How many examples each one weighs.
        alpha: The concentration: a number; a range (low, high) from which every vector draws its own uniformly; or a
            tensor (n,) with the concentration of each vector.
        generator: Source of randomness, torch's global one by default; the draw takes place on its device.
        device: Where the result goes, the generator's device by default.
        dtype: Of the result, float32 by default; lower precisions are drawn in float32.

    Raises:
        ValueError: If n or m is below 1, or ``alpha`` is not positive and finite.

    Reference:
        Venkataramanan et al., "Teach me how to interpolate a myriad of embeddings", section 3.2.
    """
    for name, size in (("n", n), ("m", m)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    drawn = torch.float64 if dtype == torch.float64 else torch.float32
    if isinstance(alpha, Tensor):
        _check_concentrations(alpha, n)
    else:
        check_concentration("alpha", alpha)
        alpha = draw_between(alpha, n, generator=generator, device=device)
    alpha = alpha.to(_home(generator, device), drawn)
    weights = _log_gamma(alpha.unsqueeze(1), (n, m), generator).softmax(1)
    return weights.to(device=device, dtype=dtype or drawn)


def beta(
    n: int, alpha: float, *, generator: Generator | None = None, device: torch.device | str | None = None
) -> Float[Tensor, " n"]:
    """Return n numbers drawn from the symmetric distribution Beta(alpha, alpha)."""
    return dirichlet(n, 2, alpha, generator=generator, device=device)[:, 0]


def scatter_tuples(
    weights: Float[Tensor, "n m"], b: int, *, generator: Generator | None = None
) -> Float[Tensor, "n b"]:
    """Return weights over a mini-batch of b, each row's m weights on m examples chosen at random without repetition.

    Raises:
        ValueError: If m exceeds b.
    """
    n, m = weights.shape
    if m > b:
        raise ValueError(f"tuple_length must not exceed the mini-batch of {b}, got {m}")
    chosen = torch.rand(n, b, generator=generator, device=_home(generator, weights.device)).topk(m).indices
    return weights.new_zeros(n, b).scatter_(1, chosen.to(weights.device), weights)


def _check_concentrations(alpha: Tensor, n: int) -> None:
    if alpha.shape != (n,):
        raise ValueError(f"alpha must be a number, a range or a tensor of shape ({n},), got shape {tuple(alpha.shape)}")
    if alpha.device.type == "cpu":  # elsewhere the look would wait for the device
        wrong = alpha[~(alpha.isfinite() & (alpha > 0))]
        if len(wrong):
            raise ValueError(f"alpha must be finite and greater than 0, got a tensor with {float(wrong[0]):.4g}")


def _home(generator: Generator | None, device: torch.device | str | None) -> torch.device | str | None:
    """A generator draws on its own device only."""
    return device if generator is None else generator.device


def _log_gamma(alpha: Tensor, size: tuple[int, ...], generator: Generator | None) -> Tensor:
    """Return logarithms of Gamma(alpha, 1) variates, finite even where the variates themselves underflow."""
    draw = _log_gamma_from_normals if alpha.device.type == "cpu" else _log_gamma_by_torch
    boosted = draw(alpha + 1, size, generator)
    power = torch.empty(size, device=alpha.device, dtype=alpha.dtype).exponential_(generator=generator)
    return boosted.sub_(power.div_(alpha))


def _log_gamma_by_torch(alpha: Tensor, size: tuple[int, ...], generator: Generator | None) -> Tensor:
    return torch._standard_gamma(alpha.expand(size).contiguous(), generator=generator).log_()


def _log_gamma_from_normals(alpha: Tensor, size: tuple[int, ...], generator: Generator | None) -> Tensor:
    """Return logarithms of Gamma(alpha, 1) variates for alpha of at least 1, all at once.

    Marsaglia and Tsang's exact rejection, "A simple method for generating gamma variables" (2000). torch's own sampler
    takes one variate after the other on a CPU.
    """
    d = alpha - 1 / 3
    log_d = d.log()
    normal = torch.randn(size, generator=generator, dtype=alpha.dtype)
    uniform = torch.rand(size, generator=generator, dtype=alpha.dtype)
    root = normal.mul((9 * d).rsqrt()).add_(1)
    logs = root.clamp_min(torch.finfo(alpha.dtype).tiny).log_().mul_(3).add_(log_d)
    doubtful = (normal.square().square_().mul_(0.0331).add_(uniform) >= 1).nonzero(as_tuple=True)
    d, log_d, normal = d.expand(size)[doubtful], log_d.expand(size)[doubtful], normal[doubtful]
    log_cube = logs[doubtful] - log_d
    bound = normal.square() / 2 + d * (1 - log_cube.exp() + log_cube)
    refused = (uniform[doubtful].log() >= bound) | (root[doubtful] <= 0)
    if refused.any():
        again = tuple(index[refused] for index in doubtful)
        logs[again] = _log_gamma_from_normals(alpha.expand(size)[again], tuple(again[0].shape), generator)
    return logs
