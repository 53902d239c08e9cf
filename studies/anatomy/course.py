"""A training run that is stopped to be measured, and goes on as if it had not been."""

import copy
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from torch import Generator, Tensor

from anatomy.geometry import geometry
from anatomy.measure import AnatomySettings, Finding, findings
from anatomy.probe import Probe
from multimix.lab.data import Batches, Splits, first_of
from multimix.lab.runs.checkpoint import random_states, restore_random_states
from multimix.lab.runs.environment import describe
from multimix.lab.train import Engine, TrainConfig
from multimix.protocols import Network

Record = dict[str, Any]

_DIGITS = 3
"""Significant digits of a recorded value, more than the sampling noise leaves."""


def anatomise(config: TrainConfig, splits: Splits, settings: AnatomySettings | None = None) -> Iterator[Record]:
    """Train by a configuration, and yield what is found out about the gradient at each point on the way.

    Args:
        config: What to train, and the size of the mini-batches that are measured.
        splits: Its data.
        settings: How thoroughly to measure.

    Raises:
        ValueError: If the network is compiled or its head is not affine, a mini-batch has a single image, or the
            training images do not fill one.
    """
    if config.compile:
        raise ValueError("compile must be False: a compiled network cannot be copied to be measured, got True")
    if config.batch_size < 2:
        raise ValueError(f"batch_size must be at least 2 for tuples to differ in, got {config.batch_size}")
    settings = settings or AnatomySettings()
    engine = Engine(config, splits)
    batches = _fixed(engine, settings)
    about = _about(engine)
    for _ in course(engine, settings.points):
        where = {"epoch": _short(engine.at.step / engine.steps_per_epoch)}
        where["progress"] = _short(engine.at.step / engine.steps)
        for finding in snapshot(engine, batches, settings):
            yield {**_tidy(finding), **where, **about}


def course(engine: Engine, points: tuple[float, ...]) -> Iterator[int]:
    """Train to the end, and stop at the start, after the first epoch and at each of ``points``, fractions of training.

    Yields:
        Optimiser steps done.
    """
    due = {0, engine.steps_per_epoch, *(max(1, round(point * engine.steps)) for point in points)}
    if engine.at.step == 0:
        yield 0
        due.discard(0)
    while engine.at.epoch < engine.config.epochs:
        for inputs, targets in engine.epoch():
            engine.step(inputs, targets)
            if engine.at.step in due:
                due.discard(engine.at.step)
                yield engine.at.step
        engine.end_epoch()


def snapshot(engine: Engine, batches: list[tuple[Tensor, Tensor]], settings: AnatomySettings) -> list[Finding]:
    """Return what is found out about a copy of the network; all random states are afterwards what they were.

    Args:
        engine: Is left as it is.
        batches: Inputs and class indices of the mini-batches to measure on.
        settings: How thoroughly.
    """
    before = random_states()
    try:
        network = cast("Network", copy.deepcopy(engine.network))
        classes = geometry(network, _served(engine, settings.examples))
        generator = Generator(engine.fabric.device).manual_seed(0)
        found = findings([Probe(network, *batch) for batch in batches], settings, generator)
    finally:
        restore_random_states(before)
    return [{"metric": name, "value": value} for name, value in classes._asdict().items()] + found


def _fixed(engine: Engine, settings: AnatomySettings) -> list[tuple[Tensor, Tensor]]:
    """Return the first full mini-batches of unaugmented training images in an order of their own."""
    config, splits = engine.config, engine.splits
    served = Batches(
        splits.train,
        batch_size=config.batch_size,
        mean=splits.mean,
        std=splits.std,
        drop_last=True,
        device=engine.fabric.device,
        workers=config.workers,
    )
    return cast("list[tuple[Tensor, Tensor]]", list(islice(served, settings.batches)))


def _served(engine: Engine, examples: int) -> Any:
    config, splits = engine.config, engine.splits
    return Batches(
        first_of(splits.train, min(examples, len(splits.train)), what="examples"),
        batch_size=max(256, config.batch_size),
        mean=splits.mean,
        std=splits.std,
        shuffle=False,
        device=engine.fabric.device,
        workers=config.workers,
    )


def _about(engine: Engine) -> Record:
    config = engine.config
    where = describe(engine.fabric.device)
    kind, colon, path = config.data.partition(":")
    return {
        "label": config.title,
        "seed": config.seed,
        "m": config.batch_size,
        # a path says more of the machine than of the data
        "data": f"{kind}{colon}{path.rstrip('/').rpartition('/')[2]}",
        "model": config.model,
        **{name: where[name] for name in ("device", "torch", "commit", "date")},
    }


def _tidy(finding: Finding) -> Record:
    """Return a finding as JSON has it, ranges being lists, with short numbers."""
    value = finding["value"]
    short = {name: _short(each) for name, each in value.items()} if isinstance(value, dict) else _short(value)
    plain = {name: list(each) if isinstance(each, tuple) else each for name, each in finding.items()}
    return {**plain, "value": short}


def _short(value: float) -> float | None:
    """Return a value with few digits; None where it is no number, which JSON cannot say."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
