"""Optimisers and learning rates from a configuration."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from multimix.lab.train.config import SGD, AdamW, TrainConfig


def make_optimizer(config: SGD | AdamW, parameters: Iterable[Tensor]) -> Optimizer:
    """Return the optimiser over ``parameters``."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if isinstance(config, SGD):
        return torch.optim.SGD(
            trained,
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate, betas=config.betas)


def learning_rate(config: TrainConfig, step: int, *, steps_per_epoch: int) -> float:
    """Return the learning rate of an optimiser step, counted from 0; a function of the step has nothing to resume."""
    warmup = config.schedule.warmup_epochs * steps_per_epoch
    scale = config.schedule.scale(step / (config.epochs * steps_per_epoch))
    return config.optimizer.learning_rate * scale * (min((step + 1) / warmup, 1.0) if warmup else 1.0)
