"""What the geometry of a network's embeddings says of its classes; all in float64."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, pdist
from typing_extensions import Self

from multimix._declared import Count, Ge, check
from multimix.lab.data._sets import stratified
from multimix.lab.evaluate.passes import LabelledBatches, check_tensors, class_indices, embed, mean
from multimix.lab.evaluate.suite import Limit, Source, SuiteSettings, Usual, adjusted, warn
from multimix.protocols import SILENT, Monitor, Network

_BLOCK = 1 << 23  # distances held at a time: 64 MiB
_REACH = {"tsne": ("perplexity", 30, 3), "umap": ("n_neighbors", 15, 1)}
"""What each way of drawing calls how far it looks, how far that is, and what part of the other images it is at most."""


def normalised(embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return embeddings scaled to length 1, in float64; one of length 0 stays as it is."""
    return normalize(embeddings.double(), dim=1, eps=1e-300)


def alignment(embeddings: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> float:
    """Return the mean squared distance over all pairs of one class (Wang and Isola, ICML 2020, 4.1 with alpha = 2)."""
    sizes, means, own = by_class(embeddings, labels)
    pairs = int((sizes * (sizes - 1) / 2).sum())
    if pairs == 0:
        raise ValueError("labels must have a class with at least two examples for alignment, got none")
    # The pairs of a class with n examples sum to n times the squared distances to its mean.
    squares = (embeddings.double() - means[own]).square().sum(1)
    return float((sizes[own] * squares).sum()) / pairs


def uniformity(embeddings: Float[Tensor, "n d"]) -> float:
    """Return the log of the mean of exp(-2 distance²) over all pairs (Wang and Isola, ICML 2020, 4.1 with t = 2)."""
    n = len(embeddings)
    if n < 2:
        raise ValueError(f"embeddings must be at least two for uniformity, got {n}")
    values = _finite("embeddings", embeddings)
    total = values.new_zeros(())
    for start, block in _blocks(values, n):  # a block of rows meets itself and what comes after it
        squared = _squared_distances(block, values[start:]).clamp_min_(0)
        total += squared.mul_(-2).exp_().triu_(1).sum()
    # exp(-2 * 4) is the least that a pair of unit vectors can add: the sum cannot vanish for them.
    if float(total) == 0:
        raise ValueError("embeddings must be scaled to length 1 for uniformity, got some so far apart that it vanishes")
    return math.log(float(total) / (n * (n - 1) / 2))


def class_distances(embeddings: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> tuple[float, float, float]:
    """Return the mean distance to the own class's mean, over classes, and the mean and least between two means."""
    sizes, means, own = by_class(embeddings, labels)
    if len(sizes) < 2:
        raise ValueError(f"labels must be of at least two classes for distances between them, got {len(sizes)}")
    distances = (embeddings.double() - means[own]).norm(dim=1)
    within = torch.zeros_like(sizes).index_add_(0, own, distances) / sizes
    between = pdist(means)
    return float(within.mean()), float(between.mean()), float(between.min())


def effective_rank(embeddings: Float[Tensor, "n d"]) -> float:
    """Return how many directions centred embeddings spread in, 0 if all are one (Roy and Vetterli, EUSIPCO 2007)."""
    values = _finite("embeddings", embeddings)
    singular = torch.linalg.svdvals(values - values.mean(0))
    # The scale is that of the values before they were centred, whose rounding centring leaves behind.
    smallest = max(values.shape) * torch.finfo(values.dtype).eps * float(values.norm())
    singular = singular[singular > smallest]
    return float(torch.special.entr(singular / singular.sum()).sum().exp()) if len(singular) else 0.0


def by_class(
    embeddings: Float[Tensor, "n d"], labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, "k d"], Int[Tensor, " n"]]:
    """Return size (k,) and mean (k, d) of each class that occurs, and whose each example is (n,)."""
    values = _finite("embeddings", embeddings)
    _, own, sizes = class_indices(labels, len(values)).unique(return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(sizes), values.shape[1]).index_add_(0, own, values)
    sizes = sizes.double()
    return sizes, sums / sizes.unsqueeze(1), own


def nearest(
    queries: Float[Tensor, "n d"], references: Float[Tensor, "m d"], count: int = 1, *, apart: bool = False
) -> tuple[Float[Tensor, "n count"], Int[Tensor, "n count"]]:
    """Return distances to the ``count`` nearest references and which these are; ``apart``: others than itself."""
    n, m = len(queries), len(references)
    if apart and n != m:
        raise ValueError(f"queries and references must be the same examples to be apart, got {n} and {m}")
    if not 1 <= count <= m - apart:
        raise ValueError(f"count must be between 1 and the {m - apart} references there are, got {count}")
    queries, references = _finite("queries", queries), _finite("references", references)
    centre = references.mean(0)  # distances do not depend on it, the rounding of their expansion does
    there = references - centre
    found = []
    for start, block in _blocks(queries, m):
        squared = _squared_distances(block - centre, there)
        if apart:
            squared[:, start : start + len(block)].fill_diagonal_(torch.inf)
        found.append(squared.topk(count, dim=1, largest=False))
    squared, places = (torch.cat(parts) for parts in zip(*found, strict=True))
    return squared.clamp_min(0).sqrt(), places


def vote(labels: Int[Tensor, "n count"], classes: int) -> Int[Tensor, " n"]:
    """Return the class that most neighbours have; of equally many, the one with the lowest index."""
    labels = class_indices(labels.flatten(), labels.numel(), classes).view_as(labels)
    votes = torch.zeros(len(labels), classes, dtype=torch.int64, device=labels.device)
    return votes.scatter_add_(1, labels, torch.ones_like(labels)).argmax(1)


def _finite(name: str, values: Tensor) -> Float[Tensor, "n d"]:
    """Return embeddings in float64, unless they are no vectors of finite numbers."""
    check_tensors(**{name: values})
    if values.ndim != 2 or not values.isfinite().all():
        wrong = int((~values.isfinite()).sum())
        raise ValueError(f"{name} must be (n, d) and finite, got {tuple(values.shape)} with {wrong} NaN or infinite")
    return values.double()


def _blocks(rows: Tensor, columns: int) -> Iterator[tuple[int, Tensor]]:
    """Yield rows whose distances to so many columns are held at a time, and where they start."""
    size = max(1, _BLOCK // columns)
    yield from zip(range(0, len(rows), size), rows.split(size), strict=True)


def _squared_distances(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Return all squared Euclidean distances; rounding may leave those of equal points slightly off 0."""
    norms = first.square().sum(1).unsqueeze(1) + second.square().sum(1)
    return torch.addmm(norms, first, second.mT, alpha=-2)


def in_plane(embeddings: Float[Tensor, "n d"], method: str, *, seed: int) -> Float[np.ndarray, "n 2"] | None:
    """Return where ``tsne`` or ``umap`` puts each embedding; None of fewer than four, or where all are the same."""
    check(Literal["tsne", "umap"], method=method)
    values = _finite("embeddings", embeddings).cpu().numpy()
    n, d = values.shape
    if n < 4 or np.ptp(values, axis=0).max() < 1e-12:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numerical trifles and of threads, none of which a reader can act on
        if method == "umap":
            from umap import UMAP

            reducer: Any = UMAP(n_neighbors=int(_reach(method, n)), random_state=seed, n_jobs=1)
            return reducer.fit_transform(values)
        from sklearn.manifold import TSNE

        tsne = TSNE(perplexity=_reach(method, n), init="pca" if d > 1 else "random", random_state=seed)
        return tsne.fit_transform(values.astype(np.float32))


def _reach(method: str, n: int) -> float:
    _, usual, part = _REACH[method]
    return min(usual, (n - 1) / part)


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings(SuiteSettings):
    """What can be set of the embedding suite."""

    neighbours: Count = field(default=Usual(20))
    """Nearest examples that vote on a class, k of the kNN accuracy."""
    reference: Literal["test", "train"] = "test"
    """Among whom an example's neighbours are looked for: test, the other test images; train, the training images."""
    picture: Literal["tsne", "umap", "none"] = "tsne"
    """How the embeddings are drawn: tsne, umap (pip install umap-learn) or none."""
    picture_examples: Count = field(default=Usual(1000))
    """Draw at most so many test images, the same share of each class."""
    seed: Annotated[int, Ge(0)] = 0
    """Fixes which images are drawn and where."""

    def limits(self, source: Source) -> Iterator[Limit]:
        """Yield what the numbers of images and classes allow."""
        test, of_train = source.test(self.examples), self.reference == "train"
        others, classes = len(source.splits.train) if of_train else len(test) - 1, len(test.labels.unique())
        why = f"as there are only {others} images to look for them in"
        yield Limit("neighbours", 1, others, max(1, others // classes), why)
        if self.picture != "none":
            yield Limit("picture_examples", classes, math.inf, classes, "one for each class")


@dataclass(frozen=True)
class Embedding:
    """Alignment, uniformity, distances of classes, effective rank and kNN accuracy of the pooled embeddings.

    All but the effective rank are taken on embeddings scaled to length 1, so that they compare between networks:
    ``alignment`` (mean squared distance of two examples of a class, 0 to 4; the lower, the tighter), ``uniformity``
    (nats, -8 to 0; the lower, the more evenly spread), ``intra_distance``, ``inter_distance``, ``min_inter_distance``
    (0 to 2), ``separation`` (inter / intra; left out where intra is 0), ``effective_rank`` (directions, at most the
    embedding's size; of centred embeddings as they are), ``knn_accuracy`` (fraction). What takes two images of a class,
    or two classes, is left out where there are none.
    """

    name: ClassVar[str] = "embedding"
    Settings: ClassVar[type[SuiteSettings]] = EmbeddingSettings

    batches: LabelledBatches
    """Test inputs and class indices, in any number of batches."""
    classes: tuple[str, ...]
    """The name of every class."""
    train: LabelledBatches | None = None
    """Training inputs and class indices, to look for neighbours in; None takes the other test examples."""
    settings: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set."""
        settings = adjusted(cls.name, settings, source)
        if settings.picture == "umap" and "umap-learn" not in packages_distributions().get("umap", ()):
            raise ValueError("picture=umap needs the package umap-learn: pip install umap-learn, or picture=tsne")
        test = source.test(settings.examples)
        if len(test) < 2:
            raise ValueError("at least two test images are needed for distances, got one: give more with --data")
        served = source.batches(source.splits.train) if settings.reference == "train" else None
        return cls(source.batches(test), source.splits.classes, served, settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the metrics, and keep a picture."""
        raw, labels = embed(network, monitor.track("test", self.batches))
        embeddings = normalised(raw)
        sizes, apart = labels.unique(return_counts=True)[1].tolist(), self.train is None
        paired = max(sizes) > 1
        if paired:
            yield "alignment", alignment(embeddings, labels)
        else:
            kinds = "alignment and kNN accuracy are" if apart else "alignment is"
            warn("embedding", f"{kinds} left out, as no class has two test images")
        yield "uniformity", uniformity(embeddings)
        if len(sizes) > 1:
            yield from _distances(embeddings, labels)
        else:
            warn("embedding", "distances of classes are left out, as all test images are of one")
        yield "effective_rank", effective_rank(raw)
        if paired or not apart:
            yield "knn_accuracy", self._knn_accuracy(network, embeddings, labels, monitor)
        self._draw(embeddings, labels, monitor)

    def _knn_accuracy(self, network: Network, embeddings: Tensor, labels: Tensor, monitor: Monitor) -> float:
        references, theirs, apart = embeddings, labels, self.train is None
        if self.train is not None:
            raw, theirs = embed(network, monitor.track("train", self.train))
            references = normalised(raw)
        most, neighbours = int(theirs.unique(return_counts=True)[1].max()) - apart, self.settings.neighbours
        if neighbours > most:
            warn("embedding", f"neighbours={neighbours} is more than any class has, {most}: fewer tell more")
        _, places = nearest(embeddings, references, neighbours, apart=apart)
        return mean(vote(theirs[places], len(self.classes)) == labels)

    def _draw(self, embeddings: Tensor, labels: Tensor, monitor: Monitor) -> None:
        method, most, seed = self.settings.picture, self.settings.picture_examples, self.settings.seed
        if method == "none":
            return
        kept = torch.arange(len(labels)) if len(labels) <= most else stratified(labels.cpu(), most, seed)[0]
        kept = kept.to(labels.device)
        word, usual, _ = _REACH[method]
        points = in_plane(embeddings[kept], method, seed=seed)
        if points is None:
            warn("embedding", f"no picture of {len(kept)} embeddings, which are fewer than four or all the same")
        else:
            if (reach := _reach(method, len(kept))) < usual:
                warn("embedding", f"the picture's {word} is {reach:.3g} in place of {usual}, for {len(kept)} images")
            x, y = (column.round(3).tolist() for column in points.T.astype(float))
            about = {"label": labels[kept].tolist(), "classes": list(self.classes), "examples": len(labels)}
            monitor.record("picture", {"method": method, "x": x, "y": y, **about})


def _distances(embeddings: Tensor, labels: Tensor) -> Iterator[tuple[str, float]]:
    intra, inter, least = class_distances(embeddings, labels)
    yield "intra_distance", intra
    yield "inter_distance", inter
    yield "min_inter_distance", least
    if intra > 1e-12:
        yield "separation", inter / intra
