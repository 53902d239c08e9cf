"""A run from its configuration to its weights: train, resume, load."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from multimix.lab.data import Splits, load
from multimix.lab.runs import loop
from multimix.lab.runs.checkpoint import load_weights
from multimix.lab.runs.codec import code_of, with_own_data
from multimix.lab.runs.display import board_writer
from multimix.lab.runs.environment import device_named
from multimix.lab.runs.processes import broadcast
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.engine import Engine
from multimix.lab.train.folder import Facts, RunFolder
from multimix.lab.train.network import build_network
from multimix.lab.train.parallel import start_processes
from multimix.protocols import Network


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
    if config.tensorboard:
        board_writer()
    config = with_own_data(config)
    start_processes(config)
    run = RunFolder(broadcast(folder))  # whose name may hold the time
    engine = Engine(config, splits or load_data(config))
    return loop.start(run, engine, quiet=quiet, trained_on=vars(Facts.of(engine.splits)))


def resume(folder: Path, *, quiet: bool = False, trust_code: bool = False) -> RunFolder:
    """Continue a run where its last checkpoint left it; on the same kind of machine it ends as if never interrupted.

    Args:
        folder: The run.
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
    config = run.read_trusted(trust_code=trust_code)
    start_processes(config)

    def build(saved: dict[str, Any] | None) -> Engine:
        engine = Engine(config, load_data(config))
        if saved is not None:
            engine.load(saved)
        if (facts := run.read_facts()) is not None:  # after the checkpoint, which finds what does not fit the network
            facts.check(engine.splits)
        return engine

    return loop.go_on(run, build, quiet=quiet)


_DATA = ("root", "validation", "split_seed", "download", "train_size", "image_size")


def load_data(config: TrainConfig) -> Splits:
    """Return the configured data set."""
    return load(config.data, **{name: getattr(config, name) for name in _DATA})


def same_data(one: TrainConfig, other: TrainConfig) -> bool:
    """Return whether two configurations load the same data set, split alike."""
    same = all(getattr(one, name) == getattr(other, name) for name in ("data", *_DATA))
    return same and code_of(one.data) == code_of(other.data)


def load_network(
    folder: Path, splits: Splits | None = None, *, device: str = "auto", trust_code: bool = False
) -> tuple[Network, Splits]:
    """Return the trained network of a run, and its data.

    Args:
        folder: The run.
        splits: The data, if it is loaded already.
        device: Where to put the network.
        trust_code: Run the file of a user's own that the run keeps, if its data are from one; the network needs none.

    Raises:
        FileNotFoundError: If there is no run, or it has not ended.
        ValueError: If its files are damaged or do not fit each other, the data have changed since, or they need code
            that is not trusted or has changed.
    """
    run = RunFolder(folder)
    config = run.read_config()
    run.check_weights()
    splits = splits or load_data(run.read_config(run.read_code("data", trust_code=trust_code)))
    facts = run.read_facts() or Facts.of(splits)
    facts.check(splits)
    return _network(run, config, facts, device), splits


def load_trained(folder: Path, *, device: str = "auto") -> tuple[Network, Facts]:
    """Return the trained network of a run and what it knows of its data, which need not be there.

    Nothing that a user's own files hold is run: neither network nor facts are from there.

    Raises:
        FileNotFoundError: If there is no run, or it has not ended.
        ValueError: If its files are damaged or do not fit each other.
    """
    run = RunFolder(folder)
    config = run.read_config()
    run.check_weights()
    facts = run.read_facts() or Facts.of(load_data(config))
    return _network(run, config, facts, device), facts


def _network(run: RunFolder, config: TrainConfig, facts: Facts, device: str) -> Network:
    network = build_network(replace(config, pretrained=False), facts)  # weights come from the run, nothing is fetched
    load_weights(run.weights, network)
    return cast("Network", network.to(device_named(config.device) if device == "auto" else device))
