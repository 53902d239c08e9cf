import math

import pytest
import torch

import toy
from anatomy.geometry import class_geometry, geometry


def looped(embeddings, labels):
    rows, names = embeddings.tolist(), labels.tolist()
    d, n = len(rows[0]), len(rows)
    centre = [sum(row[c] for row in rows) / n for c in range(d)]
    means = {}
    for name in sorted(set(names)):
        own = [row for row, label in zip(rows, names, strict=True) if label == name]
        means[name] = [sum(row[c] for row in own) / len(own) for c in range(d)]
    within = sum(
        (x - m) ** 2 for row, label in zip(rows, names, strict=True) for x, m in zip(row, means[label], strict=True)
    )
    between = sum((m - g) ** 2 for label in names for m, g in zip(means[label], centre, strict=True))
    away = [[m - g for m, g in zip(mean, centre, strict=True)] for mean in means.values()]
    cosines = [
        sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        for i, a in enumerate(away)
        for j, b in enumerate(away)
        if i != j
    ]
    return within / between, sum(cosines) / len(cosines)


def test_classes_of_odd_sizes_against_the_loop():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(11, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 2, 2, 5, 0, 5, 5, 5, 2, 0, 5])
    assert class_geometry(embeddings, labels) == pytest.approx(looped(embeddings, labels))


def test_a_simplex_of_points_is_tight_and_evenly_spread():
    k = 5
    labels = torch.arange(k).repeat(3)
    within, spread = class_geometry(torch.eye(k)[labels], labels)
    assert within == pytest.approx(0, abs=1e-12)
    assert spread == pytest.approx(-1 / (k - 1))


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
