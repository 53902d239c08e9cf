"""Manifold intrusion: interpolated embeddings that land among the examples of a class that was not mixed in."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from typing_extensions import Self

from multimix._declared import Count, Ge, Interval
from multimix.lab.data import seed_of
from multimix.lab.evaluate.embedding import nearest
from multimix.lab.evaluate.passes import LabelledBatches, check_finite, concatenated, each_position, evaluating, mean
from multimix.lab.evaluate.suite import Limit, Source, SuiteSettings, Usual, adjusted, warn
from multimix.methods import ManifoldMixup, Mixup, MultiMix
from multimix.methods._predict import Mixing, Predicts
from multimix.methods.mixup import AtStage, draw_pairing
from multimix.ops import as_probabilities, reweight
from multimix.protocols import SILENT, Method, Monitor, Network, declares, encode, pool, submethods

_ATTEMPTS = 10  # draws of a method that leaves some mini-batches as they are, until one is mixed
_BINS = 50


@dataclass(frozen=True)
class Interpolated:
    """Interpolated embeddings of one mini-batch, pooled (p = 1) or at each of p positions."""

    embeddings: Float[Tensor, "p n d"]
    weights: Float[Tensor, "p n k"]  # how much of each class is in them; rows sum to 1
    places: tuple[int, ...] | None = None  # the positions' numbers on the network's map; None of pooled embeddings


@dataclass(frozen=True)
class LastStage(Predicts):
    """Manifold mixup at the network's last stage, each pair with a lambda of its own, uniform in [0, 1]."""

    name: ClassVar[str] = ManifoldMixup.name

    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw partners and lambdas: those that Mixup draws from the same generator."""
        return AtStage(draw_pairing(len(inputs), 1.0, inputs, generator, "elem"), network.stages[-1])


def interpolate(
    method: Any,
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    *,
    classes: int,
    generator: Generator,
    positions: int = 1,
) -> Interpolated | None:
    """Return what a method interpolates of a mini-batch, at most one thing an example; None if that is nothing."""
    targets = as_probabilities(labels, classes)
    for _ in range(_ATTEMPTS):
        inner = _inner(method, generator)
        if hasattr(inner, "first"):  # of Chain what the second makes of inputs that the first mixed
            mixing = inner.first.draw(network, inputs, labels, generator)
            mixed, shared = mixing.mix(inputs), mixing.mix_targets(targets)
            how: dict[str, Any] = {"classes": classes, "generator": generator, "positions": positions}
            return interpolate(inner.then, network, mixed, shared, **how)
        if hasattr(inner, "encode"):
            return _of_tuples(inner, network, inputs, targets, generator, positions)
        if getattr(inner, "mixes", False):
            mixing = inner.draw(network, inputs, labels, generator)
            if (found := _of_examples(mixing, network, inputs, targets)) is not None:
                return found
    return None


def _inner(method: Any, generator: Generator) -> Any:
    """Return the method that a method around methods lets have a step."""
    if hasattr(method, "choose"):
        return _inner(method.choose(generator), generator)
    return _inner(method.method, generator) if hasattr(method, "method") else method


def _of_tuples(
    method: Any, network: Network, inputs: Tensor, targets: Tensor, generator: Generator, positions: int
) -> Interpolated:
    """Return as many tuples as there are examples, at some positions if the method interpolates there."""
    n, own = len(inputs), method.encode(network, inputs)
    attention = method.attend(network, own, targets)
    if attention is None:
        values, places = own.values.unsqueeze(1), None
        weights = method.draw_weights(n, n, like=values, generator=generator).unsqueeze(0)
    else:
        places = places_of(own.values.shape[1], positions)
        values, sets = own.values[:, places], None if own.sets is None else len(places)
        drawn = method.draw_weights(n, n * (sets or 1), like=values, generator=generator)
        weights = reweight(drawn.unflatten(0, (sets, n)) if sets else drawn, attention[:, places])
    mixed, shared = weights.to(values.dtype) @ values.transpose(0, 1), weights @ targets.to(weights.dtype)
    return Interpolated(mixed, shared, None if places is None else tuple(places))


def places_of(r: int, most: int) -> list[int]:
    """Return so many of r positions, evenly over the map; all if there are no more."""
    return torch.linspace(0, r - 1, min(r, most)).round().long().tolist()


def _of_examples(mixing: Mixing, network: Network, inputs: Tensor, targets: Tensor) -> Interpolated | None:
    """Return what a mixing feeds the classifier, less the examples that it leaves as they are."""
    weights = mixing.mix_targets(targets)
    if not mixing.inside:
        mixed = mixing.mix(inputs)
        paired = mixed[: len(getattr(mixing, "partners", mixed))]  # of some methods clean ones follow
        rows = (paired != inputs[: len(paired)]).flatten(1).any(1).nonzero().flatten()
        if not len(rows):
            return None
        embeddings, weights = network.pool(network.embed(mixed[rows])), weights[rows]
    else:
        recorder = _Recorder(network)
        mixing.predict(cast("Network", recorder), inputs)
        (embeddings,) = recorder.seen
    n = len(inputs)
    return Interpolated(embeddings[:n].unsqueeze(0), weights[:n].unsqueeze(0))


class _Recorder:
    """A network that remembers what it is given to classify."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.seen: list[Tensor] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        return self.classify(self._network.pool(self._network.embed(inputs)))

    def classify(self, embeddings: Tensor) -> Tensor:
        self.seen.append(embeddings)
        return self._network.classify(embeddings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


@dataclass(frozen=True, kw_only=True)
class IntrusionSettings(SuiteSettings):
    """What can be set of the intrusion suite."""

    mixing_batches: Count = 32
    """Mini-batches that each method mixes, each into at most as many interpolated embeddings as it has examples."""
    mixing_batch: Annotated[int, Ge(2)] = field(default=Usual(128))
    """Examples in a mini-batch that is mixed; it is part of what is measured."""
    threshold: Annotated[float, Interval(gt=0, le=1)] = 0.01
    """Share of an interpolated embedding from which on a class counts as mixed in."""
    positions: Count = 8
    """Most positions of the map that are looked at, evenly over it, of a method that interpolates at each."""
    seed: Annotated[int, Ge(0)] = 0
    """Fixes the mini-batches and how they are mixed."""

    def limits(self, source: Source) -> Iterator[Limit]:
        """Yield what the number of test images allows."""
        count = self.examples or len(source.splits.test)
        yield Limit("mixing_batch", 2, count, count, f"as there are only {count} test images")


@dataclass(frozen=True)
class Intrusion:
    """Where a method's interpolated embeddings lie among the clean embeddings of the test set.

    For the run's own method (``own/``; none if it mixes nothing) and, on the same network, for pairs of inputs
    (``mixup/``) and of the last stage's maps (``manifold-mixup/``), both with uniform lambdas, and MultiMix with its
    defaults (``multimix/``): ``intrusion_rate``, how often the nearest clean example is of a class that was not mixed
    in (fraction); ``nearest_class_weight``, how much of its class was mixed in (mean weight, 0 to 1); ``distance``, how
    far it is (mean, in units of the mean distance of a clean example to the nearest other one; left out where that is
    0). ``clean/intrusion_rate`` is how often a clean example's nearest other one is of another class.
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
        """Return the suite over a run's test set."""
        settings = adjusted(cls.name, settings, source)
        test, size = source.test(settings.examples), settings.mixing_batch
        each = (_generator(settings.seed, "batch", i) for i in range(settings.mixing_batches))
        chosen = torch.cat([torch.randperm(len(test), generator=generator)[:size] for generator in each])
        mixing = replace(source, batch_size=size).batches(test.subset(chosen))
        return cls(source.batches(test), mixing, len(source.splits.classes), source.method, settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the metrics, and keep the distances' histogram."""
        with evaluating(network), torch.no_grad():
            references = self._references(network, monitor)
            pooled = references[False]
            far, places = pooled.own[0]
            yield "clean/intrusion_rate", mean(pooled.labels[places[:, 0]] != pooled.labels)
            distances = {"clean": pooled.relative(far)}
            for name, method in self._methods():
                mixed = self._interpolated(name, method, network, monitor.track(name, self.mixing))
                if not (found := [references[each.places is not None].find(each) for each in mixed]):
                    continue
                distances[name], weight = concatenated(found)
                yield f"{name}/intrusion_rate", mean(weight < self.settings.threshold)
                yield f"{name}/nearest_class_weight", mean(weight)
                if distances[name].isfinite().all():
                    yield f"{name}/distance", mean(distances[name])
        if known := {name: far for name, far in distances.items() if far.isfinite().all()}:
            monitor.record("intrusion", _histograms(known))

    def _methods(self) -> Iterator[tuple[str, Method]]:
        inner = submethods(self.method)
        if lost := [
            each.name for each in inner if getattr(each, "trains_modules", False) and not declares(each, "mixes")
        ]:
            warn("intrusion", f"own is left out: what {lost[0]} learned beside the network is not in the run's weights")
        elif declares(self.method, "mixes"):
            yield "own", copy.deepcopy(self.method)  # some learn as they mix
        yield Mixup.name, Mixup(mode="elem")  # a lambda for each pair tells more than one for all
        yield LastStage.name, LastStage()
        yield MultiMix.name, MultiMix()

    def _interpolated(
        self, name: str, method: Method, network: Network, mixing: LabelledBatches
    ) -> Iterator[Interpolated]:
        how: dict[str, Any] = {"classes": self.classes, "positions": self.settings.positions}
        seen = clean = 0
        for i, (inputs, labels) in enumerate(mixing):
            generator = _generator(self.settings.seed, "mix", i)
            found = interpolate(method, network, inputs, labels, generator=generator, **how)
            seen, clean = seen + 1, clean + (found is None)
            if found is not None:
                yield found
        if not seen:
            raise ValueError("mixing must hold at least one batch at every iteration, got none")
        if clean:
            warn("intrusion", f"{name} left {clean} of {seen} mini-batches as they were, which do not count")

    def _references(self, network: Network, monitor: Monitor) -> "dict[bool, References]":
        """Return the clean embeddings, pooled (False) and, if the method interpolates there, at some positions."""
        inner = submethods(self.method)
        at_positions = any(hasattr(each, "encode") and declares(each, "needs_positions") for each in inner)
        found = []
        for inputs, labels in monitor.track("clean", self.batches):
            output = encode(network, inputs)
            clean = [labels, pool(network, output).unsqueeze(1)]
            if at_positions:
                places = places_of(output.features.shape[1], self.settings.positions)
                clean.append(each_position(network, output, places))
            found.append(clean)
        labels, *embeddings = concatenated(found)
        return {bool(i): References(values.transpose(0, 1), labels) for i, values in enumerate(embeddings)}


class References:
    """Clean embeddings (p, m, d), pooled (p = 1) or at each of p positions, and the classes (m,) of the examples."""

    def __init__(self, embeddings: Tensor, labels: Tensor) -> None:
        check_finite(embeddings, "embeds as")
        self.embeddings, self.labels = embeddings.float(), labels
        # Of each position, how far each example's nearest other one is, and which it is.
        self.own = [nearest(values, values, apart=True) for values in self.embeddings]
        self.scale = float(torch.cat([far for far, _ in self.own]).mean())

    def find(self, mixed: Interpolated) -> tuple[Tensor, ...]:
        """Return, of each interpolated embedding, relative distance and class weight of the nearest clean one."""
        check_finite(mixed.embeddings, "embeds as")
        found = []
        for values, weights, clean in zip(mixed.embeddings, mixed.weights, self.embeddings, strict=True):
            far, places = nearest(values.float(), clean)
            found.append((self.relative(far), weights.gather(1, self.labels[places])[:, 0].double()))
        return concatenated(found)

    def relative(self, distances: Tensor) -> Tensor:
        """Return distances (n, 1), as (n,), in units of the mean distance of an example to the nearest other one."""
        return distances[:, 0] / self.scale if self.scale > 0 else torch.full_like(distances[:, 0], torch.inf)


def _histograms(distances: dict[str, Tensor]) -> dict[str, list[float]]:
    """Return the share of each method's distances in bins that are the same for all, and their edges."""
    most = max(float(far.max()) for far in distances.values()) or 1.0
    shares = {name: torch.histc(far.cpu(), _BINS, 0, most) / len(far) for name, far in distances.items()}
    edges = torch.linspace(0, most, _BINS + 1, dtype=torch.float64)
    return {"edges": edges.tolist(), **{name: share.tolist() for name, share in shares.items()}}


def _generator(seed: int, what: str, number: int) -> Generator:
    return Generator().manual_seed(seed_of("intrusion", seed, what, number))
