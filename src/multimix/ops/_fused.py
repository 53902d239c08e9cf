r"""The mixed losses at their limit: value and gradient in one pass over chunks of tuples.

For one position and a chunk of weights :math:`W` (c, b), with clean logits :math:`L` and inherited targets :math:`WY`,

.. math:: \frac{\partial \ell}{\partial L} = \frac1n W^\top (\mathrm{softmax}(W L) - \gamma W Y - (1 - \gamma)\, Q),
   \qquad Q = \mathrm{softmax}(W L')

so that the gradient is summed up in (b, k) during the forward pass and nothing of size n outlives its chunk. Class
indices are inherited by adding columns of weights to the columns of their classes: n b additions instead of the n b k
of a product with one-hot labels.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from multimix.ops._attention import reweight
from multimix.ops._balance import balance, gain_from, shares_of, unevenness
from multimix.ops._checks import as_probabilities
from multimix.ops._lazy import LazyWeights

_NUMBERS = {"cpu": 2**18, "cuda": 2**24}
"""Logits of a chunk: on a CPU what its cache holds, on a GPU enough to keep it busy."""


_FEW_CLASSES = 128
"""Up to here, on a CPU, the product is cheaper; about a nanosecond a weight is what adding takes."""


class Problem(NamedTuple):
    """All that a mixed loss depends on beside the logits; positions first, where there are any."""

    targets: Tensor
    """Class indices (b,) or probabilities (b, k)."""
    weights: Tensor | LazyWeights
    """(n, b) or (r, n, b)."""
    attention: Tensor | None
    """(b, r) for the dense form."""
    teacher: Tensor | None
    """Logits as the student's: (b, k) or (r, b, k)."""
    gamma: float
    balanced: float
    """Power of the gain that the centred gradient is balanced with; 0 leaves it as it is."""
    chunk: int | None
    """Tuples computed at a time, as many as fit if None."""

    @property
    def n(self) -> int:
        """Return how many tuples there are."""
        return self.weights.n if isinstance(self.weights, LazyWeights) else self.weights.shape[-2]

    @property
    def own(self) -> bool:
        """Return whether every position has weights of its own."""
        if isinstance(self.weights, LazyWeights):
            return self.weights.sets is not None
        return self.weights.ndim == 3


def fused_losses(
    logits: Tensor, problem: Problem, again: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the total and its two terms for logits (b, k) or (r, b, k); only the total has a gradient.

    ``again`` computes the total from the logits by other means, for the second derivative.
    """
    if problem.teacher is None:
        total = _Fused.apply(logits, problem, again)
        return total, total.detach(), None
    return _Fused.apply(logits, problem, again)


class _Fused(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, problem: Problem, again: Any) -> Tensor | tuple[Tensor, ...]:
        terms, gradient = _sum_up(logits, problem)
        ctx.save_for_backward(logits, gradient)
        ctx.again, ctx.count = again, problem.n * logits.shape[:-2].numel()
        labels, *taught = (term / ctx.count for term in terms)
        if not taught:
            return labels
        ctx.mark_non_differentiable(labels, *taught)
        return problem.gamma * labels + (1 - problem.gamma) * taught[0], labels, *taught

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        logits, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants to differentiate the gradient
            return _differentiable_gradient(logits, upstream[0], ctx.again), None, None
        return gradient * (upstream[0] / ctx.count), None, None


def _differentiable_gradient(logits: Tensor, upstream: Tensor, again: Callable[[Tensor], Tensor]) -> Tensor:
    (gradient,) = torch.autograd.grad(again(logits), logits, upstream, create_graph=True)
    return gradient


def _sum_up(logits: Tensor, problem: Problem) -> tuple[list[Tensor], Tensor]:
    """Return the label term, the teacher term if there is a teacher, and the gradient of the total: sums, not means."""
    targets, teacher = problem.targets, problem.teacher
    if not targets.is_floating_point() and (logits.device.type != "cpu" or logits.shape[-1] <= _FEW_CLASSES):
        # A product with (b, k) one-hot labels is cheaper than adding columns, and on a GPU it repeats bit for bit.
        targets = as_probabilities(targets, logits.shape[-1], dtype=logits.dtype)
    # Softmax ignores a shift of each clean row, since weights sum to 1; without it, large logits would cost digits.
    logits = logits - logits.amax(-1, keepdim=True)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    uneven = logits.new_zeros(logits.shape[:-2]) if problem.balanced else None
    centre = shares_of(problem.attention) if problem.balanced else None
    sums = []
    for at, weights, first in _chunks(logits, problem):
        theirs = None if teacher is None else teacher[at]
        terms, error = _compare(weights @ logits[at], targets, weights, theirs, problem.gamma)
        sums.append(terms)
        if first:
            torch.matmul(weights.mT, error, out=gradient[at])
        else:
            gradient[at] += weights.mT @ error
        if uneven is not None:
            uneven[at] += unevenness(weights, None if centre is None else centre[at])
    if uneven is not None:
        gradient = balance(gradient, gain_from(uneven / problem.n) ** problem.balanced, centre)
    return [torch.stack(term).sum() if len(term) > 1 else term[0] for term in zip(*sums, strict=True)], gradient


def _compare(
    mixed: Tensor, targets: Tensor, weights: Tensor, teacher: Tensor | None, gamma: float
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the sums of the label and of the teacher term over a chunk, and the predictions' error (..., c, k)."""
    log_probabilities = mixed.log_softmax(-1)
    share, predicted, wanted = 1.0, None, None
    if targets.is_floating_point():
        wanted = weights @ targets.to(weights.dtype)
        labels = -(wanted * log_probabilities).sum()
    else:
        labels = -log_probabilities.gather(-1, targets.expand_as(weights)).mul_(weights).sum()
    terms: tuple[Tensor, ...] = (labels,)
    if teacher is not None:
        share, predicted = gamma, (weights @ teacher).softmax(-1)
        terms = (labels, -(predicted * log_probabilities).sum())
    error = log_probabilities.exp_()
    if wanted is None:
        error.index_add_(-1, targets, weights * -share)  # its own factor would make it several times slower
    else:
        error.sub_(wanted, alpha=share)
    if predicted is not None:
        error.sub_(predicted, alpha=1 - gamma)
    return terms, error


def _chunks(logits: Tensor, problem: Problem) -> Iterator[tuple[Any, Tensor, bool]]:
    """Yield which positions, weights (c, b) or (p, c, b) for them, and whether they are the first for these positions.

    Every tuple of every position comes once.
    """
    b, k = logits.shape[-2:]
    numbers = _NUMBERS.get(logits.device.type, _NUMBERS["cuda"])
    step = min(problem.n, problem.chunk or max(1, numbers // max(b, k)))
    for start in range(0, problem.n, step):
        count = min(step, problem.n - start)
        shared = None if problem.own else _rows(problem.weights, (count, b), slice(start, start + count))
        for at in _groups(logits, max(1, numbers // (max(b, k) * step))):
            if shared is not None:
                rows = shared
            else:
                size = (at.stop - at.start, count, b)
                rows = _rows(problem.weights, size, (at, slice(start, start + count)))
            rows = rows.to(logits.dtype)
            if problem.attention is not None:
                rows = reweight(rows, problem.attention[:, at])
            yield at, rows, start == 0


def _groups(logits: Tensor, together: int) -> Iterator[Any]:
    if logits.ndim == 2:
        yield ...
        return
    r = len(logits)
    for first in range(0, r, together):
        yield slice(first, min(first + together, r))


def _rows(weights: Tensor | LazyWeights, size: tuple[int, ...], where: Any) -> Tensor:
    if isinstance(weights, Tensor):
        return weights[where]
    *sets, b = size
    drawn = weights.draw(math.prod(sets))
    if drawn.shape != (math.prod(sets), b):
        raise ValueError(
            f"weights.draw must return one row a tuple, {(math.prod(sets), b)} when asked for {math.prod(sets)},"
            f" got {tuple(drawn.shape)}"
        )
    return drawn.unflatten(0, sets)
