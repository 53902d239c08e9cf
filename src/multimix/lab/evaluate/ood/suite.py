"""Out-of-distribution detection: how well scores of one image tell the run's own test set from other sets."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from typing_extensions import Self

from multimix._declared import Count, Fraction, Positive
from multimix.lab.data import first_of, seed_of
from multimix.lab.evaluate.ood import scores as score
from multimix.lab.evaluate.ood.scores import KNN, METRICS, SCORES, Mahalanobis, ScoreName, histograms, roc
from multimix.lab.evaluate.ood.sets import BUILT_IN, labels_of, open_set, taken_apart
from multimix.lab.evaluate.passes import LabelledBatches, check_finite, concatenated, embed, evaluating, not_alone
from multimix.lab.evaluate.suite import Limit, Source, SuiteSettings, Usual, adjusted, check_each_once, warn
from multimix.protocols import SILENT, Monitor, Network

Fitted = dict[str, Callable[[Tensor], Tensor]]  # from embeddings (b, d) to scores (b,)
_FITTED = {"knn", "mahalanobis"}  # scores that know the embeddings of training images
Seen = tuple[dict[str, Float64[Tensor, " n"]], Int64[Tensor, " n"]]  # each score of every image, and fingerprints


@dataclass(frozen=True, kw_only=True)
class OODSettings(SuiteSettings):
    """What can be set of out-of-distribution detection."""

    sets: tuple[str, ...] | None = None
    """Names or paths of the other sets (docs/evaluation/ood.md lists them); by default gaussian-noise, uniform-noise
    and digits, without the run's own."""
    scores: tuple[ScoreName, ...] = SCORES
    """Which scores; odin takes three times the time of the others together."""
    ood_examples: Count = 10_000
    """Images of each other set, taken by chance from a larger one."""
    train_examples: Count | None = 10_000
    """Training images that knn and mahalanobis are fitted on, the same share of each class; None takes all."""
    energy_temperature: Positive = 1.0
    """Divides the logits of energy."""
    odin_temperature: Positive = 1000.0
    """Divides the logits of odin."""
    odin_epsilon: Fraction = 0.0014
    """How far odin moves every pixel, of a range from 0 to 1; 0 leaves the pixels where they are."""
    knn_neighbours: Count = field(default=Usual(50))
    """Which nearest training embedding's distance knn takes."""
    mahalanobis_shrinkage: Fraction = 0.0
    """How much of the identity is in mahalanobis's covariance, from 0 to 1."""
    seed: int = 0
    """Fixes the noise, the images that are taken and where they are cut."""
    download: bool = False
    """Fetch named sets that are absent, where that is possible."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        check_each_once(scores=self.scores, **({} if self.sets is None else {"sets": self.sets}))

    def limits(self, source: Source) -> Iterator[Limit]:
        """Yield what the number of training images allows."""
        if "knn" in self.scores:
            count = len(source.splits.train)
            used = min(self.train_examples or count, count)
            share = max(1, used // len(source.splits.classes))
            yield Limit("knn_neighbours", 1, used, share, f"as there are only {used} training images to look in")


@dataclass(frozen=True)
class OOD:
    """Metrics of every score on every set, named ``<set>/<score>/<metric>``; ``mean/...`` averages over the sets.

    All are fractions: ``auroc``, ``aupr_in``, ``aupr_out`` and ``detection_accuracy``, better higher, and ``fpr95``,
    better lower. Figures ``ood/<set>`` hold for each score the ``edges`` of 50 bins, the fractions of images ``in`` and
    ``out`` of the distribution that lie in each, and at most 200 points ``fpr``, ``tpr`` of the curve.
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
        """Return the suite over a run's test set and the sets of the settings."""
        settings = adjusted(cls.name, settings, source)
        train, test = _training(source, settings), source.batches(source.test(settings.examples))
        own = source.splits.name
        names = tuple(name for name in BUILT_IN if name != own) if settings.sets is None else settings.sets
        for name in names:
            if taken_apart(name)[1] == own:
                warn("ood", f"{name} is the data set of the run itself")
        how: dict[str, Any] = {"limit": settings.ood_examples, "download": settings.download, "seed": settings.seed}
        sets = {label: open_set(name, source, **how) for name, label in zip(names, labels_of(names), strict=True)}
        return cls(train, test, sets, source.splits.std, settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the metrics of each set as soon as it is done, then their means; warn of images that are the run's."""
        fitted, trained_on = self._fitted(network, monitor)
        inside = self._seen(network, monitor.track("test", self.test), fitted)
        found: dict[str, list[float]] = {}
        for name, batches in self.sets.items():
            outside = self._seen(network, monitor.track(name, batches), fitted)
            for where, known in (("test set", inside[1]), ("training images", trained_on)):
                if shared := int(torch.isin(outside[1], known).sum()):
                    of = f"{shared} of the {len(outside[1])} images of {name}"
                    warn("ood", f"{of} are in the {where} too; its metrics mean little")
            for metric, value in _compared(name, inside, outside, monitor):
                found.setdefault(metric, []).append(value)
                yield f"{name}/{metric}", value
        for metric, values in found.items():
            yield f"mean/{metric}", sum(values) / len(values)

    def _fitted(self, network: Network, monitor: Monitor) -> tuple[Fitted, Int64[Tensor, " n"]]:
        """Return the scores that know training embeddings, and fingerprints of the training images."""
        wanted, prints = self.settings, [torch.empty(0, dtype=torch.int64)]
        if self.train is None:
            return {}, prints[0]

        def taken(batches: LabelledBatches) -> LabelledBatches:
            for inputs, labels in batches:
                prints.append(fingerprints(inputs).cpu())
                yield inputs, labels

        embeddings, labels = embed(network, taken(monitor.track("training images", self.train)))
        fits: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
            "knn": lambda: KNN(embeddings, wanted.knn_neighbours),
            "mahalanobis": lambda: Mahalanobis(embeddings, labels, shrinkage=wanted.mahalanobis_shrinkage),
        }
        fitted: Fitted = {}
        for name in (name for name in fits if name in wanted.scores):
            try:
                fitted[name] = fits[name]()
            except ValueError as error:  # there are too few images, or all embeddings are one
                if len(wanted.scores) == 1:
                    raise
                warn("ood", f"{name} is left out: {error}")
        return fitted, torch.cat(prints)

    def _seen(self, network: Network, batches: LabelledBatches, fitted: Fitted) -> Seen:
        rows, names = [], [name for name in self.settings.scores if name in fitted or name not in _FITTED]
        with evaluating(network):
            for inputs, _ in batches:
                scores = self._scores(network, inputs, fitted)
                values = torch.stack([scores[name][: len(inputs)].cpu() for name in names], 1)
                rows.append((values, fingerprints(inputs).cpu()))
        values, prints = concatenated(rows)
        return dict(zip(names, values.T.contiguous(), strict=True)), prints

    def _scores(self, network: Network, inputs: Tensor, fitted: Fitted) -> dict[str, Tensor]:
        """Return all scores: of a forward pass, and for ODIN a backward and another forward pass."""
        wanted = self.settings
        moves = "odin" in wanted.scores and wanted.odin_epsilon > 0
        inputs = not_alone(inputs.detach()).requires_grad_() if moves else inputs.detach()
        with torch.set_grad_enabled(moves):
            embeddings = network.pool(network.embed(inputs))
            logits = network.classify(embeddings)
        check_finite(embeddings, "embeds as")
        check_finite(logits, "predicts", ruled_out=True)
        surest = logits
        if moves:
            step = torch.tensor([wanted.odin_epsilon / std for std in self.std], dtype=inputs.dtype).to(inputs.device)
            moved = score.nudged(inputs, logits, step=step.view(-1, 1, 1), temperature=wanted.odin_temperature)
            with torch.no_grad():
                surest = network(moved)
            check_finite(surest, "predicts", ruled_out=True)
        return {
            "msp": score.msp(logits),
            "max_logit": score.max_logit(logits),
            "energy": score.energy(logits, wanted.energy_temperature),
            "odin": score.msp(surest, wanted.odin_temperature),
            **{name: of(embeddings) for name, of in fitted.items()},
        }


def _compared(name: str, inside: Seen, outside: Seen, monitor: Monitor) -> Iterator[tuple[str, float]]:
    """Yield (score/metric, value) of one set and keep the data of its figure."""
    figure = {}
    for kind, in_scores in inside[0].items():
        both = in_scores, outside[0][kind]
        figure[kind] = histograms(*both) | roc(*both)
        for metric, function in METRICS.items():
            yield f"{kind}/{metric}", function(*both)
    monitor.record(f"ood/{name}", {"scores": figure})


def fingerprints(images: Tensor) -> Int64[Tensor, " n"]:
    """Return a 64-bit number for each image, the same for the same pixels on one device."""
    # A sum of the values' bits with fixed random weights: two different images agree with a probability below 2**-32.
    bits = images.detach().float().flatten(1).contiguous().view(torch.int32).long()
    generator = torch.Generator().manual_seed(seed_of("fingerprint"))
    weights = torch.randint(-(2**63), 2**63 - 1, (bits.shape[1],), generator=generator)
    return (bits * weights.to(bits.device)).sum(1)


def _training(source: Source, settings: OODSettings) -> LabelledBatches | None:
    """Return the training images to fit on, as they are tested: without augmentation."""
    if not _FITTED & set(settings.scores):
        return None
    train = source.splits.train
    used = min(settings.train_examples or len(train), len(train))
    return source.batches(first_of(train, used, what="train_examples"))
