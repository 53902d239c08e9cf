"""The embedding suite: its metrics, its picture, and what it refuses."""

from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import toy
from listening import Kept
from multimix import ERM
from multimix.lab.data import Images, Splits
from multimix.lab.evaluate import Source
from multimix.lab.evaluate import embedding as module
from multimix.lab.evaluate.embedding import (
    Embedding,
    EmbeddingSettings,
    alignment,
    class_distances,
    effective_rank,
    uniformity,
)
from multimix.lab.evaluate.predict import NonFiniteError, embed

METRICS = [
    "alignment",
    "uniformity",
    "intra_distance",
    "inter_distance",
    "min_inter_distance",
    "separation",
    "effective_rank",
    "knn_accuracy",
]


def batches(inputs: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(size), labels.split(size), strict=True))


def splits(n: int = 60, classes: int = 5) -> Splits:
    def part(seed: int, count: int) -> Images:
        pixels = torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
        return Images(pixels, torch.arange(count) % classes, tuple("abcde"[:classes]))

    return Splits("made", part(0, 90), None, part(1, n), (0.5,) * 3, (0.25,) * 3)


def source(batch_size: int = 7, **sizes: int) -> Source:
    return Source(splits(**sizes), ERM(), torch.device("cpu"), batch_size=batch_size)


def test_it_yields_what_its_docstring_says():
    monitor = Kept()
    found = dict(Embedding.of(source(), EmbeddingSettings())(toy.images(), monitor))
    assert list(found) == METRICS
    assert all(np.isfinite(value) for value in found.values())
    assert monitor.passes == ["test"]
    assert found["separation"] == pytest.approx(found["inter_distance"] / found["intra_distance"])
    assert found["alignment"] <= 4
    assert -8 <= found["uniformity"] <= 0
    assert 1 <= found["effective_rank"] <= 6
    # Twice the mean squared distance to the mean, but for the weights of classes: within a class, pairs differ more.
    assert found["alignment"] > found["intra_distance"] ** 2


def test_each_metric_is_taken_on_the_embeddings_its_definition_names():
    data, network = source(), toy.images()
    found = dict(Embedding.of(data, EmbeddingSettings(picture="none"))(network))
    raw, labels = embed(network, data.batches(data.splits.test))
    scaled = raw.double() / raw.double().norm(dim=1, keepdim=True)
    assert found["effective_rank"] == pytest.approx(effective_rank(raw))
    assert found["alignment"] == pytest.approx(alignment(scaled, labels))
    assert found["uniformity"] == pytest.approx(uniformity(scaled))
    distances = class_distances(scaled, labels)
    assert (found["intra_distance"], found["inter_distance"], found["min_inter_distance"]) == pytest.approx(distances)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_no_metric_depends_on_the_batch_size(size):
    settings = EmbeddingSettings(reference="train", neighbours=3, picture="none")
    wanted = dict(Embedding.of(source(60), settings)(toy.images()))
    assert dict(Embedding.of(source(size), settings)(toy.images())) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("reference", ["test", "train"])
def test_knn_accuracy_is_scikit_learns_on_scaled_embeddings(reference):
    data, network = source(), toy.images()
    settings = EmbeddingSettings(reference=reference, neighbours=5, picture="none")
    monitor = Kept()
    found = dict(Embedding.of(data, settings)(network, monitor))["knn_accuracy"]
    served = {part: embed(network, data.batches(getattr(data.splits, part))) for part in ("test", "train")}
    scaled = {part: (x / x.norm(dim=1, keepdim=True)).double().numpy() for part, (x, _) in served.items()}
    (queries, labels), others = (scaled["test"], served["test"][1].numpy()), scaled[reference]
    theirs = served[reference][1].numpy()
    if reference == "train":
        right = KNeighborsClassifier(5).fit(others, theirs).predict(queries) == labels
    else:
        keep = [np.arange(len(labels)) != i for i in range(len(labels))]
        right = np.array(
            [KNeighborsClassifier(5).fit(others[k], theirs[k]).predict(queries[[i]])[0] == labels[i]
             for i, k in enumerate(keep)]
        )  # fmt: skip
    assert found == pytest.approx(right.mean())
    assert monitor.passes == (["test"] if reference == "test" else ["test", "train"])


def test_the_picture_is_of_so_many_images_of_each_class_and_always_the_same():
    settings = EmbeddingSettings(picture_examples=25)
    pictures = []
    for size in (7, 60):
        monitor = Kept()
        list(Embedding.of(source(size), settings)(toy.images().double(), _Doubles(monitor)))
        pictures.append(monitor.figures["picture"])
    picture = pictures[0]
    assert pictures[1] == picture
    assert list(picture) == ["method", "x", "y", "label", "classes"]
    assert (picture["method"], picture["classes"]) == ("tsne", list("abcde"))
    assert np.bincount(picture["label"]).tolist() == [5] * 5
    assert len(picture["x"]) == len(picture["y"]) == 25
    assert all(value == round(value, 3) for value in picture["x"] + picture["y"])


class _Doubles(Kept):
    """Serves in float64, where batches of different sizes give the same embeddings to the last bit of float32."""

    def __init__(self, other: Kept) -> None:
        super().__init__()
        self.figures = other.figures

    def track(self, what, batches):
        return ((inputs.double(), labels) for inputs, labels in batches)


def test_a_picture_keeps_neighbours_together():
    """Three far clusters on a sphere stay apart in the plane."""
    labels = torch.arange(90) % 3
    inputs = 20 * torch.eye(3)[labels] + torch.randn(90, 3, generator=torch.Generator().manual_seed(0)) / 2
    monitor = Kept()
    settings = EmbeddingSettings(picture_examples=90)
    measured = Embedding(batches(inputs, labels, 90), ("a", "b", "c"), settings=settings)
    found = dict(measured(toy.identity(3), monitor))
    drawn = np.stack([monitor.figures["picture"]["x"], monitor.figures["picture"]["y"]], 1)
    agree = KNeighborsClassifier(5).fit(drawn, monitor.figures["picture"]["label"])
    assert agree.score(drawn, monitor.figures["picture"]["label"]) == 1
    assert found["knn_accuracy"] == 1


def test_no_picture_where_none_is_wanted_or_there_is_nothing_to_see():
    monitor = Kept()
    list(Embedding.of(source(), EmbeddingSettings(picture="none"))(toy.images(), monitor))
    labels = torch.arange(30) % 2
    constant = batches(torch.ones(30, 2), labels, 7)
    found = dict(Embedding(constant, ("a", "b"))(toy.identity(2), monitor))
    assert monitor.figures == {}
    assert "separation" not in found  # neither within nor between is there any distance
    assert (found["alignment"], found["effective_rank"]) == (pytest.approx(0, abs=1e-20), 0)


def test_umap_draws_where_it_is_installed():
    pytest.importorskip("umap")
    monitor = Kept()
    list(Embedding.of(source(), EmbeddingSettings(picture="umap"))(toy.images(), monitor))
    assert monitor.figures["picture"]["method"] == "umap"
    assert len(monitor.figures["picture"]["x"]) == 60


def test_the_network_stays_as_it_was():
    network = toy.images().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    list(Embedding.of(source(), EmbeddingSettings(picture="none"))(network))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.bad_input
def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="neighbours must be at least 1, got 0"):
        EmbeddingSettings(neighbours=0)
    with pytest.raises(ValueError, match="picture must be one of tsne, umap, none, got 'pca'"):
        EmbeddingSettings(picture="pca")
    with pytest.raises(ValueError, match="reference must be one of test, train, got 'validation'"):
        EmbeddingSettings(reference="validation")
    with pytest.raises(ValueError, match="seed must be at least 0"):
        EmbeddingSettings(seed=-1)


@pytest.mark.bad_input
def test_data_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="neighbours=60 must be at most 59"):
        Embedding.of(source(), EmbeddingSettings(neighbours=60))
    with pytest.raises(ValueError, match="picture_examples=4 must be at least 5"):
        Embedding.of(source(), EmbeddingSettings(picture_examples=4))
    with pytest.raises(ValueError, match="a class with two images for alignment"):
        Embedding.of(source(n=5), EmbeddingSettings(neighbours=2))
    with pytest.raises(ValueError, match="at least one batch"):
        embed(toy.images(), [])


@pytest.mark.bad_input
def test_a_missing_package_is_named(monkeypatch):
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "distribution", absent)
    with pytest.raises(ValueError, match=r"pip install umap-learn"):
        Embedding.of(source(), EmbeddingSettings(picture="umap"))


def test_embeddings_that_are_no_numbers_are_said_so():
    network = toy.identity(3)
    with pytest.raises(NonFiniteError, match="embeds as NaN or infinity"):
        embed(network, [(torch.full((2, 3), torch.nan), torch.tensor([0, 1]))])
