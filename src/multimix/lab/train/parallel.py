"""One run on several devices: the processes, what they keep in step and what only the first of them does."""

import atexit
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multimix.lab.train.config import TrainConfig
from multimix.lab.train.sharded import share_out
from multimix.ops import processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import Strategy

# Running statistics are averaged here instead. The name changed in torch 2.14.
_OWN_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in signature(nn.parallel.DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


def device_of(config: TrainConfig) -> torch.device:
    """Return the configured device, of several the first.

    Raises:
        ValueError: If the device is unknown or not there.
    """
    kind, _, index = config.device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {config.device!r}")
    there = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= there:
        raise ValueError(f"device {config.device!r} is not there: torch sees {_devices(there)}")
    return (
        torch.device("cuda", int(index or 0)) if kind == "cuda" or (kind == "auto" and there) else torch.device("cpu")
    )


def start(config: TrainConfig) -> None:
    """Start all processes of a run, or join them; of a single one, do nothing.

    Raises:
        ValueError: If this is one process of several and the configuration knows of one device only, or as
            :func:`make_fabric`.
    """
    there = int(os.environ.get("WORLD_SIZE", 1))
    if world(config) == 1 and there > 1:
        raise ValueError(f"devices and nodes must say that there are {there} processes, got 1 device of 1 node")
    if world(config) > 1:
        make_fabric(config)
        atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def make_fabric(config: TrainConfig, *, unused: bool = False) -> "Fabric":
    """Return a Fabric on the configured devices, in the configured precision; of several, with all processes started.

    Several processes are those of torchrun or SLURM, or else this command is started once more for each further device;
    where they run already, they are joined.

    Args:
        config: What to train.
        unused: There may be parameters that a step leaves without gradient.

    Raises:
        ValueError: If a device is unknown or not there, or the mini-batch cannot be shared out evenly.
    """
    device = device_of(config)
    if config.precision == "16-mixed" and device.type == "cpu":
        raise ValueError("precision '16-mixed' needs a CUDA device; on a CPU use '32-true' or 'bf16-mixed'")
    devices: Any = [device.index] if device.type == "cuda" else 1
    strategy: Strategy | str = "auto"
    if world(config) > 1:
        _check_shares(config, device)
        devices, strategy = config.devices, _strategy(config, unused=unused)
    with _hushed("lightning_fabric"):
        fabric = _fabric().Fabric(
            accelerator=device.type,
            devices=devices,
            num_nodes=config.nodes,
            strategy=strategy,
            precision=config.precision,
        )
        fabric.launch()
    if fabric.world_size > 1 and device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.devices))
    return fabric


def _fabric() -> ModuleType:
    """Return lightning_fabric, imported without torchmetrics, whose version it asks for: that would take seconds."""
    hidden = "torchmetrics" not in sys.modules
    if hidden:
        sys.modules["torchmetrics"] = None  # type: ignore[assignment]
    try:
        return import_module("lightning_fabric")
    finally:
        if hidden:
            del sys.modules["torchmetrics"]


def _strategy(config: TrainConfig, *, unused: bool) -> "Strategy":
    strategies = _fabric().strategies
    if not config.fsdp:
        return strategies.DDPStrategy(find_unused_parameters=unused, **_OWN_BUFFERS)
    return strategies.ModelParallelStrategy(
        lambda module, mesh: share_out(module, mesh["data_parallel"]),
        data_parallel_size=world(config),
        tensor_parallel_size=1,
    )


def world(config: TrainConfig) -> int:
    """Return how many processes train a run."""
    return config.devices * config.nodes


def leads() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return processes() == 1 or dist.get_rank() == 0


def shard() -> tuple[int, int]:
    """Return (rank, world) of this process."""
    return (0, 1) if processes() == 1 else (dist.get_rank(), processes())


def mean_of_all(values: Tensor) -> Tensor:
    """Return the mean of every process' values."""
    if processes() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / processes()


def any_of(flag: bool, device: torch.device) -> bool:  # noqa: FBT001 (a question's only subject)
    """Return whether the flag is up in some process; all have to ask at the same time."""
    if processes() == 1:
        return flag
    raised = torch.tensor([float(flag)], device=device)
    dist.all_reduce(raised)
    return bool(raised.item())


def told_by_first(value: Any) -> Any:
    """Return what the first process has."""
    if processes() == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told)
    return told[0]


@contextmanager
def by_first(context: AbstractContextManager[None]) -> Iterator[None]:
    """Enter a context in the first process only; where it fails, all processes raise its error."""
    with ExitStack() as stack:
        error: Exception | None = None
        if leads():
            try:
                stack.enter_context(context)
            except Exception as raised:
                if processes() == 1:
                    raise
                error = raised
        if (error := told_by_first(error)) is not None:
            raise error
        yield


def of_all(value: Any) -> list[Any]:
    """Return what each process has, by rank."""
    if processes() == 1:
        return [value]
    found: list[Any] = [None] * processes()
    dist.all_gather_object(found, value)
    return found


def average_buffers(network: nn.Module) -> None:
    """Give all processes the mean of their running statistics, which each takes from its own part of a mini-batch."""
    if processes() == 1:
        return
    floating = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if not floating:
        return
    together = mean_of_all(torch.cat([buffer.flatten().float() for buffer in floating]))
    for buffer, mean in zip(floating, together.split([buffer.numel() for buffer in floating]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def _check_shares(config: TrainConfig, device: torch.device) -> None:
    if ":" in config.device:
        raise ValueError(f"device {config.device!r} is one device; with devices={config.devices} say cuda")
    there = torch.cuda.device_count()
    if device.type == "cuda" and config.devices > there:
        raise ValueError(f"devices must be at most what is there, got {config.devices}: torch sees {_devices(there)}")
    if config.batch_size % world(config):
        raise ValueError(
            f"batch_size is that of all {world(config)} processes together and must be a multiple of their number,"
            f" got {config.batch_size}"
        )


def _devices(there: int) -> str:
    return f"{there} CUDA device{'s' * (there != 1)}"


@contextmanager
def _hushed(name: str) -> Iterator[None]:
    """Keep a library's greetings, which go to the error stream, out of a quiet run."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
