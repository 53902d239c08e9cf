"""Manifold intrusion: interpolated embeddings that land among the examples of a class that was not mixed in."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from typing_extensions import Self

from multimix.lab.data import seed_of
from multimix.lab.evaluate.embedding import nearest
from multimix.lab.evaluate.intrusion._mixed import Interpolated, LastStage, interpolate, interpolates, places_of
from multimix.lab.evaluate.predict import LabelledBatches, check_finite, each_position, evaluating
from multimix.lab.evaluate.suite import Source, SuiteSettings
from multimix.methods import DenseMultiMix, Mixup, MultiMix
from multimix.protocols import SILENT, Method, Monitor, Network, encode, pool, submethods

_BINS = 50


@dataclass(frozen=True, kw_only=True)
class IntrusionSettings(SuiteSettings):
    """What can be set of the intrusion suite."""

    mixing_batches: int = 32
    """Mini-batches that each method mixes, each into at most as many interpolated embeddings as it has examples."""
    mixing_batch: int = 128
    """Examples in a mini-batch that is mixed; it is part of what is measured."""
    threshold: float = 0.01
    """Share of an interpolated embedding from which on a class counts as mixed in."""
    positions: int = 8
    """Most positions of the map that are looked at, evenly over it, of a method that interpolates at each."""
    seed: int = 0
    """Fixes the mini-batches and how they are mixed."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        for name, least in (("mixing_batches", 1), ("mixing_batch", 2), ("positions", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must lie in (0, 1], got {self.threshold}")


@dataclass(frozen=True)
class Intrusion:
    """Where a method's interpolated embeddings lie among the clean embeddings of the test set.

    For the run's own method (``own/``; none if it mixes nothing) and, on the same network, for pairs of inputs
    (``mixup/``) and of the last stage's maps (``manifold-mixup/``), both with uniform lambdas, and MultiMix with its
    defaults (``multimix/``):

    ``intrusion_rate``, how often the nearest clean example is of a class that was not mixed in (fraction);
    ``nearest_class_weight``, how much of the nearest example's class was mixed in (mean weight, 0 to 1);
    ``distance``, how far it is (mean, in units of the mean distance of a clean example to the nearest other one; left
    out where that is 0).

    ``clean/intrusion_rate`` is how often a clean example's nearest other one is of another class.
    """

    name: ClassVar[str] = "intrusion"
    Settings: ClassVar[type[SuiteSettings]] = IntrusionSettings

    batches: LabelledBatches
    """The clean examples: inputs and class indices, in any number of batches."""
    mixing: LabelledBatches
    """The mini-batches that are mixed."""
    classes: int
    """How many classes there are."""
    method: Method
    """What the network was trained by."""
    settings: IntrusionSettings = field(default_factory=IntrusionSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set.

        Raises:
            ValueError: If the test set is smaller than a mini-batch to mix.
        """
        test, size = source.test(settings.examples), settings.mixing_batch
        if len(test) < size:
            raise ValueError(f"mixing_batch={size} must be at most {len(test)}, the test images there are")
        each = (_generator(settings.seed, "batch", i) for i in range(settings.mixing_batches))
        chosen = torch.cat([torch.randperm(len(test), generator=generator)[:size] for generator in each])
        mixing = replace(source, batch_size=size).batches(test.subset(chosen))
        return cls(source.batches(test), mixing, source.classes, source.method, settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the metrics, and keep the distances' histogram."""
        with evaluating(network), torch.no_grad():
            references = self._references(network, monitor)
            pooled = references[False]
            clean, places = nearest(pooled.embeddings[0], pooled.embeddings[0], apart=True)
            yield "clean/intrusion_rate", _share(pooled.labels[places[:, 0]] != pooled.labels)
            distances = {"clean": pooled.relative(clean)}
            for name, method in self._methods(network):
                found = [*self._nearest(name, method, network, references, monitor)]
                if found:
                    far, weight = (torch.cat(values) for values in zip(*found, strict=True))
                    distances[name] = far
                    yield from self._metrics(name, far, weight)
        _record_histogram(monitor, {name: far for name, far in distances.items() if far.isfinite().all()})

    def _methods(self, network: Network) -> Iterator[tuple[str, Method]]:
        if interpolates(self.method):
            yield "own", copy.deepcopy(self.method)  # some learn as they mix
        yield Mixup.name, Mixup(mode="elem")  # a lambda for each pair tells more than one for all
        yield LastStage.name, LastStage()
        yield MultiMix.name, MultiMix()

    def _metrics(self, name: str, far: Tensor, weight: Tensor) -> Iterator[tuple[str, float]]:
        yield f"{name}/intrusion_rate", _share(weight < self.settings.threshold)
        yield f"{name}/nearest_class_weight", float(weight.mean())
        if far.isfinite().all():
            yield f"{name}/distance", float(far.mean())

    def _nearest(
        self, name: str, method: Method, network: Network, references: "dict[bool, References]", monitor: Monitor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield relative distance and class weight of what is nearest to each interpolated embedding."""
        for i, (inputs, labels) in enumerate(monitor.track(name, self.mixing)):
            found = interpolate(
                method,
                network,
                inputs,
                labels,
                classes=self.classes,
                generator=_generator(self.settings.seed, "mix", i),
                tuples=len(inputs),
                positions=self.settings.positions,
            )
            if found is not None:
                yield references[found.places is not None].find(found)

    def _references(self, network: Network, monitor: Monitor) -> "dict[bool, References]":
        """Return the clean embeddings, pooled (False) and, if the method interpolates there, at some positions."""
        at_positions = any(isinstance(part, DenseMultiMix) for part in submethods(self.method))
        found: dict[bool, list[Tensor]] = {False: [], True: []} if at_positions else {False: []}
        labels: list[Tensor] = []
        for inputs, targets in monitor.track("clean", self.batches):
            output = encode(network, inputs)
            labels.append(targets)
            found[False].append(pool(network, output).unsqueeze(0))
            if at_positions:
                places = places_of(output.features.shape[1], self.settings.positions)
                found[True].append(each_position(network, output, places).transpose(0, 1))
        return {where: References.of(values, torch.cat(labels)) for where, values in found.items()}


@dataclass(frozen=True)
class References:
    """Clean embeddings, pooled (p = 1) or at each of p positions."""

    embeddings: Tensor
    """(p, m, d)."""
    labels: Tensor
    """(m,)."""
    scale: float
    """Mean distance of an example to the nearest other one, over all positions."""

    @classmethod
    def of(cls, batches: Iterable[Tensor], labels: Tensor) -> "References":
        """Gather batches (p, b, d)."""
        embeddings = torch.cat(list(batches), 1).float()
        check_finite(embeddings, "embeds as")
        distances = torch.cat([nearest(values, values, apart=True)[0] for values in embeddings])
        return cls(embeddings, labels, float(distances.mean()))

    def find(self, mixed: Interpolated) -> tuple[Tensor, Tensor]:
        """Return, of each interpolated embedding, relative distance and class weight of the nearest clean one."""
        found = []
        for values, weights, clean in zip(mixed.embeddings, mixed.weights, self.embeddings, strict=True):
            check_finite(values, "embeds as")
            far, places = nearest(values.float(), clean)
            found.append((self.relative(far), weights.gather(1, self.labels[places])[:, 0].double()))
        far, weight = (torch.cat(values) for values in zip(*found, strict=True))
        return far, weight

    def relative(self, distances: Tensor) -> Tensor:
        """Return distances (n, 1) in units of the scale, (n,)."""
        return distances[:, 0] / self.scale if self.scale > 0 else torch.full_like(distances[:, 0], torch.inf)


def _record_histogram(monitor: Monitor, distances: dict[str, Tensor]) -> None:
    """Keep the share of each method's distances in bins that are the same for all."""
    if not distances:
        return
    most = max(float(far.max()) for far in distances.values()) or 1.0
    counts = {name: torch.histc(far.cpu(), _BINS, 0, most) / len(far) for name, far in distances.items()}
    edges = torch.linspace(0, most, _BINS + 1, dtype=torch.float64)
    monitor.record("intrusion", {"edges": edges.tolist(), **{name: count.tolist() for name, count in counts.items()}})


def _share(of: Tensor) -> float:
    return float(of.double().mean())


def _generator(seed: int, what: str, number: int) -> Generator:
    return Generator().manual_seed(seed_of("intrusion", seed, what, number))
