"""How embeddings lie: alignment, uniformity, distances of classes, effective rank; all in float64."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from multimix.lab.evaluate.embedding._neighbours import rows_of, squared_distances

SHARPNESS = 2.0
"""The t of uniformity, as in the paper's experiments."""


class ClassDistances(NamedTuple):
    """Euclidean distances within and between classes."""

    intra: float
    """Mean distance of a class's examples to their mean, averaged over classes."""
    inter: float
    """Mean distance between the means of two classes, over all pairs of classes."""
    nearest: float
    """Least distance between the means of two classes."""


def normalised(embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return embeddings scaled to length 1, in float64; one of length 0 stays as it is."""
    return normalize(embeddings.double(), dim=1, eps=1e-300)


def alignment(embeddings: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> float:
    r"""Return the mean squared distance of two examples of one class.

    The mean of :math:`\|x - y\|^2` over all unordered pairs of different examples with the same label, every pair
    weighing the same, so that a class of twice the size weighs about four times as much. Computed without the pairs:
    those of a class with :math:`n` examples and mean :math:`\mu` sum to :math:`n \sum_i \|x_i - \mu\|^2`.

    Raises:
        ValueError: If no class has two examples.

    Reference:
        Wang and Isola, "Understanding contrastive representation learning through alignment and uniformity on the
        hypersphere", ICML 2020, arXiv 2005.10242, section 4.1 with alpha = 2, positive pairs being those of one class.
    """
    sizes, means, own = _by_class(embeddings, labels)
    pairs = int((sizes * (sizes - 1) / 2).sum())
    if pairs == 0:
        raise ValueError("labels must have a class with at least two examples for alignment, got none")
    squares = (embeddings.double() - means[own]).square().sum(1)
    return float((sizes[own] * squares).sum()) / pairs


def uniformity(embeddings: Float[Tensor, "n d"]) -> float:
    r"""Return :math:`\log \mathrm{mean} \exp(-2 \|x - y\|^2)` over all unordered pairs of different examples.

    Exact: every pair enters, and no example is paired with itself.

    Raises:
        ValueError: If there are fewer than two examples.

    Reference:
        Wang and Isola, arXiv 2005.10242, section 4.1 with t = 2.
    """
    n, rows = len(embeddings), rows_of(len(embeddings))
    if n < 2:
        raise ValueError(f"embeddings must be at least two for uniformity, got {n}")
    values = embeddings.double()
    total = values.new_zeros(())
    for start in range(0, n, rows):  # a block of rows meets itself and what comes after it
        squared = squared_distances(values[start : start + rows], values[start:]).clamp_min_(0)
        total += squared.mul_(-SHARPNESS).exp_().triu_(1).sum()
    # exp(-2 * 4) is the least that a pair of unit vectors can add: the sum cannot vanish for them.
    return math.log(float(total) / (n * (n - 1) / 2))


def class_distances(embeddings: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> ClassDistances:
    """Return the distances within and between the classes that occur.

    Raises:
        ValueError: If fewer than two classes occur.
    """
    sizes, means, own = _by_class(embeddings, labels)
    if len(sizes) < 2:
        raise ValueError(f"labels must be of at least two classes for distances between them, got {len(sizes)}")
    distances = (embeddings.double() - means[own]).norm(dim=1)
    within = torch.zeros_like(sizes).index_add_(0, own, distances) / sizes
    between = torch.nn.functional.pdist(means)
    return ClassDistances(float(within.mean()), float(between.mean()), float(between.min()))


def effective_rank(embeddings: Float[Tensor, "n d"]) -> float:
    r"""Return the effective rank of the centred embeddings: how many directions they spread in, from 1 up.

    :math:`\exp(-\sum_i p_i \log p_i)` where :math:`p_i` are the singular values divided by their sum. Those that are
    zero but for rounding are left out; of embeddings that are all the same none remains, and the rank is 0.

    Reference:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, definition 1.
    """
    values = embeddings.double()
    singular = torch.linalg.svdvals(values - values.mean(0))
    # The scale is that of the values before they were centred, whose rounding centring leaves behind.
    smallest = max(values.shape) * torch.finfo(values.dtype).eps * float(values.norm())
    singular = singular[singular > smallest]
    if not len(singular):
        return 0.0
    return float(torch.special.entr(singular / singular.sum()).sum().exp())


def _by_class(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return size (k,) and mean (k, d) of each class that occurs, and whose each example is (n,)."""
    _, own, sizes = labels.unique(return_inverse=True, return_counts=True)
    values = embeddings.double()
    sums = values.new_zeros(len(sizes), values.shape[1]).index_add_(0, own, values)
    sizes = sizes.double()
    return sizes, sums / sizes.unsqueeze(1), own
