"""How tight and how evenly spread classes are, and how sure the network is of them."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from multimix.lab.evaluate.passes import LabelledBatches, evaluating
from multimix.protocols import Network


class Geometry(NamedTuple):
    """The classes of a set of examples as a network sees them, in eval mode."""

    within_between: float
    """Trace of the covariance within classes over that between classes; 0 where every class is one point."""
    spread: float
    """Mean cosine between the means of two classes, centred at the global mean; -1 / (k - 1) if evenly spread."""
    confidence: float
    """Mean of the largest probability."""
    accuracy: float
    """Share of examples whose class is the most probable."""


def geometry(network: Network, batches: LabelledBatches) -> Geometry:
    """Return the geometry of the pooled embeddings and the confidence of the predictions.

    Args:
        network: Is left in the mode it came in.
        batches: Inputs and class indices.

    Raises:
        ValueError: If there is no batch, or fewer than two classes occur.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with evaluating(network), torch.no_grad():
        for inputs, targets in batches:
            embeddings = network.pool(network.embed(inputs))
            found.append((embeddings, network.classify(embeddings), targets))
    if not found:
        raise ValueError("batches must hold at least one batch, got none")
    embeddings, logits, labels = (torch.cat(each) for each in zip(*found, strict=True))
    sure, chosen = logits.double().softmax(-1).max(-1)
    accuracy = float((chosen == labels).double().mean())
    return Geometry(*class_geometry(embeddings, labels), float(sure.mean()), accuracy)


def class_geometry(embeddings: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> tuple[float, float]:
    """Return trace(within) / trace(between), and the mean cosine between centred class means.

    Args:
        embeddings: One row an example.
        labels: Class indices.

    Raises:
        ValueError: If fewer than two classes occur.
    """
    _, own, sizes = labels.unique(return_inverse=True, return_counts=True)
    k = len(sizes)
    if k < 2:
        raise ValueError(f"labels must be of at least two classes, got {k}")
    values = embeddings.double()
    values = values - values.mean(0)
    means = one_hot(own).double().T @ values / sizes.unsqueeze(1)
    within = (values - means[own]).square().sum()
    between = means[own].square().sum()
    directions = normalize(means, dim=1)
    cosines = directions @ directions.T
    return float(within / between), float((cosines.sum() - cosines.trace()) / (k * (k - 1)))
