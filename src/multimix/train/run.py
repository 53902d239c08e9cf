"""A run from its configuration to its records: train, resume, evaluate."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_model
from torch import nn

from multimix.data import Splits, load
from multimix.evaluate import SUITES
from multimix.protocols import Network
from multimix.train.config import TrainConfig
from multimix.train.engine import Engine, build_network, make_fabric
from multimix.train.environment import describe
from multimix.train.folder import RunFolder
from multimix.train.log import board_writer
from multimix.train.measure import evaluation_batches, test_record
from multimix.train.session import LossLog, Session
from multimix.train.state import load_checkpoint, restore_random_states


def train(config: TrainConfig, folder: Path, *, quiet: bool = False, splits: Splits | None = None) -> RunFolder:
    """Train from scratch into a new run folder.

    Args:
        config: What to train.
        folder: Where to; it must not exist, or be empty.
        quiet: Print nothing.
        splits: The data, if it is loaded already.

    Raises:
        FileExistsError: If the folder holds anything.
        FileNotFoundError: If the data is not there.
        ValueError: If configuration and data do not fit each other.
        TrainingError: If the loss turns non-finite.
    """
    run = RunFolder(folder)
    if config.tensorboard:
        board_writer()
    engine = Engine(config, splits or load_data(config))
    run.create(config)
    run.write_json(run.environment_file, describe(engine.fabric.device))
    return Session(run, engine, quiet=quiet).finish()


def resume(folder: Path, *, quiet: bool = False) -> RunFolder:
    """Continue a run where its last checkpoint left it; on the same kind of machine it ends as if never interrupted.

    Raises:
        FileNotFoundError: If there is no run in the folder.
        ValueError: If its configuration or checkpoint is damaged or belongs to another run.
        TrainingError: If the loss turns non-finite.
    """
    run = RunFolder(folder)
    config = run.read_config()
    if run.finished:
        return run
    saved = load_checkpoint(run.checkpoint) if run.checkpoint.exists() else None
    engine = Engine(config, load_data(config))
    session = Session(run, engine, quiet=quiet)
    if saved is not None:
        engine.load(saved)
        session.log = LossLog(**saved["log"])
        restore_random_states(saved["random"])
    if not run.environment_file.exists():
        run.write_json(run.environment_file, describe(engine.fabric.device))
    run.metrics.keep(lambda event: event["event"] == "epoch" and event["epoch"] <= engine.at.epoch)
    return session.finish()


def load_data(config: TrainConfig) -> Splits:
    """Return the configured data set."""
    return load(
        config.data,
        root=config.root,
        validation=config.validation,
        split_seed=config.split_seed,
        download=config.download,
        train_size=config.train_size,
        image_size=config.image_size,
    )


def load_network(folder: Path, splits: Splits | None = None, *, device: str = "auto") -> tuple[Network, Splits]:
    """Return the trained network of a run, and its data.

    Raises:
        FileNotFoundError: If there is no run, or it has not ended.
        ValueError: If its files are damaged or do not fit each other.
    """
    run = RunFolder(folder)
    config = run.read_config()
    if not run.weights.is_file():
        raise FileNotFoundError(
            f"{folder} has no model.safetensors yet; finish it with: multimix train --resume {folder}"
        )
    splits = splits or load_data(config)
    network = build_network(config, splits)
    try:
        load_model(network, str(run.weights))
    except Exception as error:  # safetensors has an error class of its own beside torch's
        raise ValueError(
            f"{run.weights} is damaged or of another network: {' '.join(str(error).split())[:160]}"
        ) from error
    return cast("Network", network.to(make_fabric(config).device if device == "auto" else device)), splits


def evaluate_run(folder: Path, suites: Iterable[str] = ("accuracy",)) -> list[dict[str, Any]]:
    """Measure a finished run on its test set, write the results into its metrics and return them.

    Raises:
        FileNotFoundError: If there is no finished run.
        ValueError: If a suite is unknown or the run's files are damaged.
    """
    suites = list(suites)
    known = {suite.name: suite for suite in SUITES}
    if unknown := [suite for suite in suites if suite not in known]:
        raise ValueError(f"unknown suite {', '.join(unknown)}; known are {', '.join(known)}")
    run = RunFolder(folder)
    network, splits = load_network(folder)
    config = run.read_config()
    device = next(cast("nn.Module", network).parameters()).device
    batches = evaluation_batches(config, splits, splits.test, device)
    results = []
    for suite in suites:
        result = test_record(config, known[suite](batches), network, len(splits.test), device)
        run.metrics.keep(
            lambda e, r=result: (e["event"], e.get("suite"), e.get("network")) != ("test", r["suite"], None)
        )
        run.metrics.write("test", **result)
        results.append(result)
    return results
