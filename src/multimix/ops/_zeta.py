"""Weights that fall off as a power of a random rank."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from multimix.ops._checks import check_generator, check_number, check_sizes


def zeta_weights(
    b: int, gamma: float, *, generator: Generator | None = None, device: torch.device | str | None = None
) -> Float[Tensor, "b b"]:
    r"""Return weights whose row i is :math:`1, 2^{-\gamma}, \dots, b^{-\gamma}`, normalised, over b examples.

    The largest weight of row i is that of example i; every order of the others is as likely.

    Reference:
        Abhishek et al., "Multi-sample zeta-mixup: richer, more realistic synthetic samples from a p-series
        interpolant", Journal of Big Data 2024.
    """
    check_sizes(b=b)
    check_number("gamma", gamma)
    check_generator(generator)
    home = device if generator is None else generator.device
    ranked = torch.rand(b, b, generator=generator, device=home).fill_diagonal_(-1).argsort(1)
    series = torch.arange(1, b + 1, dtype=torch.float32, device=home).pow_(-gamma)
    rows = (series / series.sum()).expand(b, b)
    return torch.empty_like(ranked, dtype=rows.dtype).scatter_(1, ranked, rows).to(device)
