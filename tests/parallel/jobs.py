"""What the processes of these tests do; in a module of its own, so that they can import it."""

import copy
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
import torch
import torch.distributed as dist
import torchvision
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

import multimix as mm
import toy
from multimix.lab.train import Engine, TrainConfig, resume, train
from multimix.lab.train.engine import TrainStep
from multimix.lab.train.network import load_data
from multimix.lab.train.parallel import gathered_state, shard_module
from multimix.models import synchronise_batchnorm
from multimix.ops import Gather, dirichlet
from multimix.protocols import Method, Teacher
from train.tiny import in_double, stopped_after

CPU = torch.device("cpu")


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


def rank() -> int:
    return int(os.environ["RANK"])


def _mean(value: Tensor) -> Tensor:
    if not dist.is_initialized():
        return value
    value = value.detach().double()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def share(values: Tensor) -> Tensor:
    """Return this process' shard of values."""
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
    """Return the loss and the gradients of a mini-batch that is sharded, both averaged over processes."""
    network.gather = Gather()
    mine, labels = share(inputs), share(targets)
    taught = None
    if teacher is not None:
        teacher.gather = network.gather
        taught = Teacher(teacher, mine, 0.3)
    generator = torch.Generator().manual_seed(5)
    losses = method(network, mine, labels, generator=generator, teacher=taught)
    losses.total.backward()
    gradients = {name: _mean(parameter.grad) for name, parameter in network.named_parameters()}
    return {"loss": _mean(losses.total.detach()), "generator": generator.get_state(), **gradients}


def in_turn(inputs: Tensor, targets: Tensor, gathers: bool) -> list[list[str]]:
    """Return which terms each of 12 steps has, of a method that is chosen by a generator of this process' own."""
    network, method = toy.images(norm=False), mm.Alternate((mm.MultiMix(tuples=20, clean=0.5), mm.Mixup()))
    network.gather = Gather() if gathers else None
    generator = torch.Generator().manual_seed(rank())
    return [sorted(method(network, share(inputs), share(targets), generator=generator).terms) for _ in range(12)]


def with_weights(*case: Any) -> dict[str, Any]:
    """Return the same, and the interpolation vectors that this process has drawn."""
    drawn = []

    def kept(*arguments: Any, **options: Any) -> Tensor:
        drawn.append(dirichlet(*arguments, **options))
        return drawn[-1]

    with patch("multimix.methods.multimix.dirichlet", kept):
        return {**losses_and_gradients(*case), "weights": torch.cat(drawn)}


def each(function: Callable[..., Any], cases: list[tuple[Any, ...]]) -> list[Any]:
    """Return what a function makes of each case, in one process group."""
    dist.init_process_group("gloo")
    return [function(*case) for case in cases]


def gathered_back(sizes: list[int], even: bool) -> dict[str, Any]:
    """Gather rows that say whose they are, and send back a weight for each."""
    values = torch.full((sizes[rank()], 2), float(rank()), requires_grad=True)
    with torch.no_grad():
        values[:, 1] = torch.arange(float(sizes[rank()]))
    everyone = Gather(even=even)(values)
    (everyone[:, 0] * (1 + torch.arange(len(everyone))) * (1 + rank())).sum().backward()
    return {"all": everyone.detach(), "gradient": values.grad, "size": Gather(even=even).size(len(values), CPU)}


def normalised(layer: nn.Module, inputs: list[Tensor], upstream: list[Tensor]) -> dict[str, Any]:
    """Return what a synchronised layer makes of this process' inputs, and its gradients."""
    synced = synchronise_batchnorm(nn.Sequential(layer), CPU)
    mine = inputs[rank()].requires_grad_()
    outputs = synced(mine)
    outputs.backward(upstream[rank()])
    buffers = {name.removeprefix("0."): buffer for name, buffer in synced.named_buffers()}
    grads = {f"grad {name.removeprefix('0.')}": parameter.grad for name, parameter in synced.named_parameters()}
    return {"outputs": outputs.detach(), "inputs": mine.grad, **buffers, **grads}


def vision_transformer() -> nn.Module:
    settings = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **settings)


def resnet() -> nn.Module:
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)


class Tied(nn.Module):
    """Two of the three layers of its body have one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Sequential(*(nn.Linear(48, 48) for _ in range(3))), nn.Linear(48, 5)
        self.body[2].weight = self.body[0].weight

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.body(images.flatten(1)))


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 7), nn.Linear(7, 5))


MODELS: dict[str, tuple[Callable[[], nn.Module], int, dict[str, str]]] = {
    "vision transformer": (vision_transformer, 16, {}),
    "resnet": (resnet, 32, {}),
    "tied": (Tied, 4, {"encoder": "body", "head": "out"}),
    "plain": (plain, 4, {"encoder": "3", "head": "4"}),
}
METHODS: dict[str, Method] = {
    "multimix": mm.MultiMix(tuples=20),
    "dense": mm.DenseMultiMix(tuples=20, query="cam"),
    "manifold": mm.ManifoldMixup(),
    "stylemix": mm.StyleMix(),
    "saliencymix": mm.SaliencyMix(),
    "alignmix": mm.AlignMix(),
}


def both(model: str, method: str) -> dict[str, Any]:
    """Return loss and weights after two steps of processes with sharded weights, and of such as have all of them."""
    make, side, names = MODELS[model]
    torch.manual_seed(0)
    network = mm.adapt(make(), **names).double()
    images, labels = toy.batch(8, 3, side, side, dtype=torch.float64)
    found = {}
    for name in ("sharded", "alike"):
        step = TrainStep(copy.deepcopy(network), copy.deepcopy(METHODS[method]), [])
        if name == "sharded":
            shard_module(step, init_device_mesh("cpu", (dist.get_world_size(),)))
        found[name] = _steps(step, share(images), share(labels), averaged=name == "alike")
        found[name]["blocks"] = [path for path, part in step.named_modules() if type(part).__name__.startswith("FSDP")]
    return found


def _steps(step: nn.Module, images: Tensor, labels: Tensor, *, averaged: bool) -> dict[str, Any]:
    optimizer = torch.optim.SGD(step.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for seed in range(2):
        total, _ = step(images, labels, torch.Generator().manual_seed(seed))
        total.backward()
        for parameter in step.parameters() if averaged else ():
            if parameter.grad is not None:
                parameter.grad = _mean(parameter.grad)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item())
    return {"losses": losses, "weights": gathered_state(step.network.state_dict())}


def whole(config: TrainConfig, folder: Path) -> None:
    """Train a run without interruption."""
    train(config, folder, quiet=True)


def runs(config: TrainConfig, folder: Path) -> None:
    """Train a run whole, and another one that is stopped and resumed."""
    whole(config, folder / "whole")
    with stopped_after(5):
        train(config, folder / "stopped", quiet=True)
    resume(folder / "stopped", quiet=True)


def taken_over(config: TrainConfig, other: TrainConfig, before: int, after: int) -> list[dict[str, Any]]:
    """Return the state after some steps of an engine, and of two that went on from it: of the other kind, of its own.

    Steps of both go on from the same point, so that they see the same mini-batches.
    """
    first = Engine(config, load_data(config))
    _advance(first, before)
    random = torch.get_rng_state()
    first.whole(first.network)
    assert torch.equal(torch.get_rng_state(), random), "else dropout would go on with other numbers"
    middle = copy.deepcopy(first.state())  # which steps would change
    found = []
    for kind in (other, config):
        engine = Engine(kind, load_data(kind))
        engine.load(copy.deepcopy(middle))
        found.append(copy.deepcopy(engine.state()))
        _advance(engine, after)
        found.append(copy.deepcopy(engine.state()))
    return [middle, *found]


def _advance(engine: Engine, steps: int) -> None:
    for _, (inputs, labels) in zip(range(steps), engine.epoch(), strict=False):
        engine.step(inputs, labels)
