"""Runs that meet a full disk, in a process of their own."""

import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

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
