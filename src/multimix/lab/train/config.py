"""What a training run is: one frozen value, written into the run folder and read back to resume."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from multimix.distill import SelfDistilled
from multimix.methods import (
    Alternate,
    AnyMethod,
    Chain,
    MultiMix,
    Until,
)
from multimix.protocols import Method, declares, submethods

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum."""

    learning_rate: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """Share of the last step's direction that stays."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: float = 5e-4
    """Shrinkage of all parameters, times the learning rate."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        _check_rates(self.learning_rate, self.weight_decay)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay, which spares biases and normalisation layers."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and second moment."""
    weight_decay: float = 0.05
    """Shrinkage of matrices and filters, times the learning rate."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        _check_rates(self.learning_rate, self.weight_decay)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Constant learning rate, multiplied by ``factor`` at each milestone."""

    milestones: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Fractions of training."""
    factor: float = 0.1
    """What the learning rate is multiplied by."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if not all(0 < m < 1 for m in self.milestones):
            raise ValueError(f"milestones must be fractions of training in (0, 1), got {self.milestones}")
        _check_positive("factor", self.factor)
        _check_warmup(self.warmup_epochs)

    def scale(self, progress: float) -> float:
        """Return the share of the peak learning rate after a fraction of training."""
        return self.factor ** sum(progress >= milestone for milestone in self.milestones)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Learning rate that falls from its peak to ``final`` times it along half a cosine."""

    final: float = 0.0
    """Share of the peak that is left at the end."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if not 0 <= self.final <= 1:
            raise ValueError(f"final must lie in [0, 1], got {self.final}")
        _check_warmup(self.warmup_epochs)

    def scale(self, progress: float) -> float:
        """Return the share of the peak learning rate after a fraction of training."""
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


TrainingMethod = AnyMethod | Alternate | Chain | Until | SelfDistilled


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    recipe: str = "custom"
    """The recipe that this started from."""
    label: str = ""
    """What tables call the method; by default its name."""

    data: str = "digits"
    """A data set by name (see `multimix list`), folder:PATH or npz:PATH."""
    root: str = "data"
    """Where data sets lie that are given by name."""
    download: bool = False
    """Fetch the data set if it is not there and its library knows how."""
    train_size: int | None = None
    """Keep only so many training images, the same share of each class."""
    validation: float = 0.1
    """Share of the training images held out for validation; 0 for none."""
    split_seed: int = 0
    """Seed of the splits, apart from that of training."""
    image_size: int | None = None
    """Resize images to this size in pixels; by default as they are."""
    crop_padding: int = 4
    """Pixels of padding before a random crop; 0 for no crop."""
    flip: bool = True
    """Flip half of the images left to right."""
    workers: int = 0
    """Processes that decode images of sets too large for memory."""

    model: str = "preact_resnet18"
    """preact_resnet18, wide_resnet16_8, timm:NAME or torchvision:NAME."""
    width: int | None = None
    """Channels of the first stage of preact_resnet18, or the widening factor of wide_resnet16_8."""
    strides: tuple[int, ...] | None = None
    """Stride of each stage, for images smaller than the network was made for."""
    final_norm: bool | None = None
    """Whether preact_resnet18 ends with a normalisation layer; by default it does, in the mixup papers it does not."""
    pretrained: bool = False
    """Start from the library's pre-trained weights, which it downloads."""
    init: str | None = None
    """Run folder whose network's weights training begins from, except those of the classifier where classes differ."""

    method: TrainingMethod = field(default_factory=MultiMix)
    """How examples are mixed."""
    optimizer: SGD | AdamW = field(default_factory=SGD)
    """How weights are updated."""
    schedule: Step | Cosine = field(default_factory=Cosine)
    """How the learning rate changes."""
    epochs: int = 30
    """Passes over the training set."""
    batch_size: int = 128
    """Images of a mini-batch, on all devices together."""
    accumulate: int = 1
    """Mini-batches that make one step of the optimiser."""
    clip: float | None = None
    """Largest norm of the gradient, over all parameters."""
    precision: Precision = "32-true"
    """Arithmetic of the network; losses are always in float32."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    devices: int = 1
    """Devices of this machine that share every mini-batch; of a CPU, processes."""
    nodes: int = 1
    """Machines with so many devices each, started by torchrun or SLURM."""
    sync_batchnorm: bool = False
    """Normalise over the whole mini-batch instead of each device's share; running statistics are averaged anyway."""
    fsdp: bool = False
    """Share weights, gradients and the optimiser's state out among all devices (fully sharded data parallel), for
    networks that are too large for one."""
    compile: bool = False
    """Compile the encoder with torch.compile."""
    channels_last: bool = False
    """Keep the network's filters with channels last, which is faster for narrow networks on a CPU and on GPUs in half
    precision."""
    ema: float | None = None
    """Also evaluate a moving average of the weights, with this momentum."""
    seed: int = 0
    """Of initial weights, order, augmentation and mixing."""
    validate_every: int = 1
    """Epochs between two looks at the validation split; after the last one there always is one."""
    test: bool = True
    """Measure the final network on the test set, and show its predictions there; off for trials, which are chosen by
    validation alone."""
    checkpoint_steps: int | None = None
    """Write a checkpoint every so many optimiser steps, besides after every epoch."""
    tensorboard: bool = False
    """Write TensorBoard event files too."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        sizes = ("width", "train_size", "image_size")
        counts = ("epochs", "batch_size", "accumulate", "devices", "nodes", "validate_every", "checkpoint_steps")
        for name in (*counts, *sizes):
            _check_count(name, getattr(self, name), 1)
        for name in ("seed", "split_seed", "crop_padding", "workers"):
            _check_count(name, getattr(self, name), 0)
        if self.seed >= 2**64:
            raise ValueError(f"seed must be below 2**64, got {self.seed}")
        if not isinstance(self.method, Method) or isinstance(self.method, type):
            raise TypeError(f"method must be a method such as MultiMix(), got {self.method!r}")
        _check_kind("optimizer", self.optimizer, (SGD, AdamW))
        _check_kind("schedule", self.schedule, (Step, Cosine))
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        _check_fraction("validation", self.validation)
        _check_fraction("ema", self.ema)
        if self.clip is not None:
            _check_positive("clip", self.clip)
        if len(_views_taken(self.method)) > 1:
            raise ValueError(
                "SelfDistilled takes two views of a mini-batch and other methods one: put it around all of them,"
                " as in SelfDistilled(Until(...)), not into a part"
            )
        if self.compile and declares(self.method, "needs_stages"):
            raise ValueError(
                "compile=True does not go with ManifoldMixup, which mixes inside the network through hooks"
            )

        if self.fsdp:
            self._check_fsdp()

    def _check_fsdp(self) -> None:
        if self.devices * self.nodes == 1:
            raise ValueError("fsdp=True shares weights out among devices: devices or nodes must be at least 2, got 1")
        if self.compile or self.channels_last:
            raise ValueError(f"fsdp=True does not go with {'compile' if self.compile else 'channels_last'}=True")
        for part in submethods(self.method):
            if getattr(part, "trains_modules", False):
                raise ValueError(f"fsdp=True does not go with {part.name}, which trains a module of its own in turn")
            if getattr(part, "needs_gradients", False):  # after which weights are let go amid the step
                raise ValueError(f"fsdp=True does not go with {part.name}, which takes gradients of its own in a step")

    @property
    def title(self) -> str:
        """Return what tables call the method."""
        return self.label or self.method.name

    @property
    def views(self) -> int:
        """Return how many views of each mini-batch the method needs."""
        return max(_views_taken(self.method))


def _views_taken(method: Method) -> set[int]:
    """Return how many views of a mini-batch a method takes; more than one number is a contradiction."""
    every = list(submethods(method))
    twice = {id(inner) for part in every if getattr(part, "views", 1) > 1 for inner in submethods(part)}
    innermost = [part for part in every if len(list(submethods(part))) == 1]
    return {2 if id(part) in twice else 1 for part in innermost}


def _check_rates(learning_rate: float, weight_decay: float) -> None:
    _check_positive("learning_rate", learning_rate)
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}")


def _check_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be finite and greater than 0, got {value}")


def _check_count(name: str, value: int | None, least: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_kind(name: str, value: object, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {' or '.join(kind.__name__ for kind in kinds)}, got {value!r}")


def _check_fraction(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value}")


def _check_warmup(epochs: float) -> None:
    if not epochs >= 0:
        raise ValueError(f"warmup_epochs must not be negative, got {epochs}")
