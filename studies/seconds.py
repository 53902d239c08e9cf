"""Equal seconds instead of equal epochs: a method whose step takes longer trains for fewer epochs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from comparison import first_candidate
from multimix.distill import SelfDistilled
from multimix.lab.recipes import Study, arms, cifar10_small, digits
from multimix.lab.train import TrainConfig
from multimix.methods import ERM
from multimix.protocols import Method

COSTS: Mapping[str, Mapping[str, float]] = {
    "digits": {
        "erm": 1.0,
        "mixup": 0.99,
        "cutmix": 1.01,
        "manifold-mixup": 1.03,
        "saliencymix": 1.02,
        "alignmix": 1.23,
        "puzzlemix": 1.92,
        "co-mixup": 5.47,
        "multimix": 1.1,
        "multimix-balanced": 1.29,
        "multimix-recommended": 1.35,
        "dense-multimix": 2.66,
        "distilled-multimix": 1.53,
    },
    "cifar10-small": {
        "erm": 1.0,
        "mixup": 1.0,
        "cutmix": 1.0,
        "manifold-mixup": 1.02,
        "multimix-recommended": 1.08,
        "dense-multimix": 1.59,
        "puzzlemix": 1.83,
        "distilled-multimix": 1.43,
    },
}
"""How long a training step takes by recipe and method, in steps of plain training.

Source: ``benchmarks/step-recipes-cpu.jsonl``, which ``scripts/step_costs.py`` wrote: medians over interleaved rounds on
one thread, which is what a run of a study has.
"""

_PAIRWISE = ("mixup", "cutmix", "manifold-mixup")


def digits_seconds() -> Study:
    """Which method pays on digits where all train for as many seconds as plain training does?"""
    names = (*_PAIRWISE, "saliencymix", "alignmix", "puzzlemix", "co-mixup", "multimix", "multimix-balanced")
    ours = ("multimix-recommended", "dense-multimix", "distilled-multimix")
    return _study("digits-seconds", digits_seconds, digits(), (*names, *ours))


def cifar10_small_seconds() -> Study:
    """Which method pays on a tenth of CIFAR-10 where all train for as many seconds as plain training does?

    Nothing is tuned; the weight decay is the one that all methods preferred in the trials of ``cifar10-small``.
    """
    base = cifar10_small()
    base = replace(base, optimizer=replace(base.optimizer, weight_decay=4 * base.optimizer.weight_decay))
    names = (*_PAIRWISE, "multimix-recommended", "dense-multimix", "puzzlemix", "distilled-multimix")
    return _study("cifar10-small-seconds", cifar10_small_seconds, base, names)


def within(epochs: int, cost: float) -> int:
    """Return how many whole epochs fit into the time of ``epochs`` of plain training, at least 1."""
    return max(1, round(epochs / cost))


def _study(name: str, about: Callable[[], Study], base: TrainConfig, names: Iterable[str]) -> Study:
    costs = COSTS[base.recipe]
    methods = {"erm": ERM(), **{label: _method(label) for label in names}}
    equal = {
        label: tuple(replace(config, epochs=within(base.epochs, costs[label])) for config in found)
        for label, found in arms(base, methods).items()
    }
    return Study(name=name, question=(about.__doc__ or "").strip(), arms=equal)


def _method(label: str) -> Method:
    """Return the first candidate of a method, or its self-distilled form."""
    plain = label.removeprefix("distilled-")
    method = first_candidate(plain)
    return method if plain == label else SelfDistilled(method, warmup=True)
