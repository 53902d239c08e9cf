"""A run from its configuration to its weights: train, resume, load."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from multimix.lab.data import Splits, load
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.engine import Engine, build_network
from multimix.lab.train.environment import describe
from multimix.lab.train.folder import Facts, RunFolder
from multimix.lab.train.log import board_writer
from multimix.lab.train.own import code_of, with_own_data
from multimix.lab.train.parallel import by_first, device_of, leads, shard, start, told_by_first
from multimix.lab.train.session import LossLog, Session
from multimix.lab.train.state import load_newest, restore_random_states
from multimix.lab.train.weights import load_weights
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
    start(config)
    run = RunFolder(told_by_first(folder))  # whose name may hold the time
    engine = Engine(config, splits or load_data(config))
    with by_first(_begun(run, engine)):
        return Session(run, engine, quiet=quiet).finish()


@contextmanager
def _begun(run: RunFolder, engine: Engine) -> Iterator[None]:
    """Begin a run and keep others from writing into its folder."""
    run.create(engine.config, Facts.of(engine.splits))
    with run.writing():
        run.write_json(run.environment_file, describe(engine.fabric.device))
        yield


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
    config = run.read_config(run.read_code("method", "data", trust_code=trust_code))
    start(config)
    with by_first(run.writing()):
        return run if told_by_first(run.finished) else _resume(run, config, quiet=quiet)


def _resume(run: RunFolder, config: TrainConfig, *, quiet: bool) -> RunFolder:
    saved = load_newest(run.checkpoint)
    splits = load_data(config)
    engine = Engine(config, splits)
    session = Session(run, engine, quiet=quiet)
    if saved is not None:
        engine.load(saved)
        session.log = LossLog(**saved["log"])
        rank, _ = shard()
        restore_random_states([saved["random"], *saved.get("random_of_others", ())][rank])
    if (facts := run.read_facts()) is not None:  # after the checkpoint, which finds what does not fit the network
        facts.check(splits)
    if leads():
        if not run.environment_file.exists():
            run.write_json(run.environment_file, describe(engine.fabric.device))
        run.metrics.keep(lambda event: event["event"] == "epoch" and event["epoch"] <= engine.at.epoch)
    return session.finish()


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
    config = _finished_config(run)
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
    config = _finished_config(run)
    facts = run.read_facts() or Facts.of(load_data(config))
    return _network(run, config, facts, device), facts


def _finished_config(run: RunFolder) -> TrainConfig:
    config = run.read_config()
    if not run.weights.is_file():
        raise FileNotFoundError(
            f"{run.path} has no model.safetensors yet; finish it with: multimix train --resume {run.path}"
        )
    return config


def _network(run: RunFolder, config: TrainConfig, facts: Facts, device: str) -> Network:
    network = build_network(replace(config, pretrained=False), facts)  # weights come from the run, nothing is fetched
    load_weights(run.weights, network)
    return cast("Network", network.to(device_of(config) if device == "auto" else device))
