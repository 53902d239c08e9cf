"""Two processes against one: the losses of 20 steps on the same mini-batches."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from multimix.distill import SelfDistilled
from multimix.lab.train import TrainConfig
from multimix.methods import ERM, Alternate, DenseMultiMix, MultiMix
from parallel.jobs import largest_difference, steps
from parallel.together import together
from train.tiny import tiny

BAR = 1e-6
"""How far the losses may be apart."""


def _small(**changes: Any) -> TrainConfig:
    """Return a run whose mini-batches share evenly, normalised over all processes."""
    settings = {"train_size": 640, "width": 8, "epochs": 4}
    return tiny(**{**settings, "sync_batchnorm": True, **changes})


CASES = {
    "erm": _small(method=ERM()),
    "multimix": _small(method=MultiMix(tuples=200)),
    "balanced": _small(method=MultiMix(tuples=200, alpha=(0.5, 2.0), balanced=True, clean=0.5, confidence=0.9)),
    "dense": _small(method=DenseMultiMix(tuples=50)),
    "distilled": _small(method=SelfDistilled(MultiMix(tuples=200), warmup=True)),
    "distilled dense": _small(method=SelfDistilled(DenseMultiMix(tuples=50), warmup=True), ema=0.9),
    "alternated": _small(method=Alternate((MultiMix(tuples=200), ERM()))),
    "accumulated": _small(method=MultiMix(tuples=200), accumulate=2, clip=1.0),
}
CASES |= {
    f"{name}, fsdp": replace(CASES[name], devices=2, fsdp=True)
    for name in ("multimix", "distilled dense", "accumulated")
}
"""What several processes do; how many there are, and what one does, follows from it."""


def run(world: int = 2, count: int = 20) -> Iterator[dict[str, Any]]:
    """Yield a record of every case."""
    for name, config in CASES.items():
        yield compare(name, config, world=world, count=count)


def compare(name: str, config: TrainConfig, *, world: int, count: int) -> dict[str, Any]:
    """Return how far the losses of several processes are from those of one, in float64.

    In float32 rounding grows past the bar within ten or twenty steps, in one process too.
    """
    torch.set_num_threads(1)
    one = steps(replace(config, devices=1, fsdp=False), count, True)
    several = together(world, steps, replace(config, devices=world), count, True)
    apart = [abs(a - b) for a, b in zip(one["losses"], several[0]["losses"], strict=True)]
    return {
        "event": "parity",
        "dtype": "float64",
        "case": name,
        "processes": world,
        "steps": count,
        "largest_difference": max(apart),
        "weights_differ_by": largest_difference(one["weights"], several[0]["weights"]),
        "processes_differ_by": max(
            largest_difference(several[0][part], other[part])
            for other in several[1:]
            for part in other
            if part != "losses"
        ),
        "bar": BAR,
        "passed": max(apart) <= BAR,
    }
