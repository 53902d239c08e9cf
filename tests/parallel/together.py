"""Run a function in several processes that know of each other, as torchrun would start them."""

import io
import os
import pickle
import resource
import signal
import socket
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

SERVER = get_context("forkserver")
HEAVY = ["multimix.lab.train", "sklearn.datasets", "timm", "torchvision", "lightning_fabric"]
SERVER.set_forkserver_preload([*HEAVY, "pytest", "PIL.Image"])  # imports once, not once a process


def together(world: int, function: Callable[..., Any], *arguments: Any, seconds: float = 240) -> list[Any]:
    """Return what ``function(*arguments)`` returns in each of ``world`` processes, by rank.

    The function is found by its name in a module that can be imported, and so are its arguments' classes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = pickle.dumps((function, arguments))  # by itself: torch would share tensors' memory with the processes
    pipes = [SERVER.Pipe(duplex=False) for _ in range(world)]
    children = [
        SERVER.Process(target=_work, args=(pipe[1], rank, world, port, job), daemon=True)
        for rank, pipe in enumerate(pipes)
    ]
    for child in children:
        child.start()
    try:
        return [_answer(rank, pipe[0], seconds) for rank, pipe in enumerate(pipes)]
    finally:
        for child in children:
            child.kill()
            child.join()


def with_room_for(size: int, function: Callable[..., Any], *arguments: Any) -> tuple[str, str]:
    """Return the error of a function in a process whose files cannot grow past a size, as on a full disk."""
    return together(1, _limited, size, function, *arguments)[0]


def _limited(size: int, function: Callable[..., Any], *arguments: Any) -> tuple[str, str]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        function(*arguments)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def _answer(rank: int, pipe: Connection, seconds: float) -> Any:
    if not pipe.poll(seconds):
        raise TimeoutError(f"process {rank} has not answered within {seconds} s")
    went_well, answer = pipe.recv()
    if not went_well:
        raise RuntimeError(f"process {rank} failed:\n{answer}")
    return torch.load(io.BytesIO(answer), weights_only=True)


def _work(pipe: Connection, rank: int, world: int, port: int, job: bytes) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
    }
    torch.set_num_threads(1)
    try:
        function, arguments = pickle.loads(job)  # noqa: S301 (what this test itself has written)
        answer = io.BytesIO()
        torch.save(function(*arguments), answer)  # as bytes: a tensor would be shared with a process that is gone
        pipe.send((True, answer.getvalue()))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
