"""A run from its configuration to its weights: train, resume."""

from pathlib import Path
from typing import Any

from multimix.lab.data import Splits
from multimix.lab.runs import loop
from multimix.lab.runs.codec import with_own_data
from multimix.lab.runs.display import board_writer
from multimix.lab.runs.processes import broadcast
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.engine import Engine
from multimix.lab.train.folder import Facts, RunFolder
from multimix.lab.train.network import load_data
from multimix.lab.train.parallel import start_processes


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
    with loop.created(run, engine, trained_on=vars(Facts.of(engine.splits))):
        loop.Loop(run, engine, quiet=quiet).finish()
    return run


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
