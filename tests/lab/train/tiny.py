"""Training runs that take a fraction of a second, and ways to stop them."""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from multimix.lab.data import Splits
from multimix.lab.train import SGD, Engine, TrainConfig, train
from multimix.lab.train.engine import build_network
from multimix.lab.train.network import load_data
from multimix.methods import ERM

_VARYING = {"seconds", "images_per_second", "step_seconds", "peak_mib", "date", "commit"}
"""What two equal runs may differ in: times, memory, and the commit, as others commit while tests run."""


def tiny(**changes: Any) -> TrainConfig:
    """Two epochs of four mini-batches, three of 32 digits and one of 4, on a network of width 2."""
    settings: dict[str, Any] = {
        "train_size": 100,
        "crop_padding": 1,
        "flip": False,
        "width": 2,
        "strides": (1, 2, 2, 2),
        "method": ERM(),
        "optimizer": SGD(learning_rate=0.05),
        "epochs": 2,
        "batch_size": 32,
        "device": "cpu",
    }
    return TrainConfig(**{**settings, **changes})


BATCHES = 4
"""Mini-batches in an epoch of ``tiny()``."""


def splits_of(config: TrainConfig) -> Splits:
    return load_data(config)


def train_all(engine: Engine) -> list[float]:
    """Bring an engine to its end and return every loss."""
    losses = []
    while engine.at.epoch < engine.config.epochs:
        losses += [float(engine.step(inputs, labels)[0]) for inputs, labels in engine.epoch()]
        engine.end_epoch()
    return losses


class Doubled(nn.Module):
    """Images in float64."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.double()


def in_double() -> AbstractContextManager[Any]:
    """Let engines made inside train in float64.

    What is to be equal but for rounding is compared so: a few steps of float32 make of a last digit a hundredth of the
    loss, on one processor and not on another.
    """

    def build(config: TrainConfig, data: Splits) -> nn.Module:
        network = build_network(config, data).double()
        network.inputs = Doubled()
        return network

    return patch("multimix.lab.train.engine.build_network", build)


class Stopped(BaseException):
    """What ends a run from outside; no handler inside takes it."""


@contextmanager
def before_step(number: int, act: Callable[[Any], Any], engine: type = Engine) -> Iterator[None]:
    """Let what trains inside call ``act(engine)`` before its mini-batch number ``number`` (from 1) changes anything."""
    real, count = engine.step, itertools.count(1)

    def step(self: Any, *batch: Any) -> Any:
        if next(count) == number:
            act(self)
        return real(self, *batch)

    with patch.object(engine, "step", step):
        yield


def raising(error: BaseException) -> Callable[[Any], None]:
    """What raises an error, for :func:`before_step`."""

    def act(_: Any) -> None:
        raise error

    return act


@contextmanager
def stopped_after(batches: int, engine: type = Engine) -> Iterator[None]:
    """Stop what trains inside after so many mini-batches."""
    with pytest.raises(Stopped), before_step(batches + 1, raising(Stopped()), engine):
        yield


def killed_after(batches: int, config: TrainConfig, folder: Path, environment: dict[str, str]) -> None:
    """Train in a process that ends after so many mini-batches as a kill ends it."""
    os.environ.clear()
    os.environ.update(environment)
    with before_step(batches + 1, lambda _: os._exit(9)):
        train(config, folder, quiet=True)


def same(a: Any, b: Any) -> bool:
    """Equality that looks into tensors and into classes that compare by identity, and tells 1 from 1.0 and True."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def events(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, or those of one kind."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if kind in (None, line["event"])]


def steady(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what two equal runs may differ in."""
    return [{name: value for name, value in event.items() if name not in _VARYING} for event in events(folder)]


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
