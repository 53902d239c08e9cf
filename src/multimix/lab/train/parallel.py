"""One run on several devices: its processes, and weights that are sharded over them (fully sharded data parallel)."""

import atexit
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from multimix.lab.runs.environment import device_named, keep_freed_memory
from multimix.lab.train.config import TrainConfig
from multimix.protocols import Stateful

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import Strategy

M = TypeVar("M", bound=nn.Module)

# Running statistics are averaged by the run itself. The name changed in torch 2.14.
_OWN_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in signature(nn.parallel.DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


def start_processes(config: TrainConfig) -> None:
    """Start all processes of a run, or join them; of a single one, do nothing."""
    there = int(os.environ.get("WORLD_SIZE", 1))
    if config.world_size == 1 and there > 1:
        raise ValueError(f"devices and nodes must say that there are {there} processes, got 1 device of 1 node")
    if config.world_size > 1:
        make_fabric(config)
        atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)


def make_fabric(config: TrainConfig, *, unused: bool = False) -> "Fabric":
    """Return a Fabric on the configured devices, with all processes started that torchrun or SLURM did not start.

    With ``unused`` there may be parameters that a step leaves without gradient.
    """
    device = device_named(config.device)
    if config.precision == "16-mixed" and device.type == "cpu":
        raise ValueError("precision '16-mixed' needs a CUDA device; on a CPU use '32-true' or 'bf16-mixed'")
    if device.type == "cpu":
        keep_freed_memory()
    devices: Any = [device.index] if device.type == "cuda" else 1
    strategy: Strategy | str = "auto"
    if config.world_size > 1:
        _check_devices(config, device)
        devices, strategy = config.devices, _strategy(config, unused=unused)
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)  # its greetings are none of a quiet run's
    try:
        fabric = _lightning_fabric().Fabric(
            accelerator=device.type,
            devices=devices,
            num_nodes=config.nodes,
            strategy=strategy,
            precision=config.precision,
        )
        fabric.launch()
    finally:
        logger.setLevel(level)
    if fabric.world_size > 1 and device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.devices))
    return fabric


def _lightning_fabric() -> ModuleType:
    """Return lightning_fabric, imported without torchmetrics, whose version it asks for: that would take seconds."""
    if "torchmetrics" in sys.modules:
        return import_module("lightning_fabric")
    sys.modules["torchmetrics"] = None  # type: ignore[assignment]
    try:
        return import_module("lightning_fabric")
    finally:
        del sys.modules["torchmetrics"]


def _strategy(config: TrainConfig, *, unused: bool) -> "Strategy":
    strategies = _lightning_fabric().strategies
    if not config.fsdp:
        return strategies.DDPStrategy(find_unused_parameters=unused, **_OWN_BUFFERS)
    return strategies.ModelParallelStrategy(
        lambda module, mesh: shard_module(module, mesh["data_parallel"]),
        data_parallel_size=config.world_size,
        tensor_parallel_size=1,
    )


def _check_devices(config: TrainConfig, device: torch.device) -> None:
    if ":" in config.device:
        raise ValueError(f"device {config.device!r} is one device; with devices={config.devices} say cuda")
    there = torch.cuda.device_count()
    if device.type == "cuda" and config.devices > there:
        raise ValueError(
            f"devices must be at most what is there, got {config.devices}: torch sees {there} CUDA"
            f" device{'s' * (there != 1)}"
        )
    if config.batch_size % config.world_size:
        raise ValueError(
            f"batch_size is that of all {config.world_size} processes together and must be a multiple of their number,"
            f" got {config.batch_size}"
        )


def shard_module(step: M, mesh: DeviceMesh) -> M:
    """Give every process its shard of all parameters, and return the module; they are gathered where it runs."""
    # Each block of a network is gathered when it is called, and let go afterwards. What is left, the head among it, is
    # whole as long as a step lasts, since methods look into it.
    heads = {head for part in step.modules() if isinstance(head := getattr(part, "head", None), nn.Module)}
    counts = Counter(parameter for part in step.modules() for parameter in part.parameters(recurse=False))
    tied = {parameter for parameter, count in counts.items() if count > 1}
    for block in dict.fromkeys(_blocks(step, heads, tied)):
        fully_shard(block, mesh=mesh)
    fully_shard(step, mesh=mesh)
    return step


def _blocks(module: nn.Module, heads: set[nn.Module], tied: set[nn.Parameter]) -> Iterator[nn.Module]:
    """Yield the outermost elements of lists and sequences, which can only be called, without a head or tied weights."""
    for child in module.children():
        parameters = set(child.parameters())
        # A list has no forward pass, before which its elements could be gathered; into a method others look.
        opaque = isinstance(module, (nn.Sequential, nn.ModuleList)) and not isinstance(child, (nn.ModuleList, Stateful))
        if opaque and parameters and not parameters & tied and not heads & set(child.modules()):
            yield child
        else:
            yield from _blocks(child, heads, tied)


def gathered_state(state: Any) -> Any:
    """Return a state with every sharded tensor whole, on the CPU; all processes have to ask at the same time."""
    return tree_map_only(DTensor, lambda tensor: tensor.full_tensor().cpu(), state)


def load_sharded(module: nn.Module, saved: dict[str, Any]) -> None:
    """Load a whole state into a module whose parameters may be sharded."""
    here = module.state_dict()
    module.load_state_dict(type(saved)((name, _sharded(value, here.get(name))) for name, value in saved.items()))


def shard_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Shard what an optimiser has just loaded, as its parameters are."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                state[name] = _sharded(value, parameter)


def _sharded(value: Any, like: Any) -> Any:
    """Return this process' shard of a tensor of which every process has the whole, so that nothing is sent."""
    if not isinstance(like, DTensor) or not isinstance(value, torch.Tensor):
        return value
    there = value.to(like.device, like.dtype)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)
