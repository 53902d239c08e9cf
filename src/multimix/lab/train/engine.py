"""One training run: its moving parts, a single step, and the way from its configuration to its weights."""

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from rich.console import Console
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from multimix._declared import Count, check
from multimix.distill import EMATeacher
from multimix.lab._code import Reference
from multimix.lab.data import Augment, Batches, Splits, ignoring
from multimix.lab.evaluate import Accuracy
from multimix.lab.runs.checkpoint import digest, save_weights, seed_everything
from multimix.lab.runs.codec import code_of, to_json, with_own_data
from multimix.lab.runs.loggers import require_loggers
from multimix.lab.runs.loop import Loop, Position, Task, go_on
from multimix.lab.runs.optim import learning_rate, make_optimizer
from multimix.lab.runs.processes import average_buffers, broadcast, entered_by_main, is_main_process, rank_and_world
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.evaluation import Figures, clean_accuracy, source_of, suite_record, write_figures
from multimix.lab.train.figures import save_figures
from multimix.lab.train.folder import Facts, RunFolder, described
from multimix.lab.train.network import (
    build_network,
    found_again,
    ignored_by,
    initialise,
    load_again,
    load_data,
    put_channels_last,
)
from multimix.lab.train.objective import objective_for
from multimix.lab.train.parallel import gathered_state, load_sharded, make_fabric, shard_optimizer, start_processes
from multimix.models import synchronise_batchnorm
from multimix.ops import CrossEntropy, Gather
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


class Engine(Task):
    """Everything that changes during a run, and how one mini-batch changes it.

    Args:
        config: The run.
        splits: Its data.

    Raises:
        ValueError: If data, model and method do not fit each other, or the device is not there.
    """

    config: TrainConfig
    batches: Batches
    weights_entry: ClassVar[str] = "network"
    saves_memory: ClassVar[str] = (
        "A smaller batch_size with accumulate, fewer tuples, precision bf16-mixed or a narrower network"
    )

    def __init__(self, config: TrainConfig, splits: Splits) -> None:
        self.config, self.splits, self.at = config, splits, Position()
        self.objective = objective_for(config.objective, splits)
        # A method that trains modules of its own in turn with the network may pass one of them by in a step.
        self.fabric = make_fabric(config, unused=declares(config.method, "trains_modules"))
        self.device = self.fabric.device
        self.look_every = 1 if self.device.type == "cpu" else 20
        rank, self.world = rank_and_world()
        seed_everything(config.seed)
        self._build(torch.device("cpu") if config.fsdp else self.device)  # shards go to their device block by block
        self.generator = Generator(self.device).manual_seed(config.seed)
        size, each = config.batch_size // self.world, len(splits.train) // self.world
        self.batches = Batches(
            splits.train,
            batch_size=size,
            mean=splits.mean,
            std=splits.std,
            augment=Augment(crop_padding=config.crop_padding, flip=config.flip),
            views=config.views,
            seed=config.seed,
            # Batch normalisation cannot train on a single example at a single position.
            drop_last=each % size == 1 and each > size,
            device=self.device,
            workers=config.workers,
            shard=(rank, self.world),
        )
        step = TrainStep(self.network, self.method, self.stateful).train()
        if config.compile:
            step.forward = torch.compile(step.forward, dynamic=False)  # type: ignore[method-assign]
        self.module = self.fabric.setup_module(step)
        if config.fsdp and self.ema is not None:
            self.fabric.strategy.setup_module(self.ema)
        # Parameters that are sharded are others than before.
        optimizer = make_optimizer(config.optimizer, self.module.parameters())
        self.optimizer = cast("Optimizer", self.fabric.setup_optimizers(optimizer))
        if rank > 0:  # or dropout would drop the same everywhere
            seed_everything(config.seed + (rank << 32))
        self.set_learning_rate()

    def _build(self, home: torch.device) -> None:
        """Build the network, the method's state and the moving average; all initial weights follow from the seed."""
        config = self.config
        self.network = build_network(config, self.splits).to(home)
        self.network.objective = self.objective  # type: ignore[assignment]  # an attribute that methods look for
        initialise(self.network, config, self.splits)
        if config.channels_last:
            put_channels_last(self.network, self.device)
        if self.world > 1:
            self.network.gather = Gather(even=True)  # type: ignore[assignment]  # of what a mini-batch is split into
            if config.sync_batchnorm:
                self.network = synchronise_batchnorm(self.network, self.device)
        self.method = copy.deepcopy(config.method)  # a configuration serves many runs; none may inherit a teacher
        self.stateful = stateful(self.method)
        network = cast("Network", self.network)
        for part in self.stateful:
            part.prepare(network)
            part.led = True
            part.to(home)
        self.ema = None if config.ema is None else EMATeacher(network, momentum=config.ema)

    @property
    def steps(self) -> int:
        """Return how many optimiser steps the run has."""
        return self.steps_per_epoch * self.config.epochs

    def rates(self, before: TrainConfig) -> str:
        """Return what the learning rate becomes as a run is taken to more epochs than it had ``before``."""
        was, now = (learning_rate(c, self.at.step, steps_per_epoch=self.steps_per_epoch) for c in (before, self.config))
        return (
            f"from here on the learning rate follows the schedule of all of them, {now:.4g} next instead of {was:.4g}"
        )

    def step(self, inputs: Any, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Train on one mini-batch and return the loss and its terms, detached."""
        # How many mini-batches share this optimiser step, and whether this is the last of them.
        wanted, batch = self.config.accumulate, self.at.batch
        first = batch - batch % wanted
        group = min(wanted, len(self.batches) - first)
        last = batch + 1 == first + group
        # Gradients to which others are added before the step are not averaged over processes yet.
        with nullcontext() if last or self.world == 1 else self.fabric.no_backward_sync(self.module):
            total, terms = self.module(inputs, targets, self.generator)
            self.fabric.backward(total / group if group > 1 else total)
        self.at.batch += 1
        if last:
            self._update()
        return total.detach(), terms

    def _update(self) -> None:
        if self.config.clip is not None:
            # A gradient that is not finite is left to the loop, which names the mini-batch and the checkpoint.
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.at.step += 1
        self.set_learning_rate()
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

    def images(self, inputs: Any, targets: Tensor) -> int:
        """Return how many images a mini-batch has, over all processes."""
        return len(targets) * self.world

    def validate(self) -> dict[str, float]:
        """Return the accuracy on the validation split, where it is to be looked at after this epoch."""
        done, held_out = self.at.epoch + 1, self.splits.validation
        if held_out is None or (done % self.config.validate_every and done != self.config.epochs):
            return {}
        suite = clean_accuracy(self.config, self.splits, held_out, self.device)
        return dict(suite(cast("Network", self.whole(self.network))))

    def whole(self, network: nn.Module) -> nn.Module:
        """Return a network or, of one that is sharded, a whole copy, for which all processes have to ask together."""
        if not self.config.fsdp:
            return network
        with torch.random.fork_rng(devices=[]):  # its random weights are not to change what a step draws
            fresh = build_network(replace(self.config, pretrained=False), self.splits)
        fresh.objective = self.objective  # type: ignore[assignment]
        fresh.load_state_dict(gathered_state(network.state_dict()))
        return fresh.to(self.device)

    def averages(self) -> Iterator[EMATeacher]:
        """Yield the moving averages: the one of the configuration, and the methods' teachers."""
        if self.ema is not None:
            yield self.ema
        for part in self.stateful:
            if isinstance(ema := getattr(part, "ema", None), EMATeacher):
                yield ema

    def conclude(self, run: RunFolder, *, quiet: bool = False) -> None:
        """Write weights, test records and figures; the main process does, after it has gathered what others hold."""
        self._part()
        if not is_main_process():
            return
        save_weights(run.weights, self.network)
        if self.ema is not None:
            save_weights(run.averaged, self.ema.network)
        if not self.config.test:
            return
        self._test(run, self.network, "", run.weights)
        for ema in self.averages():
            own = ema is self.ema
            self._test(run, ema.network, "ema" if own else "teacher", run.averaged if own else None)
        save_figures(run.figures, self.method, cast("Network", self.network), self.splits, self.device)

    def _test(self, run: RunFolder, network: nn.Module, name: str, weights: Path | None) -> None:
        suite = Accuracy.of(source_of(self.config, self.splits, self.device), Accuracy.Settings())
        sha = None if weights is None else digest(weights)
        of, examples, figures = cast("Network", network), len(self.splits.test), Figures()
        record = suite_record(self.config, suite, of, examples=examples, weights=sha, monitor=figures)
        if not name:
            write_figures(run, record, figures.data)
        run.metrics.write("test", **record, **({"network": name} if name else {}))

    def _part(self) -> None:
        """Let this process go on without the others: nothing is gathered or sharded any more."""
        self.network = self.whole(self.network)
        for part in self.stateful:
            part.pair(cast("Network", self.network))
        for ema in self.averages():
            ema.network = self.whole(ema.network).requires_grad_(False).eval()
        for module in (*self.module.modules(), *(() if self.ema is None else self.ema.modules())):
            if getattr(module, "gather", None) is not None:
                module.gather = None

    def state(self) -> dict[str, Any]:
        """Add what the method, the average, the precision and the generator have come to; of shards, the whole."""
        state = {
            **super().state(),
            "method": [part.state_dict() for part in self.stateful],
            "ema": None if self.ema is None else self.ema.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "generator": self.generator.get_state(),
        }
        return gathered_state(state) if self.config.fsdp else state

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned, of which weights may be sharded here."""
        load_sharded(self.network, state["network"])
        for part, saved in zip(self.stateful, state["method"], strict=True):
            load_sharded(part, saved)
        if self.ema is not None:
            load_sharded(self.ema, state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        shard_optimizer(self.optimizer)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.generator.set_state(state["generator"])
        self._tell_progress()


def train(config: TrainConfig, folder: Path, *, quiet: bool = False, splits: Splits | None = None) -> RunFolder:
    """Train from scratch into a new run folder.

    Args:
        config: What to train.
        folder: Where to; it must not exist, or be empty.
        quiet: Print nothing.
        splits: The data, if it is loaded already.

    Raises:
        FileExistsError: If the folder holds anything.
        BlockingIOError: If another process writes into it.
        FileNotFoundError: If the data is not there.
        ValueError: If configuration and data do not fit each other.
        TrainingError: If the loss turns non-finite, or memory does not suffice.
        Terminated: After SIGTERM, behind a checkpoint.
    """
    RunFolder(folder).check_free()
    require_loggers(config.logger)
    config = with_own_data(config)
    start_processes(config)
    run = RunFolder(broadcast(folder))  # whose name may hold the time
    engine = Engine(config, ignoring(splits, ignored_by(config)) if splits else load_data(config))
    _say(*_notes(config, engine.splits), quiet=quiet)
    facts, objective = vars(Facts.of(engine.splits)), to_json(engine.objective)
    about = {"trained_on": facts, "objective": objective, "data": described(engine.splits)}
    with entered_by_main(run.begun(config, engine.device, **about)):
        Loop(run, engine, quiet=quiet).finish()
    return run


def resume(
    folder: Path,
    *,
    data: str | None = None,
    root: str | None = None,
    epochs: int | None = None,
    quiet: bool = False,
    trust_code: bool = False,
) -> RunFolder:
    """Continue a run where its last checkpoint left it; on the same kind of machine it ends as if never interrupted.

    With more epochs than it has, the learning rate follows its schedule stretched over all of them from where the run
    is, so that it ends elsewhere than a run of so many epochs from the start. What a finished run came to stays in
    ``after-N-epochs``.

    Args:
        folder: The run.
        data: Where its data are now, as ``TrainConfig.data`` has it.
        root: Where data sets lie now that are given by name.
        epochs: How many epochs it is to have, all told, if more than it has.
        quiet: Print nothing.
        trust_code: Run the files of a user's own that the run keeps, if its method or data are from one.

    Raises:
        BlockingIOError: If another process trains it.
        FileNotFoundError: If there is no run in the folder.
        ValueError: If its configuration or checkpoint is damaged or belongs to another run, the data have changed
            since, or it needs code that is not trusted or has changed.
        TrainingError: If the loss turns non-finite, or memory does not suffice.
        Terminated: After SIGTERM, behind a checkpoint.

    Warns:
        UserWarning: If the newest checkpoint is damaged and the one before is taken.
    """
    run = RunFolder(folder)
    given = run.read_trusted(trust_code=trust_code)
    check(Count | None, epochs=epochs)
    if epochs is not None and epochs <= given.epochs:
        raise ValueError(f"epochs must be above the run's {given.epochs} to take it further, got {epochs}")
    config = replace(found_again(run, given, data, root), epochs=epochs or given.epochs)
    start_processes(config)

    def build(saved: dict[str, Any] | None) -> Engine:
        fetched: Any = {} if saved is None else {"init": None, "pretrained": False}  # a checkpoint has all weights
        engine = Engine(replace(config, **fetched), load_again(config))
        if saved is not None:
            engine.load(saved)
        elif run.finished:
            raise ValueError(
                f"{run.path} keeps no checkpoint to go on from; begin another run from its weights: --init"
            )
        if (facts := run.read_facts()) is not None:  # after the checkpoint, which finds what does not fit the network
            facts.check(engine.splits)
        run.check_data(engine.splits, "begin another run from its weights: --init")
        if is_main_process():
            if (data or root) and not isinstance(config.data, Reference):
                run.move_data(config)
            if epochs is not None:
                run.extend(epochs)
                _say(f"{given.epochs} epochs become {epochs}: {engine.rates(given)}", quiet=quiet)
        return engine

    return go_on(run, build, quiet=quiet, further=epochs is not None)


def _say(*lines: str, quiet: bool) -> None:
    console = Console(highlight=False, quiet=quiet or not is_main_process(), stderr=True)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _notes(config: TrainConfig, splits: Splits) -> Iterator[str]:
    """Yield what is worth knowing of the data before training, a line each."""
    yield from (f"{splits.name}: {note}" for note in splits.notes)
    if code_of(config.method) and objective_for(config.objective, splits) != CrossEntropy():
        yield f"method {config.method.name} is your own code, which has to ask for network.objective to follow it"
    if config.init is not None:
        run = RunFolder(config.init)
        if changes := run.changes_of_data(splits):
            yield (
                f"init: {run.path} was trained on other data than these ({changes}), and may have seen images that are"
                " the test set here"
            )
