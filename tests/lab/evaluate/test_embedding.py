"""The geometry of embeddings against loops and independent libraries; the suite, and its picture."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize

import toy
from evaluate.made import batches, source
from listening import Kept
from multimix.lab.evaluate import Embedding, EmbeddingSettings
from multimix.lab.evaluate import embedding as module
from multimix.lab.evaluate.embedding import (
    alignment,
    class_distances,
    effective_rank,
    nearest,
    normalised,
    uniformity,
    vote,
)
from multimix.lab.evaluate.passes import embed

pytestmark = pytest.mark.filterwarnings("ignore:embedding. ")  # of what few images do to picture and neighbours


def sample(n: int, d: int, classes: int, *, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Clusters of uneven sizes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator) * torch.randint(2, (n,), generator=generator)
    labels[:classes] = torch.arange(classes)
    centres = torch.randn(classes, d, generator=generator)
    return centres[labels] + spread * torch.randn(n, d, generator=generator), labels


@pytest.fixture(params=[(61, 3, 7, 0.1), (12, 1, 2, 3.0), (30, 50, 4, 0.5)], ids=str)
def points(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    n, d, classes, spread = request.param
    embeddings, labels = sample(n, d, classes, seed=n, spread=spread)
    return normalised(embeddings), labels


@pytest.fixture(params=[1, 100, 1 << 23])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "_BLOCK", request.param)
    return request.param


def test_alignment_is_the_mean_over_all_pairs_of_a_class(points):
    embeddings, labels = points
    examples = zip(embeddings.numpy(), labels.tolist(), strict=True)
    pairs = [((x - y) ** 2).sum() for (x, a), (y, b) in itertools.combinations(examples, 2) if a == b]
    assert alignment(embeddings, labels) == pytest.approx(np.mean(pairs), rel=1e-12)


def test_uniformity_is_the_log_of_the_mean_over_all_pairs(points, block):
    embeddings, _ = points
    wanted = np.log(np.mean(np.exp(-2 * pdist(embeddings.numpy(), "sqeuclidean"))))
    assert uniformity(embeddings) == pytest.approx(wanted, rel=1e-12)


def test_class_distances_are_those_of_a_loop(points):
    embeddings, labels = points
    clouds = [embeddings.numpy()[labels.numpy() == c] for c in np.unique(labels)]
    within = [np.mean([np.linalg.norm(x - cloud.mean(0)) for x in cloud]) for cloud in clouds]
    between = [np.linalg.norm(a.mean(0) - b.mean(0)) for a, b in itertools.combinations(clouds, 2)]
    wanted = (np.mean(within), np.mean(between), min(between))
    assert class_distances(embeddings, labels) == pytest.approx(wanted, rel=1e-12)


def test_effective_rank_counts_directions():
    """As NumPy's singular values say; equal spread in three of five directions, far from the origin: 3; none: 0."""
    embeddings, _ = sample(40, 6, 3)
    values = embeddings.double().numpy()
    singular = np.linalg.svd(values - values.mean(0), compute_uv=False)
    p = singular / singular.sum()
    assert effective_rank(embeddings) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-12)
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


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_votes_are_scikit_learns_ties_included(count):
    embeddings, labels = sample(80, 4, 4, spread=2.0)
    queries, _ = sample(60, 4, 4, seed=1, spread=2.0)
    wanted = KNeighborsClassifier(count).fit(embeddings.numpy(), labels.numpy()).predict(queries.numpy())
    _, places = nearest(queries, embeddings, count)
    np.testing.assert_array_equal(vote(labels[places], 4), wanted)


def test_scaling_leaves_zero_alone():
    scaled = normalised(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]]))
    assert scaled.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [1, 0]]


def test_each_metric_is_taken_on_the_embeddings_its_definition_names():
    data, network = source(60), toy.images()
    found = dict(Embedding.of(data, EmbeddingSettings(picture="none"))(network))
    raw, labels = embed(network, data.batches(data.splits.test))
    scaled = raw.double() / raw.double().norm(dim=1, keepdim=True)
    intra, inter, least = class_distances(scaled, labels)
    wanted = {
        **{"alignment": alignment(scaled, labels), "uniformity": uniformity(scaled)},
        **{"intra_distance": intra, "inter_distance": inter, "min_inter_distance": least},
        **{"separation": inter / intra, "effective_rank": effective_rank(raw)},
    }
    assert list(found) == [*wanted, "knn_accuracy"]
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize("reference", ["test", "train"])
def test_knn_accuracy_is_scikit_learns_on_scaled_embeddings(reference):
    data, network = source(60), toy.images()
    settings = EmbeddingSettings(reference=reference, neighbours=5, picture="none")
    monitor = Kept()
    found = dict(Embedding.of(data, settings)(network, monitor))["knn_accuracy"]
    (queries, labels), (others, theirs) = (
        (normalize(x).double().numpy(), y.numpy())
        for x, y in (embed(network, data.batches(getattr(data.splits, part))) for part in ("test", reference))
    )
    right = []
    for i, label in enumerate(labels):
        kept = np.arange(60) != (i if reference == "test" else 60)
        right.append(KNeighborsClassifier(5).fit(others[kept], theirs[kept]).predict(queries[[i]])[0] == label)
    assert found == pytest.approx(np.mean(right))
    assert monitor.passes == (["test"] if reference == "test" else ["test", "train"])


def test_the_picture_is_of_so_many_images_of_each_class_and_always_the_same():
    first, second = Kept(), Kept()
    for monitor in (first, second):
        list(Embedding.of(source(60), EmbeddingSettings(picture_examples=25))(toy.images(), monitor))
    assert second.figures == first.figures
    picture = first.figures["picture"]
    assert list(picture) == ["method", "x", "y", "label", "classes", "examples"]
    assert (picture["method"], picture["classes"], picture["examples"]) == ("tsne", list("abcde"), 60)
    assert np.bincount(picture["label"]).tolist() == [5] * 5
    assert len(picture["x"]) == len(picture["y"]) == 25
    assert all(value == round(value, 3) for value in picture["x"] + picture["y"])


def test_a_picture_keeps_neighbours_together():
    """Three far clusters on a sphere stay apart in the plane."""
    labels, monitor = torch.arange(90) % 3, Kept()
    inputs = 20 * torch.eye(3)[labels] + torch.randn(90, 3, generator=torch.Generator().manual_seed(0)) / 2
    found = dict(Embedding(batches(inputs, labels, 90), ("a", "b", "c"))(toy.identity(3), monitor))
    picture = monitor.figures["picture"]
    drawn = np.transpose([picture["x"], picture["y"]])
    assert KNeighborsClassifier(5).fit(drawn, picture["label"]).score(drawn, picture["label"]) == 1
    assert found["knn_accuracy"] == 1


def test_no_picture_where_none_is_wanted_or_there_is_nothing_to_see():
    monitor = Kept()
    list(Embedding.of(source(60), EmbeddingSettings(picture="none"))(toy.images(), monitor))
    constant = batches(torch.ones(30, 2), torch.arange(30) % 2)
    with pytest.warns(UserWarning, match="no picture of 30 embeddings, which are fewer than four or all the same"):
        found = dict(Embedding(constant, ("a", "b"))(toy.identity(2), monitor))
    assert monitor.figures == {}
    assert "separation" not in found  # neither within nor between is there any distance
    assert (found["alignment"], found["effective_rank"]) == (pytest.approx(0, abs=1e-20), 0)


@pytest.mark.bad_input
def test_data_that_do_not_fit_and_a_missing_package_are_refused(monkeypatch):
    for test, given, message in (
        (60, {"neighbours": 60}, "neighbours=60 must be from 1 to 59, as there are only 59 images to look for them in"),
        (60, {"neighbours": 61, "reference": "train"}, "neighbours=61 must be from 1 to 60"),
        (60, {"picture_examples": 4}, "picture_examples=4 must be at least 5, one for each class"),
        (1, {"neighbours": 1}, "neighbours=1 must be from 1 to 0"),
        (1, {"reference": "train"}, "at least two test images are needed for distances, got one"),
    ):
        with pytest.raises(ValueError, match=message):
            Embedding.of(source(test), EmbeddingSettings(**given))
    Embedding.of(source(60), EmbeddingSettings(neighbours=59, picture_examples=5))
    Embedding.of(source(60), EmbeddingSettings(picture_examples=1, picture="none"))

    monkeypatch.setattr(module, "packages_distributions", dict)
    with pytest.raises(ValueError, match=r"pip install umap-learn"):
        Embedding.of(source(60), EmbeddingSettings(picture="umap"))
