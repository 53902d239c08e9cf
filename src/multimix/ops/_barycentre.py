"""Entropic Wasserstein barycentres of images, by Sinkhorn iterations whose kernel is separable."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from multimix.ops._checks import accurate, no_autocast, widest

_REACH = {torch.float32: 60.0, torch.float64: 650.0}
"""How far the logarithm of a kernel may fall before what is left of sums that it weighs leaves the range of a dtype."""
_CHUNK = {"cpu": 2**18}
"""Numbers that a product in logarithms forms at a time: what stays in a cache, and 2^24 on other devices."""

_NOTHING = -1e30
"""The logarithm of no mass, below any other, but finite, so that differences and gradients are numbers."""


class _Kernel(NamedTuple):
    """A kernel along one axis."""

    logs: Tensor
    reach: float
    """How far the logarithms fall from 0."""


def barycentre(
    masses: Float[Tensor, "*n m h w"], weights: Float[Tensor, "*n m"], *, epsilon: float, iterations: int
) -> Float[Tensor, "*n h w"]:
    r"""Return the entropic Wasserstein barycentre of m images for each weight vector, normalised to sum 1.

    .. math::
        \arg\min_q \sum_i \lambda_i W_\epsilon(q, p_i), \qquad
        W_\epsilon(q, p) = \min_{P 1 = q,\, P^\top 1 = p} \langle P, C\rangle + \epsilon \sum P (\log P - 1)

    with :math:`C` the squared Euclidean distance, the longer side of the image being 1 from the centre of its first
    pixel to that of its last. The kernel :math:`K = e^{-C / \epsilon}` is the product of one along each axis, so that
    an iteration

    .. math::
        u_i = p_i / K v_i, \qquad \log q = \sum_i \lambda_i \log K u_i, \qquad v_i = q / K u_i

    is four small matrix products an image. What falls out of float32 is computed in float64, and what falls out of
    that in logarithms: below an epsilon of about 0.003 for a square image still by matrix products, one line of an
    image normalised at a time, and below 0.0015 by sums over all pairs of places on a line, which is much slower but
    right for any epsilon. A device without float64 takes logarithms earlier. Differentiable in the masses.

    Of a single image, or a weight of 1, it returns not the image itself but the image blurred by a Gaussian of
    variance ``epsilon / 2``; this is what entropy costs.

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
        logs = solve(shares, weights, _kernel(height, unit, shares), _kernel(width, unit, shares), iterations)
        return logs.flatten(-2).softmax(-1).view_as(logs).to(accurate(masses).dtype)


def _kernel(size: int, unit: float, like: Tensor) -> _Kernel:
    place = torch.arange(size, dtype=like.dtype, device=like.device)
    return _Kernel(-(place - place.unsqueeze(1)).square_() / unit, (size - 1) ** 2 / unit)


def _scalings(shares: Tensor, weights: Tensor, down: _Kernel, across: _Kernel, iterations: int) -> Tensor:
    """Return the logarithm of the barycentre up to a number.

    Potentials are kept in logarithms but applied as scalings with a maximum of 1, so that a product with the kernel
    lies between its least value and the sum of an image. That loses a factor for each image, which cancels in the next
    scaling.
    """
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
