"""Measuring a run's network on its data."""

import time
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import torch

from multimix.lab.data import Splits
from multimix.lab.evaluate import Accuracy, Source, Suite
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.environment import commit
from multimix.protocols import Monitor, Network


def source_of(config: TrainConfig, splits: Splits, device: torch.device, *, batch_size: int | None = None) -> Source:
    """Return what a run offers to its suites."""
    return Source(
        splits,
        config.method,
        device,
        batch_size=batch_size or max(256, config.batch_size),
        workers=config.workers,
        root=config.root,
    )


def clean(config: TrainConfig, splits: Splits, part: Any, device: torch.device) -> Accuracy:
    """Return the evaluator of clean accuracy on a split."""
    return Accuracy(source_of(config, splits, device).batches(part))


def test_record(
    config: TrainConfig,
    suite: Suite,
    network: Network,
    *,
    examples: int,
    weights: str | None,
    device: torch.device,
    monitor: Monitor,
) -> dict[str, Any]:
    """Return what a suite finds out about a network, with all that the finding depends on.

    Args:
        config: Of the run.
        suite: Measures.
        network: Is measured.
        examples: Size of the test set.
        weights: Digest of the network's file, if it has one.
        device: Where the network is.
        monitor: Hears how far the suite is.
    """
    started = time.perf_counter()
    metrics = dict(suite(network, monitor))
    return {
        "suite": suite.name,
        "split": "test",
        "epoch": config.epochs,
        **metrics,
        "settings": asdict(suite.settings),
        "weights": weights,
        "examples": suite.settings.examples or examples,
        "seed": config.seed,
        "seconds": time.perf_counter() - started,
        "device": device.type,
        "torch": torch.__version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
