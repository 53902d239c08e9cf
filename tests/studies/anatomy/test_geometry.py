import math
from itertools import combinations

import numpy as np
import pytest
import torch

import toy
from anatomy.geometry import class_geometry, geometry


def looped(embeddings, labels):
    """Numpy's covariances, class by class, and the cosines of every pair of classes."""
    x, labels = embeddings.numpy(), labels.numpy()
    means = {name: x[labels == name].mean(0) for name in set(labels.tolist())}
    within = sum(np.square(row - means[label]).sum() for row, label in zip(x, labels, strict=True))
    between = sum(np.square(means[label] - x.mean(0)).sum() for label in labels)
    away = [mean - x.mean(0) for mean in means.values()]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(away, 2)]
    return within / between, np.mean(cosines)


def test_geometry_is_the_loop_over_classes():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(11, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 2, 2, 5, 0, 5, 5, 5, 2, 0, 5])
    assert class_geometry(embeddings, labels) == pytest.approx(looped(embeddings, labels))


def test_a_simplex_of_points_is_tight_and_evenly_spread():
    k = 5
    labels = torch.arange(k).repeat(3)
    assert class_geometry(torch.eye(k)[labels], labels) == pytest.approx((0, -1 / (k - 1)), abs=1e-7)


def test_confidence_and_accuracy_are_of_the_networks_own_logits():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    network = toy.identity(2).train()
    found = geometry(network, [(logits[:2], torch.tensor([0, 1])), (logits[2:], torch.tensor([1]))])
    sure = [1 / (1 + math.exp(-difference)) for difference in (2, 1, 3)]
    assert found.confidence == pytest.approx(sum(sure) / 3)
    assert found.accuracy == pytest.approx(2 / 3)
    assert network.training


@pytest.mark.bad_input
def test_what_cannot_be_measured_is_named():
    with pytest.raises(ValueError, match="labels must be of at least two classes, got 1"):
        class_geometry(torch.ones(3, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="batches must hold at least one batch, got none"):
        geometry(toy.identity(2), [])
