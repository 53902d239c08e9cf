"""Random arguments of the mixed losses, of awkward sizes."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import references
from multimix import ops

SIZES = [(1, 1, 1), (1, 13, 7), (7, 1, 13), (7, 13, 1), (13, 31, 7), (31, 13, 31)]
"""Of mini-batch, tuples, classes: b, n, k."""
DENSE_SIZES = [(1, 1, 1, 1), (1, 13, 3, 7), (7, 1, 1, 13), (7, 13, 5, 1), (13, 7, 3, 7), (7, 7, 13, 3)]
"""Of mini-batch, tuples, positions, classes: b, n, r, k."""


@dataclass(frozen=True)
class Sample:
    """Arguments of a mixed loss; attention makes it dense."""

    logits: Tensor
    targets: Tensor
    weights: Tensor
    attention: Tensor | None = None
    teacher: Tensor | None = None
    gamma: float = 1.0

    def loss(self, logits: Tensor | None = None, **options: Any) -> Tensor:
        """Return what the package says, of its own logits or of others."""
        logits = self.logits if logits is None else logits
        options = {"teacher_logits": self.teacher, "gamma": self.gamma, **options}
        if self.attention is None:
            return ops.mixed_cross_entropy(logits, self.targets, self.weights, **options)
        return ops.dense_mixed_cross_entropy(logits, self.targets, self.weights, self.attention, **options)

    def gradient(self, upstream: float = 1.0, **options: Any) -> Tensor:
        """Return the package's gradient on the logits."""
        logits = self.logits.detach().clone().requires_grad_()
        (upstream * replace(self, logits=logits).loss(**options)).backward()
        return logits.grad

    def to(self, *where: Any, **options: Any) -> "Sample":
        """Return it elsewhere; a dtype is for the logits and the teacher's only."""
        moved = {name: getattr(self, name) for name in ("logits", "teacher")}
        return replace(self, **{name: None if t is None else t.to(*where, **options) for name, t in moved.items()})

    def on(self, device: torch.device) -> "Sample":
        """Return it with every tensor on a device."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)})


def sample(
    b: int,
    n: int,
    k: int,
    *,
    r: int | None = None,
    soft: bool = False,
    taught: bool = False,
    shared: bool = False,
    alpha: float = 0.2,
    scale: float = 3.0,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Sample:
    """Return random arguments, dense ones if ``r`` is given."""
    g = torch.Generator().manual_seed(seed)
    draw = {"generator": g, "dtype": torch.float64}
    shape = (b, k) if r is None else (b, r, k)
    sets = 1 if r is None or shared else r
    weights = ops.dirichlet(sets * n, b, alpha, **draw)
    targets = torch.randn(b, k, **draw).mul(2).softmax(-1) if soft else torch.randint(k, (b,), generator=g)
    attention = None if r is None else ops.attention(torch.randn(b, r, 4, **draw))
    return Sample(
        (torch.randn(*shape, **draw) * scale).to(dtype),
        targets.to(dtype) if soft else targets,
        (weights if sets == 1 and (r is None or shared) else weights.view(r, n, b)).to(dtype),
        None if attention is None else attention.to(dtype),
        (torch.randn(*shape, **draw) * scale).to(dtype) if taught else None,
        0.3 if taught else 1.0,
    )


def _arguments(s: Sample) -> tuple[Any, ...]:
    attention = () if s.attention is None else (s.attention,)
    return s.logits, s.targets, s.weights, *attention, s.teacher, s.gamma


def truth(s: Sample) -> float:
    """Return the loss by the loops."""
    loss = references.mixed_cross_entropy if s.attention is None else references.dense_mixed_cross_entropy
    return loss(*_arguments(s))


def true_gradient(s: Sample, *, balanced: bool = False) -> Tensor:
    """Return the gradient on the logits by the loops."""
    gradient = references.mixed_gradient if s.attention is None else references.dense_mixed_gradient
    return gradient(*_arguments(s), balanced=balanced)
