"""C-Mixup."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from multimix._declared import Checked, Positive
from multimix.methods._images import uniform
from multimix.methods._predict import MixesInputs, PairMixing
from multimix.ops import CrossEntropy, Objective, beta, objective_of, widest
from multimix.protocols import Network

_CELLS = 2**20  # distances that are computed together, 8 MiB of them


@dataclass(frozen=True)
class CMixup(Checked, MixesInputs):
    r"""Mixup for regression: a partner is the more probable the closer its target is.

    Example i is paired with example j of the mini-batch with probability

    .. math:: P(j \mid i) \propto \exp\left(- \frac{\|y_i - y_j\|^2}{2 \sigma^2}\right)

    itself among them. Lambda ~ Beta(alpha, alpha), one a step; inputs of any shape and targets are mixed linearly. The
    probabilities are exact: all b² distances of a mini-batch are computed, in double precision where the device has
    it, a million at a time.

    For values (``SquaredError``) and labels (``BinaryCrossEntropy``) the distance is that of the rows (b, k). Classes
    are one-hot rows: two different ones have the squared distance 2, so that the partner is of the same class
    :math:`e^{1 / \sigma^2}` times as often as any single example of another; of class probabilities it is that of the
    rows.

    The authors' code also draws partners from the whole training set, by a matrix of its size, and mixes hidden
    representations; here it is the mini-batch, as in its ``batch_type=1``, and the inputs.

    Reference:
        Yao et al., "C-Mixup: improving generalization in regression", NeurIPS 2022, arXiv 2210.05775, read from its
        code, which alpha is from. There sigma is set for each data set: from 0.05 for an exchange rate to 50 for
        ejection fractions in percent.
    """

    name: ClassVar[str] = "c-mixup"

    alpha: Positive = 2.0
    """Concentration of the Beta distribution."""
    sigma: Positive = 1.0
    """Bandwidth of the kernel, in units of the targets; the larger, the closer to mixup's uniform partners."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners by their targets, which the network's objective says how to read, and lambda."""
        chances = uniform(len(inputs), generator=generator, like=inputs)
        partners = near_partners(_points(objective_of(network), targets), self.sigma, chances)
        return PairMixing(partners, beta(1, self.alpha, generator=generator, device=inputs.device)[0])

    def mix(
        self,
        inputs: Tensor,
        targets: Any,
        *,
        objective: Objective | None = None,
        network: Network | None = None,
        **options: Any,
    ) -> tuple[Tensor, Any]:
        """Return the mixed inputs and their targets (b, k), with the options of Mixup's ``mix``."""
        told: Any = network if objective is None else SimpleNamespace(objective=objective)
        return super().mix(inputs, targets, objective=objective, network=told, **options)


def _points(objective: Objective, targets: Tensor) -> Tensor:
    """Return what distances are taken between, (b, j); class indices, which alone are integers, as (b, 1)."""
    if targets.ndim == 1 and isinstance(objective, CrossEntropy) and not targets.is_floating_point():
        return targets.unsqueeze(1)
    values = targets.unsqueeze(1) if targets.ndim == 1 else targets[..., objective.before(targets) :].flatten(1)
    return values.to(widest(values.device))


@torch.no_grad()
def near_partners(
    points: Float[Tensor, "b j"] | Int[Tensor, "b 1"], sigma: float, chances: Float[Tensor, " b"]
) -> Int[Tensor, " b"]:
    """Return a partner for each point, j for i with a probability in proportion to a Gaussian of their distance.

    Args:
        points: What distances are taken between; class indices are as far apart as their one-hot rows.
        sigma: The Gaussian's standard deviation.
        chances: Numbers in [0, 1), each of which is looked up in the distribution of its point.
    """
    chosen = []
    size = max(_CELLS // len(points), 1)
    for rows, chance in zip(points.split(size), chances.unsqueeze(1).split(size), strict=True):
        running = (_distances(rows, points) / sigma).square_().mul_(-0.5).exp_().cumsum_(1)
        chosen.append(torch.searchsorted(running, chance * running[:, -1:], right=True))
    return torch.cat(chosen).squeeze(1).clamp_(max=len(points) - 1)  # which rounding could exceed


def _distances(rows: Tensor, points: Tensor) -> Float[Tensor, "n b"]:
    """Return the distance of each of some points to all of them, of single numbers with its sign."""
    if not points.is_floating_point():
        return (rows != points.T).to(widest(points.device)).mul_(2**0.5)
    if points.shape[1] == 1:
        return rows - points.T
    return torch.cdist(rows, points, compute_mode="donot_use_mm_for_euclid_dist")
