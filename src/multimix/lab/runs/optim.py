"""Optimisers and learning-rate schedules: their settings, and what is made of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from multimix._declared import Checked, Fraction, Ge, Interval, Positive

NotNegative = Annotated[float, Ge(0)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class SGD(Checked):
    """Stochastic gradient descent with momentum."""

    learning_rate: Positive = 0.1
    """Peak learning rate."""
    momentum: BelowOne = 0.9
    """Share of the last step's direction that stays."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: NotNegative = 5e-4
    """Shrinkage of all parameters, times the learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")


@dataclass(frozen=True, kw_only=True)
class AdamW(Checked):
    """Adam with decoupled weight decay, which spares biases and normalisation layers."""

    learning_rate: Positive = 1e-3
    """Peak learning rate."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay of the first and second moment."""
    weight_decay: NotNegative = 0.05
    """Shrinkage of matrices and filters, times the learning rate."""


@dataclass(frozen=True, kw_only=True)
class Step(Checked):
    """Constant learning rate, multiplied by ``factor`` at each milestone."""

    milestones: tuple[Annotated[float, Interval(gt=0, lt=1)], ...] = (0.25, 0.5, 0.75)
    """Fractions of training."""
    factor: Positive = 0.1
    """What the learning rate is multiplied by."""
    warmup_epochs: NotNegative = 0.0
    """Epochs of linear warm-up."""

    def scale(self, progress: float) -> float:
        """Return the share of the peak learning rate after a fraction of training."""
        return self.factor ** sum(progress >= milestone for milestone in self.milestones)


@dataclass(frozen=True, kw_only=True)
class Cosine(Checked):
    """Learning rate that falls from its peak to ``final`` times it along half a cosine."""

    final: Fraction = 0.0
    """Share of the peak that is left at the end."""
    warmup_epochs: NotNegative = 0.0
    """Epochs of linear warm-up."""

    def scale(self, progress: float) -> float:
        """Return the share of the peak learning rate after a fraction of training."""
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def check_optimizer(optimizer: object, schedule: object) -> None:
    """Raise TypeError unless an optimiser and a schedule are settings of one."""
    if not isinstance(optimizer, (SGD, AdamW)):
        raise TypeError(f"optimizer must be SGD or AdamW, got {optimizer!r}")
    if not isinstance(schedule, (Step, Cosine)):
        raise TypeError(f"schedule must be Step or Cosine, got {schedule!r}")


def make_optimizer(config: SGD | AdamW, parameters: Iterable[Tensor]) -> Optimizer:
    """Return the optimiser over the ``parameters`` that are trained."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    # In one pass over all weights, which torch takes by itself neither on a CPU nor for shards.
    fused = all(p.device.type == "cpu" and not isinstance(p, DTensor) for p in trained) or None
    if isinstance(config, SGD):
        return torch.optim.SGD(
            trained,
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=fused,
        )
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)


def learning_rate(config: Any, step: int, *, steps_per_epoch: int) -> float:
    """Return the learning rate of an optimiser step, counted from 0, by a run's configuration alone."""
    warmup = config.schedule.warmup_epochs * steps_per_epoch
    scale = config.schedule.scale(step / (config.epochs * steps_per_epoch))
    return config.optimizer.learning_rate * scale * (min((step + 1) / warmup, 1.0) if warmup else 1.0)
