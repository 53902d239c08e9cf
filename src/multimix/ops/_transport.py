"""Entropic optimal transport: plans between uniform marginals, and barycentres of images by a separable kernel."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from multimix._declared import Count, Positive
from multimix.ops._checks import NotNegative, accurate, check, looks_are_free, no_autocast, widest

_SHORTEST, _LONGEST = 4, 8  # iterations on one exponential of the potentials, or between looks at a device that waits
_SAFE = 20.0  # most that a logarithm of a scaling may grow in a chunk: what underflowed is still nothing after it
_REACH = {torch.float32: 60.0, torch.float64: 650.0}
"""How far the logarithm of a kernel may fall before what is left of sums that it weighs leaves the range of a dtype."""
_CHUNK = {"cpu": 2**18}  # numbers that a product in logarithms forms at a time: what stays in a cache; 2^24 elsewhere
_NOTHING = -1e30  # the logarithm of no mass: below any other, but finite, so that differences and gradients are numbers

_State = tuple[Tensor, Tensor, int, bool]  # both potentials over epsilon, iterations done, and whether they rest


@torch.no_grad()
def sinkhorn(
    cost: Float[Tensor, "*pairs r s"], epsilon: float = 0.1, *, iterations: int = 100, tolerance: float = 0.0
) -> Float[Tensor, "*pairs r s"]:
    """Return the plans of least ``<plan, cost> - epsilon * entropy(plan)`` with uniform marginals, without gradient.

    Sinkhorn's iteration on the potentials: columns of a plan sum to 1 / s, its rows to 1 / r as far as it converged.

    Args:
        cost: Of moving from each of r positions to each of s; half precision is worked on in float32.
        epsilon: Weight of the entropy, in units of the cost.
        iterations: Most of them, each an update of both sides.
        tolerance: Stop once the first potential, in units of the cost, changes by less, in absolute value, summed over
            its r positions and averaged over all pairs, so that a plan depends a little on the pairs beside it. Looked
            at after every iteration on a CPU and every 4 to 8 elsewhere, where a look waits. 0 never stops.

    Raises:
        ValueError: If ``epsilon`` or ``iterations`` is not positive, ``tolerance`` is negative or a side is empty.

    Reference:
        Cuturi, "Sinkhorn distances: lightspeed computation of optimal transport", NeurIPS 2013; stabilised by
        absorption as in Schmitzer, "Stabilized sparse scaling algorithms", SIAM J. Sci. Comput. 2019, section 3.1.
    """
    if cost.ndim < 2 or 0 in cost.shape:
        raise ValueError(f"cost must have shape (..., r, s), none of them 0, got {tuple(cost.shape)}")
    check(Positive, epsilon=epsilon)
    check(Count, iterations=iterations)
    check(NotNegative, tolerance=tolerance)
    with no_autocast(cost.device.type):
        logs = -accurate(cost).reshape(-1, *cost.shape[-2:]) / epsilon

        def rests(change: Tensor) -> bool:
            return tolerance > 0 and epsilon * float(torch.linalg.vector_norm(change, 1)) < tolerance * len(change)

        f, g = logs.new_zeros(logs.shape[:2]), logs.new_zeros(logs.shape[0], logs.shape[2])
        chunk = _SHORTEST
        f, g, done, rested = _in_logarithms(logs, f, g, 1, rests)
        while done < iterations and not rested:
            steps = min(chunk, iterations - done)
            state = _in_scalings(logs, f, g, steps, rests)
            chunk = _SHORTEST if state is None else min(2 * chunk, _LONGEST)  # the first potentials move furthest
            f, g, more, rested = state or _in_logarithms(logs, f, g, min(steps, _SHORTEST), rests)
            done += more
        return (logs + f.unsqueeze(2) + g.unsqueeze(1)).exp_().reshape(cost.shape)


def _in_logarithms(logs: Tensor, f: Tensor, g: Tensor, steps: int, rests: Callable[[Tensor], bool]) -> _State:
    """Iterate whatever the potentials are."""
    r, s = logs.shape[1:]
    often = looks_are_free(logs)
    for step in range(1, steps + 1):
        before = f
        f = -(logs + g.unsqueeze(1)).logsumexp(2) - math.log(r)
        g = -(logs + f.unsqueeze(2)).logsumexp(1) - math.log(s)
        if (often or step == steps) and rests(f - before):
            return f, g, step, True
    return f, g, steps, False


def _in_scalings(logs: Tensor, f: Tensor, g: Tensor, steps: int, rests: Callable[[Tensor], bool]) -> _State | None:
    """Iterate on factors of a plan's rows and columns, in a fifth of the time; None if they leave float32's range."""
    plan = logs + f.unsqueeze(2) + g.unsqueeze(1)
    least = math.log(torch.finfo(plan.dtype).tiny) + _SAFE  # products stay clear of subnormal numbers, which are slow
    plan = torch.threshold_(plan, least, -math.inf).exp_()
    r, s = plan.shape[1:]
    rows, columns = plan.new_ones(len(plan), r, 1), plan.new_ones(len(plan), s, 1)
    often, back = looks_are_free(plan), (s * plan.mT).contiguous()
    plan = plan.mul_(r)
    done, rested = 0, False
    while done < steps and not rested:
        before = rows
        rows = (plan @ columns).reciprocal_()
        columns = (back @ rows).reciprocal_()
        done += 1
        rested = (often or done == steps) and rests((rows / before).log_().squeeze(2))
    grown = torch.cat([rows, columns], 1).log_().squeeze(2)
    if not bool(grown.abs().amax() < _SAFE):  # NaN lands here too
        return None
    by_row, by_column = grown.split([r, s], 1)
    return f + by_row, g + by_column, done, rested


class _Kernel(NamedTuple):
    """The logarithms of a kernel along one axis of an image, and how far they fall from 0."""

    logs: Tensor
    reach: float


def barycentre(
    masses: Float[Tensor, "*n m h w"], weights: Float[Tensor, "*n m"], *, epsilon: float, iterations: int
) -> Float[Tensor, "*n h w"]:
    r"""Return the entropic Wasserstein barycentre of m images for each weight vector, normalised to sum 1.

    .. math::
        \arg\min_q \sum_i \lambda_i W_\epsilon(q, p_i), \qquad
        W_\epsilon(q, p) = \min_{P 1 = q,\, P^\top 1 = p} \langle P, C\rangle + \epsilon \sum P (\log P - 1)

    with :math:`C` the squared Euclidean distance, the longer side of the image being 1 from the centre of its first
    pixel to that of its last. The kernel :math:`K = e^{-C / \epsilon}` is the product of one along each axis, so that
    an iteration, :math:`u_i = p_i / K v_i`, :math:`\log q = \sum_i \lambda_i \log K u_i`, :math:`v_i = q / K u_i`, is
    four small matrix products an image; below an epsilon of about 0.003 for a square image, where these fall out of
    float64, it is slower, by sums in logarithms, but right for any epsilon. Differentiable in the masses.

    Of a single image, or a weight of 1, it returns that image blurred by a Gaussian of variance ``epsilon / 2``; this
    is what entropy costs.

    Args:
        masses: Images without negative values, each with some mass. Each is normalised to sum 1.
        weights: Of each image in the barycentre, on the simplex.
        epsilon: Strength of the entropy; smaller is sharper and needs more iterations.
        iterations: How many; there is no early stop.

    Reference:
        Solomon et al., "Convolutional Wasserstein distances: efficient optimal transportation on geometric domains",
        ACM Transactions on Graphics 34(4), 2015, algorithm 2; iterative Bregman projections of Benamou et al., 2015.
    """
    height, width = masses.shape[-2:]
    unit = max(height - 1, width - 1, 1) ** 2 * epsilon
    reach = ((height - 1) ** 2 + (width - 1) ** 2) / unit  # of both axes together
    with no_autocast(masses.device.type):  # which would take these products in half precision
        shares = accurate(masses)
        if reach > _REACH[torch.float32]:
            shares = shares.to(widest(shares.device))
        shares = shares / shares.sum((-2, -1), keepdim=True)
        weights = weights.to(shares.dtype)[..., None, None]
        solve = _scalings if reach <= _REACH[shares.dtype] else _logarithms
        kernels = []
        for size in (height, width):
            place = torch.arange(size, dtype=shares.dtype, device=shares.device)
            kernels.append(_Kernel(-(place - place.unsqueeze(1)).square_() / unit, (size - 1) ** 2 / unit))
        logs = solve(shares, weights, kernels[0], kernels[1], iterations)
        return logs.flatten(-2).softmax(-1).view_as(logs).to(accurate(masses).dtype)


def _scalings(shares: Tensor, weights: Tensor, down: _Kernel, across: _Kernel, iterations: int) -> Tensor:
    """Return the logarithm of the barycentre up to a number, by scalings whose maximum is 1: products stay in range."""
    rows, columns = across.logs.exp(), down.logs.exp()
    potentials, logs = torch.zeros_like(shares), torch.empty(0)
    for _ in range(iterations):
        scalings = (potentials - _most(potentials)).exp()
        others = shares / (columns @ scalings @ rows)
        heard = (columns @ (others / _most(others)) @ rows).log()
        logs = (weights * heard).sum(-3)
        potentials = logs.unsqueeze(-3) - heard
    return logs


def _logarithms(shares: Tensor, weights: Tensor, down: _Kernel, across: _Kernel, iterations: int) -> Tensor:
    """Return the same by sums in logarithms, for kernels whose values leave the range of the dtype."""
    there = shares > 0
    log_shares = torch.where(there, torch.where(there, shares, 1).log(), _NOTHING)
    potentials, logs = torch.zeros_like(shares), torch.empty(0)
    for _ in range(iterations):
        heard = _convolve(log_shares - _convolve(potentials, down, across), down, across)
        logs = (weights * heard).sum(-3)
        potentials = logs.unsqueeze(-3) - heard
    return logs


def _convolve(logs: Tensor, down: _Kernel, across: _Kernel) -> Tensor:
    """Return the logarithm of the kernel's product with the exponential of ``logs``."""
    return _log_product(_log_product(logs, across).mT, down).mT


def _log_product(logs: Tensor, kernel: _Kernel) -> Tensor:
    """Return the logarithm of ``exp(logs) @ exp(kernel)`` for a symmetric kernel."""
    if kernel.reach <= _REACH[logs.dtype]:
        most = logs.detach().amax(-1, keepdim=True)
        return ((logs - most).exp() @ kernel.logs.exp()).log() + most
    rows = logs.reshape(-1, 1, logs.shape[-1])
    step = max(_CHUNK.get(logs.device.type, 2**24) // kernel.logs.numel(), 1)
    return torch.cat([(part + kernel.logs).logsumexp(-1) for part in rows.split(step)]).view(logs.shape)


def _most(values: Tensor) -> Tensor:
    """Return the largest value of each image, as a number that gets no gradient."""
    return values.detach().amax((-2, -1), keepdim=True)
