r"""The fast forms of plain cross-entropy: without interpolated targets, and value and gradient in one pass.

The fused form goes over chunks of tuples. For one position and a chunk of weights :math:`W` (c, b), with clean logits
:math:`L` and inherited targets :math:`WY`,

.. math:: \frac{\partial \ell}{\partial L} = \frac1n W^\top (\mathrm{softmax}(W L) - \gamma W Y - (1 - \gamma)\, Q),
   \qquad Q = \mathrm{softmax}(W L')

so that the gradient is summed up in (b, k) during the forward pass and nothing of size n outlives its chunk. Tuples are
columns there, as the weights are drawn: sums over classes then add whole rows. What the labels have in the gradient,
:math:`W^\top W Y`, comes in the cheapest of three ways: of class indices, by adding rows of weights to the rows of
their classes; of probabilities, by the product :math:`W Y`, or by the Gram product :math:`W^\top W`, (b, b), summed
over chunks.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from typing_extensions import Unpack

from multimix.ops._attention import (
    balance,
    balance_gain,
    balance_gradient,
    gain_of,
    ratios_of,
    reweight,
    shares_of,
    spread,
    weigh,
)
from multimix.ops._checks import as_probabilities, looks_are_free
from multimix.ops._options import LossOptions
from multimix.ops._simplex import LazyWeights

_NUMBERS = {"cpu": 2**18, "cuda": 2**24}  # logits of a chunk: what a CPU's cache holds, what keeps a GPU busy
_KEPT = 2**18  # as many weights are drawn at once and kept, for second derivatives
_PASSES = 100  # multiplications that cost what the passes over interpolated logits cost which the Gram product saves

Weights = Tensor | LazyWeights
Problem = tuple[Tensor, Weights, Tensor | None, Tensor | None, LossOptions]
"""Targets, weights, attention, the teacher's logits and options."""
Parts = tuple[Tensor, Tensor, Tensor | None]  # a loss, its label term, and its teacher term if there is a teacher


def commuted(logits: Tensor, *problem: Unpack[Problem]) -> Parts:
    """Return a mixed loss without interpolated targets, which enter through their product with the clean logits."""
    targets, weights, attention, teacher, options = problem
    rows = (weights.all() if isinstance(weights, LazyWeights) else weights).to(logits.dtype)
    rows, centre = weigh(rows, attention)
    if options.balanced:
        logits = balance_gradient(logits, balance_gain(rows, float(options.balanced), centre), centre)
    # Softmax ignores a shift of each clean row, since weights sum to 1; without it, large logits would cost digits.
    logits = logits - logits.detach().amax(-1, keepdim=True)
    n, positions, whole = rows.shape[-2], rows.shape[:-2].numel(), _whole(targets, rows.dtype)
    with torch.no_grad():
        gram = rows.mT @ rows / n
        inherited = _inherited(gram, targets, logits)
        taught = None if teacher is None else rows.mT @ (rows @ teacher).softmax(-1) / n
    mixed = (rows @ logits).logsumexp(-1)
    weighed = mixed if whole is None else mixed * (rows @ whole)[..., 0]
    labels = weighed.mean() - (inherited * logits).sum() / positions
    if taught is None:
        return labels, labels, None
    term = mixed.mean() - (taught * logits).sum() / positions
    return options.gamma * labels + (1 - options.gamma) * term, labels, term


class Fused(Function):
    """Value and gradient at once, with the arguments and the result of :func:`commuted`; the total has a gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, *problem: Unpack[Problem]) -> Parts:
        targets, weights, attention, teacher, options = problem
        ctx.count = count_of(weights) * logits.shape[:-2].numel()
        if isinstance(weights, LazyWeights) and ctx.count * max(logits.shape[-2:]) <= _KEPT and not options.chunk:
            weights = weights.all(logits.shape[-2])
        ctx.problem = targets, weights, attention, teacher, options
        if not targets.is_floating_point() and logits.device.type != "cpu":
            targets = as_probabilities(targets, logits.shape[-1], dtype=logits.dtype)  # a product repeats bit for bit
        shifted = logits - logits.amax(-1, keepdim=True)  # as in the commuted form
        gradient = torch.zeros_like(shifted, memory_format=torch.contiguous_format)
        uneven = logits.new_zeros(logits.shape[:-2]) if options.balanced else None
        centre = shares_of(attention) if options.balanced else None
        scaled = (
            attention is not None and uneven is None and looks_are_free(logits) and scaling_pays(*logits.shape[-2:])
        )
        if scaled:
            targets = as_probabilities(targets, logits.shape[-1], dtype=logits.dtype)
        by_gram = not scaled and targets.is_floating_point() and gram_pays(*logits.shape[-2:])
        gram = logits.new_zeros(*logits.shape[:-1], logits.shape[-2]) if by_gram else None
        sums, whole = [], _whole(targets, logits.dtype)
        for at, rows in _chunks(logits, weights, None if scaled else attention, options.chunk):
            tuples = _Tuples(rows, attention[:, at] if scaled and attention is not None else None)
            taught = None if teacher is None else tuples.mix(teacher[at]).softmax(-2)
            factor = None if whole is None else tuples.mix(whole)
            inherited = None if by_gram else tuples.inherit(targets)
            terms, error = _compare(tuples.mix(shifted[at]), inherited, factor, taught, options.gamma)
            sums.append(terms)
            gradient[at] += tuples.mix_back(error)
            if gram is not None:
                gram[at] += tuples.columns @ tuples.columns.mT
            if uneven is not None:
                uneven[at] += spread(rows, None if centre is None else centre[at])
        if gram is not None:
            together = _inherited(gram, targets, shifted)
            gradient.sub_(together, alpha=1.0 if teacher is None else options.gamma)
            sums.append((-(together * shifted).sum(), *(logits.new_zeros(()) for _ in sums[0][1:])))
        if uneven is not None:
            gradient = balance(gradient, gain_of(uneven / count_of(weights)) ** float(options.balanced), centre)
        ctx.save_for_backward(logits, gradient)
        labels, *others = (
            (torch.stack(term).sum() if len(term) > 1 else term[0]) / ctx.count for term in zip(*sums, strict=True)
        )
        ctx.mark_non_differentiable(labels, *others)
        if not others:
            return labels.clone(), labels, None
        return options.gamma * labels + (1 - options.gamma) * others[0], labels, others[0]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, gradient = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return gradient * (upstream[0] / ctx.count), *[None] * 5
        # Somebody wants to differentiate the gradient.
        if isinstance(ctx.problem[1], LazyWeights):
            raise RuntimeError("impl='fused' has no second derivative for weights that are gone; use impl='commuted'")
        total = commuted(logits, *ctx.problem)[0]
        return torch.autograd.grad(total, logits, upstream[0], create_graph=True)[0], *[None] * 5


def count_of(weights: Weights) -> int:
    """Return how many tuples there are at a position."""
    return weights.n if isinstance(weights, LazyWeights) else weights.shape[-2]


def _inherited(gram: Tensor, targets: Tensor, like: Tensor) -> Tensor:
    """Return the product of W'W and targets, without a one-hot matrix of class indices."""
    if targets.is_floating_point():
        return gram @ targets.to(gram.dtype)
    return torch.zeros_like(like).index_add_(-1, targets.long(), gram)


def _whole(targets: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return what probabilities sum to, (b, 1), as rounded ones do not to 1; None where all of them do."""
    if not targets.is_floating_point():
        return None
    whole = targets.to(dtype).sum(-1, keepdim=True)
    exact = looks_are_free(whole) and (whole - 1).abs().amax() < 16 * torch.finfo(dtype).eps
    return None if exact else whole


class _Tuples:
    """Interpolation with a chunk of weights, (c, b) or (p, c, b), which may be scaled by attention (b, p).

    Attention then multiplies the few values, and the sums that normalise divide the results: the weights stay as they
    are, but where a tuple has no attention at all.
    """

    def __init__(self, rows: Tensor, attention: Tensor | None) -> None:
        self.scale: tuple[Tensor, Tensor] | None = None
        if attention is not None:
            ratios = ratios_of(attention).mT.unsqueeze(-2)
            sums = ratios @ rows.mT
            if sums.amin() > torch.finfo(sums.dtype).tiny:
                self.scale = ratios.mT, sums
            else:
                rows = reweight(rows, attention)
        self.columns = rows.mT

    def mix(self, values: Tensor) -> Tensor:
        """Return interpolated values, (b, k) or (p, b, k), with tuples as columns: (k, c) or (p, k, c)."""
        if self.scale is None:
            return values.mT @ self.columns
        ratios, sums = self.scale
        return ((values * ratios).mT @ self.columns).div_(sums)

    def inherit(self, targets: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return interpolated probabilities, (..., k, c), or class indices with the weights that they have."""
        return self.mix(targets.to(self.columns.dtype)) if targets.is_floating_point() else (targets, self.columns)

    def mix_back(self, gradient: Tensor) -> Tensor:
        """Return the gradient on values, of one on what :meth:`mix` returned."""
        if self.scale is None:
            return self.columns @ gradient.mT
        ratios, sums = self.scale
        return (self.columns @ gradient.div_(sums).mT).mul_(ratios)


def _compare(
    mixed: Tensor,
    inherited: Tensor | tuple[Tensor, Tensor] | None,
    factor: Tensor | None,
    taught: Tensor | None,
    gamma: float,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the sums of the label and of the teacher term over a chunk, and the predictions' error (..., k, c).

    Without inherited targets, which may be class indices and weights, both leave out what they add.
    """
    log_probabilities = mixed.log_softmax(-2)
    share = 1.0 if taught is None else gamma
    if inherited is None:
        normalisers = mixed[..., :1, :] - log_probabilities[..., :1, :]
        labels = (normalisers if factor is None else normalisers * factor).sum()
    elif isinstance(inherited, Tensor):
        labels = -(inherited * log_probabilities).sum()
    else:
        classes, columns = inherited
        labels = -log_probabilities.index_select(-2, classes).mul_(columns).sum()
    terms = (labels,) if taught is None else (labels, -(taught * log_probabilities).sum())
    error = log_probabilities.exp_()
    if factor is not None:
        error.mul_(share * factor + (1 - share))
    if isinstance(inherited, Tensor):
        error.sub_(inherited, alpha=share)
    elif inherited is not None:
        error.index_add_(-2, classes, columns.expand(*error.shape[:-2], *columns.shape[-2:]), alpha=-share)
    if taught is not None:
        error.sub_(taught, alpha=1 - gamma)
    return terms, error


def scaling_pays(b: int, k: int) -> bool:
    """Return whether it is cheaper to scale logits and targets by attention than the weights."""
    return 2 * k <= b


def gram_pays(b: int, k: int) -> bool:
    """Return whether b^2 multiplications a tuple are cheaper than those by targets, and passes over logits."""
    return b * b < k * (b + _PASSES)


def _chunks(
    logits: Tensor, weights: Weights, attention: Tensor | None, chunk: int | None
) -> Iterator[tuple[Any, Tensor]]:
    """Yield positions, and weights for a chunk of tuples there, (c, b) or (p, c, b)."""
    b, k = logits.shape[-2:]
    n, own = count_of(weights), weights.sets is not None if isinstance(weights, LazyWeights) else weights.ndim == 3
    numbers = _NUMBERS.get(logits.device.type, _NUMBERS["cuda"])
    step = min(n, chunk or max(1, numbers // max(b, k)))
    together = max(1, numbers // (max(b, k) * step))
    positions: list[Any] = [...]
    if logits.ndim == 3:
        positions = [slice(first, min(first + together, len(logits))) for first in range(0, len(logits), together)]
    for start in range(0, n, step):
        count = min(step, n - start)
        tuples = slice(start, start + count)
        shared = None if own else _rows(weights, (count, b), tuples, logits.dtype)
        for at in positions:
            rows = shared
            if rows is None:
                rows = _rows(weights, (at.stop - at.start, count, b), (at, tuples), logits.dtype)
            yield at, rows if attention is None else reweight(rows, attention[:, at])


def _rows(weights: Weights, size: tuple[int, ...], where: Any, dtype: torch.dtype) -> Tensor:
    """Return given or drawn weights, one after another in memory those of an example."""
    *sets, b = size
    drawn = weights[where] if isinstance(weights, Tensor) else weights.rows(math.prod(sets), b).unflatten(0, sets)
    columns = drawn.to(dtype).mT
    return (columns if columns.stride(-1) == 1 else columns.contiguous()).mT
