"""Alignment, uniformity, class distances, effective rank and neighbours against loops and independent libraries."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

from multimix.lab.evaluate import embedding
from multimix.lab.evaluate.embedding import (
    alignment,
    class_distances,
    effective_rank,
    nearest,
    normalised,
    uniformity,
    vote,
)


def sample(n: int, d: int, classes: int, *, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Clusters of uneven sizes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator) * torch.randint(2, (n,), generator=generator)
    labels[:classes] = torch.arange(classes)
    centres = torch.randn(classes, d, generator=generator)
    return centres[labels] + spread * torch.randn(n, d, generator=generator), labels


SAMPLES = [(40, 5, 3, 1.0), (61, 3, 7, 0.1), (12, 1, 2, 3.0), (30, 50, 4, 0.5)]


@pytest.fixture(params=SAMPLES, ids=str)
def points(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    n, d, classes, spread = request.param
    embeddings, labels = sample(n, d, classes, seed=n, spread=spread)
    return normalised(embeddings), labels


@pytest.fixture(params=[1, 100, 1 << 23])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(embedding, "_BLOCK", request.param)
    return request.param


def squared(x: np.ndarray, y: np.ndarray) -> float:
    return sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True))


def test_alignment_is_the_mean_over_all_pairs_of_a_class(points):
    embeddings, labels = points
    pairs = [
        squared(x, y)
        for (x, a), (y, b) in itertools.combinations(zip(embeddings.numpy(), labels.tolist(), strict=True), 2)
        if a == b
    ]
    assert alignment(embeddings, labels) == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)


def test_alignment_weighs_pairs_not_classes():
    """Three points of class 0 at mutual distances 1, 1 and 2, two of class 1 at distance 3: (1 + 1 + 4 + 9) / 4."""
    embeddings = torch.tensor([[0.0], [1.0], [2.0], [5.0], [8.0]])
    assert alignment(embeddings, torch.tensor([0, 0, 0, 1, 1])) == pytest.approx(15 / 4)


def test_uniformity_is_the_log_of_the_mean_over_all_pairs(points, block):
    embeddings, _ = points
    wanted = np.log(np.mean(np.exp(-2 * pdist(embeddings.numpy(), "sqeuclidean"))))
    assert uniformity(embeddings) == pytest.approx(wanted, rel=1e-12)


def test_uniformity_of_opposite_points_is_the_least_there_is():
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)
    assert uniformity(torch.tensor([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(0)


def test_class_distances_are_those_of_a_loop(points):
    embeddings, labels = points
    values, classes = embeddings.numpy(), labels.numpy()
    means = [values[classes == c].mean(0) for c in np.unique(classes)]
    within = [
        np.mean([math.sqrt(squared(x, mean)) for x in values[classes == c]])
        for c, mean in zip(np.unique(classes), means, strict=True)
    ]
    between = [math.sqrt(squared(a, b)) for a, b in itertools.combinations(means, 2)]
    found = class_distances(embeddings, labels)
    assert found.intra == pytest.approx(np.mean(within), rel=1e-12)
    assert found.inter == pytest.approx(np.mean(between), rel=1e-12)
    assert found.nearest == pytest.approx(min(between), rel=1e-12)


def test_effective_rank_is_that_of_numpys_singular_values():
    embeddings, _ = sample(40, 6, 3)
    values = embeddings.double().numpy()
    singular = np.linalg.svd(values - values.mean(0), compute_uv=False)
    p = singular / singular.sum()
    assert effective_rank(embeddings) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-12)


def test_effective_rank_counts_directions():
    """Equal spread in three of five directions, far from the origin: 3; spread in one: 1; none: 0."""
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))
    embeddings = torch.cat([corners, torch.full((8, 2), 7.0)], 1)
    assert effective_rank(embeddings + 100) == pytest.approx(3)
    assert effective_rank(torch.outer(torch.arange(9.0), torch.tensor([1.0, 2.0, 2.0])) + 3) == pytest.approx(1)
    assert effective_rank(torch.full((20, 4), 0.1)) == 0


@pytest.mark.parametrize("count", [1, 3, 9])
def test_neighbours_are_scikit_learns(points, block, count):
    embeddings, _ = points
    ours, places = nearest(embeddings[:11] + 0.01, embeddings, count)
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(embeddings.numpy())
    distances, indices = search.kneighbors(embeddings[:11].numpy() + 0.01)
    np.testing.assert_allclose(ours, distances, rtol=1e-7, atol=1e-7)
    if embeddings.shape[1] > 1:  # on a line there are ties
        np.testing.assert_array_equal(places, indices)


def test_nobody_is_their_own_neighbour(block):
    embeddings, _ = sample(50, 4, 3)
    distances, places = nearest(embeddings, embeddings, 2, apart=True)
    wanted, indices = NearestNeighbors(n_neighbors=2).fit(embeddings.numpy()).kneighbors()  # leaves each one out itself
    np.testing.assert_array_equal(places, indices)
    np.testing.assert_allclose(distances, wanted, rtol=1e-5)


def test_a_twin_is_a_neighbour_at_distance_zero():
    embeddings = torch.tensor([[1.0, 2.0], [5.0, 5.0], [1.0, 2.0]])
    distances, places = nearest(embeddings, embeddings, apart=True)
    assert places.flatten().tolist()[::2] == [2, 0]
    assert distances[0].item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_votes_are_scikit_learns_ties_included(count):
    embeddings, labels = sample(80, 4, 4, spread=2.0)
    queries, _ = sample(60, 4, 4, seed=1, spread=2.0)
    wanted = KNeighborsClassifier(count).fit(embeddings.numpy(), labels.numpy()).predict(queries.numpy())
    _, places = nearest(queries, embeddings, count)
    np.testing.assert_array_equal(vote(labels[places], 4), wanted)


@pytest.mark.bad_input
def test_what_has_no_answer_is_refused():
    points = torch.eye(3)
    with pytest.raises(ValueError, match="a class with at least two examples"):
        alignment(points, torch.arange(3))
    with pytest.raises(ValueError, match="at least two classes"):
        class_distances(points, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least two for uniformity, got 1"):
        uniformity(points[:1])
    with pytest.raises(ValueError, match="between 1 and the 2 references"):
        nearest(points, points, 3, apart=True)
    with pytest.raises(ValueError, match="the same examples to be apart, got 2 and 3"):
        nearest(points[:2], points, apart=True)


def test_scaling_leaves_zero_alone():
    scaled = normalised(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]]))
    assert scaled.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [1, 0]]
    assert embedding.SHARPNESS == 2
