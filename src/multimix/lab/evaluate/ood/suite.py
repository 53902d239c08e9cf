"""Out-of-distribution detection: how well scores of one image tell the run's own test set from other sets."""

import difflib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from typing_extensions import Self

from multimix.lab.data import Files, first_of
from multimix.lab.evaluate.ood.curves import histograms, roc
from multimix.lab.evaluate.ood.metrics import all_metrics, counts
from multimix.lab.evaluate.ood.observe import Observer, Seen, embedded
from multimix.lab.evaluate.ood.pixels import OutBatches
from multimix.lab.evaluate.ood.scores import KNN, SCORES, Mahalanobis
from multimix.lab.evaluate.ood.sets import defaults, is_own, labels_of, open_set
from multimix.lab.evaluate.predict import LabelledBatches
from multimix.lab.evaluate.suite import Source, SuiteSettings
from multimix.protocols import SILENT, Monitor, Network

__all__ = ["OOD", "OODSettings"]

FITTED = ("knn", "mahalanobis")
"""The scores that know training embeddings."""


@dataclass(frozen=True, kw_only=True)
class OODSettings(SuiteSettings):
    """What can be set of out-of-distribution detection."""

    sets: tuple[str, ...] | None = None
    """Names or paths of the other sets (docs/evaluation/ood.md lists them); by default gaussian-noise, uniform-noise
    and digits, without the run's own."""
    scores: tuple[str, ...] = SCORES
    """Which scores; odin takes three times the time of the others together."""
    ood_examples: int = 10_000
    """Images of each other set, taken by chance from a larger one."""
    train_examples: int | None = 10_000
    """Training images that knn and mahalanobis are fitted on, the same share of each class; None takes all."""
    energy_temperature: float = 1.0
    """Divides the logits of energy."""
    odin_temperature: float = 1000.0
    """Divides the logits of odin."""
    odin_epsilon: float = 0.0014
    """How far odin moves every pixel, of a range from 0 to 1; 0 leaves the pixels where they are."""
    knn_neighbours: int = 50
    """Which nearest training embedding's distance knn takes."""
    mahalanobis_shrinkage: float = 0.0
    """How much of the identity is in mahalanobis's covariance, from 0 to 1."""
    seed: int = 0
    """Fixes the noise, the images that are taken and where they are cut."""
    download: bool = False
    """Fetch named sets that are absent, where that is possible."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if self.sets is not None:
            _check_names("sets", self.sets)
        _check_names("scores", self.scores)
        _check_scores(self.scores)
        for name, least in (("ood_examples", 1), ("train_examples", 1), ("knn_neighbours", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name in ("energy_temperature", "odin_temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number above 0, got {getattr(self, name)}")
        for name in ("odin_epsilon", "mahalanobis_shrinkage"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class OOD:
    """Metrics of every score on every set, named ``<set>/<score>/<metric>``; ``mean/...`` averages over the sets.

    All are fractions. ``auroc``, ``aupr_in``, ``aupr_out`` and ``detection_accuracy`` are better higher, ``fpr95`` is
    better lower; :mod:`multimix.lab.evaluate.ood.metrics` defines them. Figures ``ood/<set>`` hold for each score the
    ``edges`` of 50 bins, the fractions of images ``in`` and ``out`` of the distribution that lie in each, and at most
    200 points ``fpr``, ``tpr`` of the curve.
    """

    name: ClassVar[str] = "ood"
    Settings: ClassVar[type[SuiteSettings]] = OODSettings

    train: LabelledBatches | None
    """Training images; None where no score is fitted."""
    test: LabelledBatches
    """Images in the distribution."""
    sets: Mapping[str, LabelledBatches]
    """Images outside, by the name that metrics have; their labels mean nothing."""
    std: tuple[float, ...]
    """What each channel of the pixels was divided by, which makes ODIN's step one in pixels."""
    settings: OODSettings = field(default_factory=OODSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set and the sets of the settings.

        Raises:
            ValueError: If a set is unknown, not there, holds no image or does not fit the run's; or if there are not so
                many images as the settings want.
        """
        return cls(
            _training(source, settings),
            source.batches(source.test(settings.examples)),
            _opened(source, settings),
            source.splits.std,
            settings,
        )

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the metrics of each set as soon as it is done, then their means.

        Warns:
            UserWarning: A set shares images with the test set.
        """
        observer = self._observer(network, monitor)
        inside = observer(network, monitor.track("test", self.test))
        found: dict[str, list[float]] = {}
        for name, batches in self.sets.items():
            outside = observer(network, monitor.track(name, batches))
            _warn_shared(name, inside, outside)
            for metric, value in _compared(name, inside, outside, monitor):
                found.setdefault(metric, []).append(value)
                yield f"{name}/{metric}", value
        for metric, values in found.items():
            yield f"mean/{metric}", sum(values) / len(values)

    def _observer(self, network: Network, monitor: Monitor) -> Observer:
        wanted, knn, mahalanobis = self.settings, None, None
        if self.train is not None:
            embeddings, labels = embedded(network, monitor.track("training images", self.train))
            if "knn" in wanted.scores:
                knn = KNN.fit(embeddings, wanted.knn_neighbours)
            if "mahalanobis" in wanted.scores:
                mahalanobis = Mahalanobis.fit(embeddings, labels, shrinkage=wanted.mahalanobis_shrinkage)
        return Observer(
            names=wanted.scores,
            energy_temperature=wanted.energy_temperature,
            odin_temperature=wanted.odin_temperature,
            odin_step=tuple(wanted.odin_epsilon / std for std in self.std),
            knn=knn,
            mahalanobis=mahalanobis,
        )


def _compared(name: str, inside: Seen, outside: Seen, monitor: Monitor) -> Iterator[tuple[str, float]]:
    """Yield (score/metric, value) of one set and keep the data of its figure."""
    figure = {}
    for score, in_scores in inside.scores.items():
        taken = counts(in_scores, outside.scores[score])
        figure[score] = histograms(in_scores, outside.scores[score]) | roc(taken)
        for metric, value in all_metrics(taken).items():
            yield f"{score}/{metric}", value
    monitor.record(f"ood/{name}", {"scores": figure})


def _warn_shared(name: str, inside: Seen, outside: Seen) -> None:
    shared = int(torch.isin(outside.fingerprints, inside.fingerprints).sum())
    if shared:
        size = len(outside.fingerprints)
        warnings.warn(
            f"ood: {shared} of the {size} images of {name} are in the test set too; its metrics mean little",
            UserWarning,
            stacklevel=3,
        )


def _training(source: Source, settings: OODSettings) -> LabelledBatches | None:
    """Return the training images to fit on, as they are tested: without augmentation."""
    if not set(FITTED) & set(settings.scores):
        return None
    train = source.splits.train
    few = settings.train_examples is not None and settings.train_examples < len(train)
    part = first_of(train, settings.train_examples, what="train_examples") if few else train
    if "knn" in settings.scores and settings.knn_neighbours > len(part):
        raise ValueError(
            f"knn_neighbours={settings.knn_neighbours} must be at most the {len(part)} training images that are used"
        )
    return source.batches(part)


def _opened(source: Source, settings: OODSettings) -> dict[str, LabelledBatches]:
    own = source.splits.name
    names = defaults(own) if settings.sets is None else settings.sets
    opened: dict[str, LabelledBatches] = {}
    for name, label in zip(names, labels_of(names), strict=True):
        pixels = open_set(
            name,
            source.splits.test.shape,
            limit=settings.ood_examples,
            root=source.root,
            download=settings.download,
            seed=settings.seed,
            files=isinstance(source.splits.test, Files),
        )
        if is_own(name, own):
            warnings.warn(f"ood: {name} is the data set of the run itself", UserWarning, stacklevel=3)
        opened[label] = OutBatches(
            pixels, source.batch_size, source.splits.mean, source.splits.std, source.device, source.workers
        )
    return opened


def _check_names(what: str, names: tuple[str, ...]) -> None:
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{what} must be at least one, each once, got {', '.join(names) or 'none'}")


def _check_scores(names: tuple[str, ...]) -> None:
    for name in names:
        if name not in SCORES:
            near = difflib.get_close_matches(name.lower(), SCORES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"scores: unknown score {name!r}; known are {', '.join(SCORES)}{hint}")
