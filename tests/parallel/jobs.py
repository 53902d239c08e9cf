"""What the processes of these tests do; in a module of its own, so that they can import it."""

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from multimix.train import Engine, TrainConfig
from multimix.train.run import load_data


def steps(config: TrainConfig, count: int) -> dict[str, Any]:
    """Train ``count`` steps and return their losses, meaned over processes, and the weights after them."""
    engine = Engine(config, load_data(config))
    losses: list[float] = []
    while len(losses) < count:
        for inputs, targets in engine.epoch():
            if len(losses) == count:
                break
            total, _ = engine.step(inputs, targets)
            losses.append(float(_mean(total)))
        else:
            engine.end_epoch()
    teachers = {f"teacher {i}": part.state_dict() for i, part in enumerate(engine.stateful)}
    return {"losses": losses, "weights": engine.network.state_dict(), **teachers}


def join() -> None:
    """Join the process group that the environment describes."""
    dist.init_process_group("gloo")


def rank() -> int:
    return int(os.environ["RANK"])


def _mean(value: Tensor) -> Tensor:
    if not dist.is_initialized():
        return value
    value = value.double()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def share(values: Tensor) -> Tensor:
    """Return this process' share of values that are dealt out."""
    return values[rank() :: dist.get_world_size()]


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Return the largest difference between two networks' floating-point tensors."""
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a if torch.is_floating_point(a[name]))
