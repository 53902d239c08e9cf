"""Networks and methods whose weights are shared out among processes, and what a step makes of them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from multimix.protocols import Method
from parallel.jobs import share
from train.tiny import stopped_after


def vision_transformer() -> nn.Module:
    settings = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **settings)


def resnet() -> nn.Module:
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)


class Tied(nn.Module):
    """Two of its three layers have one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(48, 48) for _ in range(3)])
        self.layers[2].weight = self.layers[0].weight

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        for layer in self.layers:
            x = x + layer(x).relu()
        return x


class OfTied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = Tied(), nn.Linear(48, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.body(images))


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 7), nn.Linear(7, 5))


MODELS: dict[str, tuple[Callable[[], nn.Module], int, dict[str, str]]] = {
    "vision transformer": (vision_transformer, 16, {}),
    "resnet": (resnet, 32, {}),
    "tied": (OfTied, 4, {"encoder": "body", "head": "out"}),
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
    """Return loss and weights after two steps of processes with shared weights, and of such as have all of them."""
    make, side, names = MODELS[model]
    torch.manual_seed(0)
    network = mm.adapt(make(), **names).double()
    images, labels = toy.batch(8, 3, side, side, dtype=torch.float64)
    found = {}
    for name in ("shared", "alike"):
        step = TrainStep(copy.deepcopy(network), copy.deepcopy(METHODS[method]), [])
        if name == "shared":
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
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
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
    middle = _kept(first)
    found = []
    for kind in (other, config):
        engine = Engine(kind, load_data(kind))
        engine.load(copy.deepcopy(middle))
        found.append(_kept(engine))
        _advance(engine, after)
        found.append(_kept(engine))
    return [middle, *found]


def looked_at(config: TrainConfig) -> bool:
    """Return whether random numbers go on as before where the network was put together to be measured."""
    engine = Engine(config, load_data(config))
    before = torch.get_rng_state()
    engine.whole(engine.network)
    return torch.equal(before, torch.get_rng_state())


def _kept(engine: Engine) -> dict[str, Any]:
    return copy.deepcopy(engine.state())  # which steps would change


def _advance(engine: Engine, steps: int) -> None:
    for _, (inputs, labels) in zip(range(steps), engine.epoch(), strict=False):
        engine.step(inputs, labels)
