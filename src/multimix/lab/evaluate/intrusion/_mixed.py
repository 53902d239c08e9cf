"""What each method makes a network classify: interpolated embeddings and the class weights that belong to them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from multimix.distill import SelfDistilled
from multimix.lab.evaluate.predict import each_position
from multimix.methods import ERM, AdaMixUp, Alternate, AutoMix, Chain, DenseMultiMix, ManifoldMixup, MultiMix, Until
from multimix.methods._predict import InputMixing, Mixing, Predicts
from multimix.methods._tuple_loss import Embedded
from multimix.methods.adamixup import PolicyMixing
from multimix.methods.manifold import _AtStage
from multimix.methods.mixup import draw_pairing
from multimix.ops import as_probabilities, interpolate_positions, reweight
from multimix.protocols import EncoderOutput, Method, Network, encode, submethods

_ATTEMPTS = 10
"""Draws of a method that leaves some mini-batches as they are, until one is mixed."""


@dataclass(frozen=True)
class Interpolated:
    """Interpolated embeddings of one mini-batch, pooled (p = 1) or at each of p positions."""

    embeddings: Float[Tensor, "p n d"]
    weights: Float[Tensor, "p n k"]
    """How much of each class is in them; rows sum to 1."""
    places: tuple[int, ...] | None = None
    """The positions, by their numbers on the network's map; None of pooled embeddings."""


@dataclass(frozen=True)
class LastStage(Predicts):
    """Manifold mixup at the network's last stage, each pair with a lambda of its own, uniform in [0, 1]."""

    name: ClassVar[str] = ManifoldMixup.name

    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw partners and lambdas: those that Mixup draws from the same generator."""
        return _AtStage(network.stages[-1], draw_pairing(len(inputs), 1.0, inputs, generator, "elem"))


def interpolates(method: Method) -> bool:
    """Return whether a method, or one inside it, mixes, and has all it needs for that.

    AutoMix and AdaMixUp mix by networks of their own, which a run's files do not hold: untrained they are of no use.
    """
    return any(_mixes(part) for part in submethods(method))


def _mixes(method: Method) -> bool:
    if isinstance(method, AutoMix):
        return method.unet is not None
    if isinstance(method, AdaMixUp):
        return method.policy is not None
    return isinstance(method, Predicts | MultiMix | DenseMultiMix) and not isinstance(method, ERM)


def interpolate(
    method: Method,
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    *,
    classes: int,
    generator: Generator,
    tuples: int,
    positions: int = 1,
) -> Interpolated | None:
    """Return what a method interpolates of a mini-batch; None if that is nothing.

    The draws are those of a training step, in eval mode if the network is. Of a method made of methods it is the inner
    one's: of Alternate one that is drawn, of Until the first, of Chain the second's on inputs that the first mixed.

    Args:
        method: Interpolates.
        network: Embeds.
        inputs: A mini-batch.
        labels: Class indices (b,), or probabilities (b, k).
        classes: How many there are, k.
        generator: Source of randomness.
        tuples: Most interpolated embeddings, n.
        positions: Most positions of the map, for a method that interpolates at each.
    """
    for _ in range(_ATTEMPTS):
        inner, targets = _inner(method, generator), as_probabilities(labels, classes)
        if isinstance(inner, Chain):
            mixing = inner.first.draw(network, inputs, labels, generator)
            mixed, shared = mixing.mix(inputs), mixing.mix_targets(targets)
            again = partial(interpolate, classes=classes, generator=generator, tuples=tuples, positions=positions)
            return again(inner.then, network, mixed, shared)
        if isinstance(inner, MultiMix):
            return _of_tuples(inner, network, inputs, targets, generator, tuples)
        if isinstance(inner, DenseMultiMix):
            return _of_positions(inner, network, inputs, targets, generator, tuples, positions)
        if isinstance(inner, Predicts | AdaMixUp) and _mixes(inner):
            mixing = inner.draw(network, inputs, labels, generator)
            if (found := _of_examples(mixing, network, inputs, targets, tuples)) is not None:
                return found
    return None


def _inner(method: Method, generator: Generator) -> Method:
    while isinstance(method, SelfDistilled | Until | Alternate):
        method = method.choose(generator) if isinstance(method, Alternate) else method.method
    return method


def _of_tuples(
    method: MultiMix, network: Network, inputs: Tensor, targets: Tensor, generator: Generator, tuples: int
) -> Interpolated:
    values = network.pool(network.embed(inputs)).unsqueeze(1)
    weights = method.draw_weights(len(inputs), tuples, like=values, generator=generator).unsqueeze(0)
    return Interpolated(interpolate_positions(weights, values), weights @ targets.to(weights.dtype))


def _of_positions(
    method: DenseMultiMix,
    network: Network,
    inputs: Tensor,
    targets: Tensor,
    generator: Generator,
    tuples: int,
    positions: int,
) -> Interpolated:
    output = encode(network, inputs)
    places = places_of(output.features.shape[1], positions)
    attention = method.attend(Embedded(network, each_position(network, output)), targets)[:, places]
    sets = 1 if method.shared else len(places)
    drawn = method.draw_weights(len(inputs), sets * tuples, like=output.features, generator=generator)
    weights = reweight(drawn if method.shared else drawn.unflatten(0, (sets, tuples)), attention)
    embeddings = interpolate_positions(weights, each_position(network, output, places))
    return Interpolated(embeddings, weights @ targets.to(weights.dtype), tuple(places))


def places_of(r: int, most: int) -> list[int]:
    """Return so many of r positions, evenly over the map; all if there are no more."""
    return torch.linspace(0, r - 1, min(r, most)).round().long().tolist()


def _of_examples(mixing: Mixing, network: Network, inputs: Tensor, targets: Tensor, tuples: int) -> Interpolated | None:
    """Return what a mixing feeds the classifier, less the examples that it leaves as they are."""
    weights = mixing.mix_targets(targets)
    if isinstance(mixing, InputMixing):
        mixed = mixing.mix(inputs)
        rows = _changed(mixing, mixed, inputs)[:tuples]
        if not len(rows):
            return None
        embeddings = network.pool(network.embed(mixed[rows]))
        return Interpolated(embeddings.unsqueeze(0), weights[rows].unsqueeze(0))
    recorder = _Recorder(network)
    mixing.predict(recorder, inputs)
    (embeddings,) = recorder.seen
    return Interpolated(embeddings[:tuples].unsqueeze(0), weights[:tuples].unsqueeze(0))


def _changed(mixing: Mixing, mixed: Tensor, inputs: Tensor) -> Tensor:
    """Return which of the mixed inputs are not those of the mini-batch in the same place."""
    if isinstance(mixing, PolicyMixing):  # clean ones follow
        mixed = mixed[: len(mixing.partners)]
    return (mixed != inputs[: len(mixed)]).flatten(1).any(1).nonzero().flatten()


class _Recorder:
    """A network that remembers what it is given to classify."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.head, self.stages = network.head, network.stages
        self.seen: list[Tensor] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        return self.classify(self.pool(self.embed(inputs)))

    def embed(self, inputs: Tensor) -> EncoderOutput | Tensor:
        return self._network.embed(inputs)

    def pool(self, output: Any) -> Tensor:
        return self._network.pool(output)

    def classify(self, embeddings: Tensor) -> Tensor:
        self.seen.append(embeddings)
        return self._network.classify(embeddings)

    def mixing_at(self, stage: int, mix: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
        return self._network.mixing_at(stage, mix)
