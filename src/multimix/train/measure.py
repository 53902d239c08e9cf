"""Measuring a run's network on its data."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import nn

from multimix.data import Batches, Splits
from multimix.evaluate import Accuracy
from multimix.protocols import Network
from multimix.train.config import TrainConfig
from multimix.train.environment import commit
from multimix.train.state import replacing


def evaluation_batches(config: TrainConfig, splits: Splits, part: Any, device: torch.device) -> "OneEpoch":
    """Return the batches of a split, in order and as they are."""
    return OneEpoch(
        Batches(
            part,
            batch_size=max(256, config.batch_size),
            mean=splits.mean,
            std=splits.std,
            shuffle=False,
            device=device,
            workers=config.workers,
        )
    )


@dataclass(frozen=True)
class OneEpoch:
    """Batches that start over at every iteration."""

    batches: Batches

    def __iter__(self) -> Any:
        """Iterate over the one epoch."""
        return self.batches.epoch(0)


def clean(config: TrainConfig, splits: Splits, part: Any, device: torch.device) -> Accuracy:
    """Return the evaluator of clean accuracy on a split."""
    return Accuracy(evaluation_batches(config, splits, part, device))


def save_weights(path: Path, network: nn.Module) -> None:
    """Write the weights of a network, whole or not at all."""
    with replacing(path) as file:
        save_model(network, file.name)


def test_record(
    config: TrainConfig, suite: Any, network: Network, examples: int, device: torch.device
) -> dict[str, Any]:
    """Return what ``suite`` finds out about a network, with all that the finding depends on."""
    return {
        "suite": suite.name,
        "split": "test",
        "epoch": config.epochs,
        **dict(suite(network)),
        "examples": examples,
        "seed": config.seed,
        "device": device.type,
        "torch": torch.__version__,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
