"""What the processes of these tests do; in a module of its own, so that they can import it."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multimix.lab.train import Engine, TrainConfig
from multimix.lab.train.network import load_data
from multimix.lab.train.parallel import gathered_state
from multimix.models import synchronise_batchnorm
from multimix.ops import Gather
from multimix.protocols import Method, Teacher
from train.tiny import in_double


def steps(config: TrainConfig, count: int, double: bool = False, disturbed: bool = False) -> dict[str, Any]:
    """Train ``count`` steps and return their losses, meaned over processes, and the weights after them.

    With ``double`` the network computes in float64; disturbed, every initial weight is changed by a share of about
    1e-7, the rounding of float32.
    """
    with in_double() if double else nullcontext():
        engine = Engine(config, load_data(config))
    if disturbed:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in engine.network.parameters():
                parameter *= 1 + 6e-8 * torch.randn(parameter.shape, generator=generator)
    losses: list[float] = []
    while len(losses) < count:
        for inputs, targets in engine.epoch():
            if len(losses) == count:
                break
            total, _ = engine.step(inputs, targets)
            losses.append(float(_mean(total)))
        else:
            engine.end_epoch()
    averages = {f"average {i}": average.state_dict() for i, average in enumerate(engine.averages())}
    return gathered_state({"losses": losses, "weights": engine.network.state_dict(), **averages})


def join() -> None:
    """Join the process group that the environment describes."""
    dist.init_process_group("gloo")


def rank() -> int:
    return int(os.environ["RANK"])


def _mean(value: Tensor) -> Tensor:
    if not dist.is_initialized():
        return value
    value = value.detach().double()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def share(values: Tensor) -> Tensor:
    """Return this process' share of values that are dealt out."""
    return values[rank() :: dist.get_world_size()]


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Return the largest difference between two networks' floating-point tensors."""
    assert a.keys() == b.keys()
    return max(
        float((a[name].double() - b[name].double()).abs().max()) for name in a if torch.is_floating_point(a[name])
    )


def losses_and_gradients(
    method: Method, network: nn.Module, inputs: Tensor, targets: Tensor, teacher: nn.Module | None
) -> dict[str, Any]:
    """Return the loss and the gradients of a mini-batch that is dealt out, both averaged over processes."""
    network.gather = Gather()
    mine, labels = share(inputs), share(targets)
    taught = None
    if teacher is not None:
        teacher.gather = network.gather
        taught = Teacher(teacher, mine, 0.3)
    losses = method(network, mine, labels, generator=torch.Generator().manual_seed(5), teacher=taught)
    losses.total.backward()
    gradients = {name: _mean(parameter.grad) for name, parameter in network.named_parameters()}
    return {"loss": _mean(losses.total.detach()), **gradients}


def each(function: Callable[..., Any], cases: list[tuple[Any, ...]]) -> list[Any]:
    """Return what a function makes of each case, in one process group."""
    join()
    return [function(*case) for case in cases]


def gathered_back(sizes: list[int], even: bool) -> dict[str, Any]:
    """Gather rows that say whose they are, and send back a weight for each."""
    values = torch.full((sizes[rank()], 2), float(rank()), requires_grad=True)
    with torch.no_grad():
        values[:, 1] = torch.arange(float(sizes[rank()]))
    everyone = Gather(even=even)(values)
    (everyone[:, 0] * (1 + torch.arange(len(everyone))) * (1 + rank())).sum().backward()
    return {"all": everyone.detach(), "gradient": values.grad, "size": Gather(even=even).size(len(values), _CPU)}


def normalised(layer: nn.Module, inputs: list[Tensor], upstream: list[Tensor]) -> dict[str, Any]:
    """Return what a synchronised layer makes of this process' inputs, and its gradients."""
    synced = synchronise_batchnorm(nn.Sequential(layer), _CPU)
    mine = inputs[rank()].requires_grad_()
    outputs = synced(mine)
    outputs.backward(upstream[rank()])
    buffers = {name.removeprefix("0."): buffer for name, buffer in synced.named_buffers()}
    grads = {f"grad {name.removeprefix('0.')}": parameter.grad for name, parameter in synced.named_parameters()}
    return {"outputs": outputs.detach(), "inputs": mine.grad, **buffers, **grads}


_CPU = torch.device("cpu")
