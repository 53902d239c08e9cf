"""One training run's moving parts and a single step of it."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from multimix.distill import EMATeacher
from multimix.lab.data import Augment, Batches, Splits
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import Facts
from multimix.lab.train.initial import initialise
from multimix.lab.train.optim import learning_rate, make_optimizer
from multimix.lab.train.parallel import average_buffers, make_fabric, shard
from multimix.lab.train.sharded import deal_optimizer, dealt, filled, put_together
from multimix.lab.train.state import seed_everything
from multimix.models import build, synchronise_batchnorm
from multimix.ops import Gather
from multimix.protocols import Method, Network, Stateful, declares, stateful


class TrainStep(nn.Module):
    """A network and its method as one forward pass, so that precision and devices are handled in one place."""

    def __init__(self, network: nn.Module, method: Method, learners: list[Stateful]) -> None:
        super().__init__()
        self.network, self.method = network, method
        self.learners = nn.ModuleList(learners)  # a plain dataclass such as Alternate hides those inside it

    def forward(self, inputs: Any, targets: Tensor, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total loss and its terms."""
        losses = self.method(cast("Network", self.network), inputs, targets, generator=generator)
        return losses.total, losses.terms


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0
    """Epochs completed."""
    batch: int = 0
    """Mini-batches done of the epoch under way."""
    step: int = 0
    """Optimiser steps done."""


@dataclass
class Engine:
    """Everything that changes during a run, and how one mini-batch changes it.

    Raises:
        ValueError: If data, model and method do not fit each other, or the device is not there.
    """

    config: TrainConfig
    splits: Splits
    at: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        """Build network, method state, optimiser and batches; all initial weights follow from the seed."""
        config = self.config
        # These two train modules of their own in turn with the network, so that a step may pass one of them by.
        learns = declares(config.method, "trains_modules")
        self.fabric = make_fabric(config, unused=learns)
        rank, self.world = shard()
        seed_everything(config.seed)
        # What is shared out goes to its device block by block.
        home = torch.device("cpu") if config.fsdp else self.fabric.device
        self.network = build_network(config, self.splits).to(home)
        initialise(self.network, config, self.splits)
        if config.channels_last:
            _put_channels_last(self.network, self.fabric.device)
        if self.world > 1:
            self.network.gather = Gather(even=True)  # type: ignore[assignment]  # of what a mini-batch is shared into
            if config.sync_batchnorm:
                self.network = synchronise_batchnorm(self.network, self.fabric.device)
        self.method = copy.deepcopy(config.method)  # a configuration serves many runs; none may inherit a teacher
        self.stateful = stateful(self.method)
        for part in self.stateful:
            part.prepare(cast("Network", self.network))
            part.led = True
            part.to(home)
        self.ema = None if config.ema is None else EMATeacher(cast("Network", self.network), momentum=config.ema)
        if config.compile:  # after the teachers took their copies, which would otherwise share the student's code
            self.network.embed = torch.compile(cast("Network", self.network).embed)  # type: ignore[assignment]
        self.generator = Generator(self.fabric.device).manual_seed(config.seed)
        self.batches = training_batches(config, self.splits, self.fabric.device)
        self.module = self.fabric.setup_module(TrainStep(self.network, self.method, self.stateful).train())
        if config.fsdp and self.ema is not None:
            self.fabric.strategy.setup_module(self.ema)
        # Parameters that are shared out are others than before.
        optimizer = make_optimizer(config.optimizer, self.module.parameters())
        self.optimizer = cast("Optimizer", self.fabric.setup_optimizers(optimizer))
        if rank > 0:  # or dropout would drop the same everywhere
            seed_everything(config.seed + (rank << 32))
        self._set_learning_rate()

    @property
    def steps_per_epoch(self) -> int:
        """Return how many optimiser steps an epoch has."""
        return -(-len(self.batches) // self.config.accumulate)

    @property
    def steps(self) -> int:
        """Return how many optimiser steps the run has."""
        return self.steps_per_epoch * self.config.epochs

    @property
    def rate(self) -> float:
        """Return the learning rate in force."""
        return float(self.optimizer.param_groups[0]["lr"])

    def epoch(self) -> Iterator[tuple[Any, Tensor]]:
        """Yield what is left of the epoch under way."""
        return self.batches.epoch(self.at.epoch, start=self.at.batch)

    def step(self, inputs: Any, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Train on one mini-batch and return the loss and its terms, detached."""
        group, last = self._group()
        with self._apart() if self.world > 1 and not last else nullcontext():
            total, terms = self.module(inputs, targets, self.generator)
            self.fabric.backward(total / group if group > 1 else total)
        self.at.batch += 1
        if last:
            self._update()
        return total.detach(), terms

    def end_epoch(self) -> None:
        """Go on to the next epoch."""
        self.at.epoch, self.at.batch = self.at.epoch + 1, 0

    def whole(self, network: nn.Module) -> nn.Module:
        """Return a network with all its weights in this process: itself, or a copy of one that is shared out.

        All processes have to ask at the same time.
        """
        if not self.config.fsdp:
            return network
        with torch.random.fork_rng(devices=[]):  # its random weights are not to change what a step draws
            fresh = build_network(replace(self.config, pretrained=False), self.splits)
        return filled(fresh, network).to(self.fabric.device)

    def part(self) -> None:
        """Let this process go on without the others: nothing is gathered or shared out any more."""
        self.network = self.whole(self.network)
        for ema in self.averages():
            ema.network = self.whole(ema.network).requires_grad_(False).eval()
        for module in (*self.module.modules(), *(() if self.ema is None else self.ema.modules())):
            if getattr(module, "gather", None) is not None:
                module.gather = None

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, besides the global random states; all processes have to ask."""
        state = {
            "at": [self.at.epoch, self.at.batch, self.at.step],
            "network": self.network.state_dict(),
            "method": [part.state_dict() for part in self.stateful],
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "generator": self.generator.get_state(),
        }
        return put_together(state) if self.config.fsdp else state

    def load(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`.

        Raises:
            ValueError: If it belongs to another network, method or optimiser.
        """
        try:
            _load(self.network, state["network"])
            for part, saved in zip(self.stateful, state["method"], strict=True):
                _load(part, saved)
            if self.ema is not None:
                _load(self.ema, state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            deal_optimizer(self.optimizer)
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            self.generator.set_state(state["generator"])
            self.at = Position(*state["at"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"the checkpoint belongs to another run: {' '.join(str(error).split())[:160]}") from error
        self._tell_progress()
        self._set_learning_rate()

    def averages(self) -> Iterator[EMATeacher]:
        """Yield the moving averages: the one of the configuration, and the methods' teachers."""
        if self.ema is not None:
            yield self.ema
        for part in self.stateful:
            if isinstance(ema := getattr(part, "ema", None), EMATeacher):
                yield ema

    def _group(self) -> tuple[int, bool]:
        """Return how many mini-batches share this optimiser step, and whether this is the last of them."""
        wanted, batch = self.config.accumulate, self.at.batch
        start = batch - batch % wanted
        size = min(wanted, len(self.batches) - start)
        return size, batch + 1 == start + size

    def _apart(self) -> AbstractContextManager[None]:
        """Leave gradients unshared, as those of a mini-batch to which others are added before the step."""
        return self.fabric.no_backward_sync(self.module)

    def _update(self) -> None:
        if self.config.clip is not None:
            # A gradient that is not finite is left to the session, which names the step and the checkpoint.
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.at.step += 1
        self._set_learning_rate()
        if not self.config.sync_batchnorm:
            average_buffers(self.network)
        if self.ema is not None:
            self.ema.update_(self.network)
        for part in self.stateful:
            part.after_step(cast("Network", self.network))
        self._tell_progress()

    def _tell_progress(self) -> None:
        for part in self.stateful:
            part.at(self.at.step / self.steps)

    def _set_learning_rate(self) -> None:
        rate = learning_rate(self.config, self.at.step, steps_per_epoch=self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def _load(module: nn.Module, saved: dict[str, Any]) -> None:
    module.load_state_dict(dealt(saved, module.state_dict()))


def build_network(config: TrainConfig, data: Splits | Facts) -> nn.Module:
    """Return the configured network for the classes and images of ``data``."""
    channels, height, _ = data.shape
    network = build(
        config.model,
        num_classes=len(data.classes),
        in_channels=channels,
        width=config.width,
        strides=config.strides,
        final_norm=config.final_norm,
        pretrained=config.pretrained,
        image_size=height,
    )
    return cast("nn.Module", network)


_LEAST_CHANNELS = 8
"""With fewer, torch 2.14 writes outside its memory in strided 1 x 1 convolutions on a CPU."""


def _put_channels_last(network: nn.Module, device: torch.device) -> None:
    """Keep a network's filters with channels last; a convolution takes its format from them, whatever its inputs' is.

    Raises:
        ValueError: If the network is on a CPU and has a convolution that torch does not compute safely in that format.
    """
    convolutions = {name: part for name, part in network.named_modules() if isinstance(part, nn.Conv2d)}
    for name, part in convolutions.items() if device.type == "cpu" else ():
        if max(part.stride) > 1 and max(part.kernel_size) == 1 and part.in_channels < _LEAST_CHANNELS:
            raise ValueError(
                f"channels_last on a CPU needs at least {_LEAST_CHANNELS} channels into every strided 1 x 1"
                f" convolution, got {part.in_channels} into {name}: widen the network or leave channels_last off"
            )
    network.to(memory_format=torch.channels_last)


def training_batches(config: TrainConfig, splits: Splits, device: torch.device) -> Batches:
    """Return the shuffled, augmented training batches, of several processes this one's share."""
    (_, world), each = shard(), len(splits.train) // shard()[1]
    size = config.batch_size // world
    return Batches(
        splits.train,
        batch_size=size,
        mean=splits.mean,
        std=splits.std,
        augment=Augment(crop_padding=config.crop_padding, flip=config.flip),
        views=config.views,
        seed=config.seed,
        # Batch normalisation cannot train on a single example at a single position.
        drop_last=each % size == 1 and each > size,
        device=device,
        workers=config.workers,
        shard=shard(),
    )
