"""What the hosts have in common: toy data, a model that knows nothing of this library, and the plain loop."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import multimix as mm
from toy import HandWritten

METHODS = {
    "multimix": lambda: mm.MultiMix(tuples=32),
    "mixup": mm.Mixup,
    "distilled": lambda: mm.SelfDistilled(mm.MultiMix(tuples=32), momentum=0.5),
    "until": lambda: mm.Until(mm.Mixup(), fraction=0.5),
    "ramp": lambda: mm.Ramp(mm.Mixup(), (0.2, 0.9), ("alpha", 0.1, 2.0)),
}


def own_loop(net, method, batches, *, lr=0.05, seed=3, accumulate=1):
    """The three lines of the README, with the hooks that a loop may call; returns every loss."""
    model = getattr(net, "model", net)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    found, steps = [], len(batches) // accumulate
    for at, (inputs, targets) in enumerate(batches):
        if isinstance(method, nn.Module):
            method.at(at // accumulate / steps)
        losses = method(net, inputs, targets, generator=generator)
        (losses.total / accumulate).backward()
        found.append(losses.total.item())
        if (at + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return found


def train(model, batches, criterion, mix=lambda *batch: batch):
    """A loop that knows of no method: cross-entropy of what is mixed, or a loss that mixes; returns every loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    found = []
    for inputs, targets in batches:
        inputs, targets = mix(inputs, targets)
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.fixture(params=METHODS.values(), ids=METHODS)
def method(request):
    """A function that makes one of a few methods."""
    return request.param


@pytest.fixture
def toy():
    """Images of four colours in batches of 9, and a small model with its own copy for the plain loop."""
    labels = torch.arange(36) % 4
    images = torch.randn(4, 3, 1, 1)[labels] + 0.1 * torch.randn(36, 3, 12, 12)
    model = HandWritten()
    return SimpleNamespace(
        images=images,
        labels=labels,
        batches=list(zip(images.split(9), labels.split(9), strict=True)),
        model=model,
        twin=copy.deepcopy(model),
        adapt=lambda model: mm.adapt(model, encoder="body", head="out"),
        methods=METHODS,
        own_loop=own_loop,
        train=train,
    )
