"""What two processes draw; in a module of its own, so that they can import it."""

import copy
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import multimix as mm


def begun_and_resumed() -> dict[str, Tensor]:
    """Return two losses of one seed, and two of one that goes on from the first process' checkpoint.

    Their gradients are averaged over processes like those of any other loss.
    """
    dist.init_process_group("gloo")
    losses, shared = {}, [{}]
    for name in ("begun", "resumed"):
        loss_of = mm.MultiMixLoss(seed=3, tuples=20)
        if name == "resumed":
            loss_of.load_state_dict(shared[0])
        losses[name] = torch.stack([loss_of(torch.eye(4), torch.arange(4)) for _ in range(2)])
        shared = [loss_of.state_dict()]
        dist.broadcast_object_list(shared)  # rank 0 writes the checkpoint, all read it
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 4)
    inputs, labels = torch.randn(2, 5, 6)[int(os.environ["RANK"])], torch.arange(5) % 4
    wrapped = torch.nn.parallel.DistributedDataParallel(layer)
    alone = torch.autograd.grad(mm.MultiMixLoss(seed=3)(layer(inputs), labels), layer.weight)[0]
    mm.MultiMixLoss(seed=3)(wrapped(inputs), labels).backward()
    dist.all_reduce(alone)
    torch.testing.assert_close(layer.weight.grad, alone / 2)
    return losses


def of_two_processes(model: nn.Module, images: list[Any], method: Any, folder: Path) -> dict[str, Any]:
    """Return the losses and weights of a training by transformers, and the weights of one resumed half-way."""
    from integrations import test_transformers as own

    def fit(name: str, resume: str | None = None) -> tuple[list[float], list[Tensor]]:
        fresh, given = own.Own(copy.deepcopy(model)), copy.deepcopy(method)
        options = {"ddp_backend": "gloo", "save_strategy": "epoch", "resume": resume}
        losses, _ = own.fit(fresh, images, given, folder / name, **options)
        return losses, [p.detach() for p in fresh.parameters()]

    losses, weights = fit("whole")
    return {"losses": losses, "weights": weights, "resumed": fit("rest", str(folder / "whole" / "checkpoint-2"))[1]}
