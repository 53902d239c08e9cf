"""Geometry of the embeddings: how tight the classes are, how far apart, and how much of the space they use."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from multimix.lab.data import ImageSet
from multimix.lab.data._split import stratified
from multimix.lab.evaluate.embedding._geometry import alignment, class_distances, effective_rank, normalised, uniformity
from multimix.lab.evaluate.embedding._neighbours import nearest, vote
from multimix.lab.evaluate.embedding._picture import PICTURES, check_picture, in_plane
from multimix.lab.evaluate.embedding._pooled import pooled
from multimix.lab.evaluate.predict import LabelledBatches
from multimix.lab.evaluate.suite import Source, SuiteSettings
from multimix.protocols import SILENT, Monitor, Network

_DECIMALS = 3
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings(SuiteSettings):
    """What can be set of the embedding suite."""

    neighbours: int = 20
    """Nearest examples that vote on a class, k of the kNN accuracy."""
    reference: str = "test"
    """Among whom an example's neighbours are looked for: test, the other test images; train, the training images."""
    picture: str = "tsne"
    """How the embeddings are drawn: tsne, umap (pip install umap-learn) or none."""
    picture_examples: int = 1000
    """Draw at most so many test images, the same share of each class."""
    seed: int = 0
    """Fixes which images are drawn and where."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        for name in ("neighbours", "picture_examples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, known in (("reference", ("test", "train")), ("picture", PICTURES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True)
class Embedding:
    """Alignment, uniformity, distances of classes, effective rank and kNN accuracy of the pooled embeddings.

    All but the effective rank are taken on embeddings scaled to length 1, so that they compare between networks:
    ``alignment`` (mean squared distance of two examples of a class, 0 to 4; the lower, the tighter), ``uniformity``
    (nats, -8 to 0; the lower, the more evenly spread), ``intra_distance``, ``inter_distance``, ``min_inter_distance``
    (0 to 2), ``separation`` (inter / intra; left out where intra is 0), ``effective_rank`` (directions, at most the
    embedding's size; of centred embeddings as they are), ``knn_accuracy`` (fraction).
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
        """Return the suite over a run's test set.

        Raises:
            ValueError: If there are too few images or a package is missing.
        """
        test = source.test(settings.examples)
        train = source.splits.train if settings.reference == "train" else None
        check_picture(settings.picture)
        _check_size(test, train, settings)
        served = None if train is None else source.batches(train)
        return cls(source.batches(test), source.splits.classes, served, settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the metrics, and keep a picture."""
        raw, labels = pooled(network, monitor.track("test", self.batches))
        embeddings = normalised(raw)
        yield "alignment", alignment(embeddings, labels)
        yield "uniformity", uniformity(embeddings)
        distances = class_distances(embeddings, labels)
        yield "intra_distance", distances.intra
        yield "inter_distance", distances.inter
        yield "min_inter_distance", distances.nearest
        if distances.intra > _ROUNDING:
            yield "separation", distances.inter / distances.intra
        yield "effective_rank", effective_rank(raw)
        yield "knn_accuracy", self._neighbours_agree(network, embeddings, labels, monitor)
        self._draw(embeddings, labels, monitor)

    def _neighbours_agree(self, network: Network, embeddings: Tensor, labels: Tensor, monitor: Monitor) -> float:
        references, theirs = embeddings, labels
        if self.train is not None:
            raw, theirs = pooled(network, monitor.track("train", self.train))
            references = normalised(raw)
        _, places = nearest(embeddings, references, self.settings.neighbours, apart=self.train is None)
        return float((vote(theirs[places], len(self.classes)) == labels).double().mean())

    def _draw(self, embeddings: Tensor, labels: Tensor, monitor: Monitor) -> None:
        method, most, seed = self.settings.picture, self.settings.picture_examples, self.settings.seed
        if method == "none":
            return
        kept = torch.arange(len(labels)) if len(labels) <= most else stratified(labels.cpu(), most, seed)[0]
        kept = kept.to(labels.device)
        points = in_plane(embeddings[kept], method, seed=seed)
        if points is not None:
            x, y = (column.round(_DECIMALS).tolist() for column in points.T.astype(float))
            names = list(self.classes)
            monitor.record(
                "picture", {"method": method, "x": x, "y": y, "label": labels[kept].tolist(), "classes": names}
            )


def _check_size(test: ImageSet, train: ImageSet | None, settings: EmbeddingSettings) -> None:
    """Raise ValueError where a metric or the picture would lack images."""
    occurring = len(test.labels.unique())
    if occurring < 2:
        raise ValueError("the test set must have images of at least two classes for distances between them, got one")
    if len(test) <= occurring:
        raise ValueError("the test set must have a class with two images for alignment, got one image for each class")
    others = len(test) - 1 if train is None else len(train)
    if settings.neighbours > others:
        raise ValueError(
            f"neighbours={settings.neighbours} must be at most {others}, the images they are looked for in"
        )
    if settings.picture != "none" and settings.picture_examples < min(occurring, len(test)):
        raise ValueError(
            f"picture_examples={settings.picture_examples} must be at least {occurring}, one for each class"
        )
