"""Runs that meet a full disk, or whose worker dies, in a process of their own."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from multimix.lab.data import _files
from multimix.lab.train import Engine, TrainConfig, train
from multimix.lab.train.network import load_data
from parallel.together import SERVER


def with_room_for(size: int, function: Callable[..., Any], *arguments: Any) -> tuple[str, str]:
    """Run a function in a process whose files cannot grow past a size, as on a full disk; return its error.

    The function is found by its name in a module that can be imported. The process is no fork of this one: where
    autograd has started threads, a fork cannot train.
    """
    ours, theirs = SERVER.Pipe()
    process = SERVER.Process(target=_work, args=(theirs, size, function, arguments))
    process.start()
    assert ours.poll(60)
    answer = ours.recv()
    process.join()
    return answer


def _work(pipe: Connection, size: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        function(*arguments)
        pipe.send(("", ""))
    except BaseException as error:
        pipe.send((type(error).__name__, str(error)))


def train_while_a_worker_dies(config: TrainConfig, folder: Path) -> None:
    """Train from files, and kill the worker that reads them before the second step."""
    _files.MEMORY_LIMIT = 0
    real, done = Engine.step, iter(range(1, 100))

    def step(self: Engine, *arguments: Any) -> Any:
        if next(done) == 2:
            for child in multiprocessing.active_children():
                child.kill()
        return real(self, *arguments)

    Engine.step = step  # type: ignore[method-assign]
    train(config, folder, quiet=True)


def train_as_nobody(config: TrainConfig, folder: Path) -> None:
    """Train as somebody who may write nowhere."""
    Engine(config, load_data(config))  # imports what nobody may read
    os.seteuid(65534)
    train(config, folder, quiet=True)
