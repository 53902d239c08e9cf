"""What the hosts have in common: toy data, a model that knows nothing of this library, and the plain loop."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import multimix as mm


class HandWritten(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU()
        )
        self.out = nn.Linear(12, classes)

    def forward(self, images):
        return self.out(self.body(images).mean((2, 3)))


def own_loop(net, method, batches, optimizer, *, seed, accumulate=1, steps=None):
    """The three lines of the README, with the hooks that a loop may call; returns every loss."""
    generator = torch.Generator().manual_seed(seed)
    found, step = [], 0
    for at, (inputs, targets) in enumerate(batches, 1):
        if isinstance(method, nn.Module) and steps:
            method.at(step / steps)
        losses = method(net, inputs, targets, generator=generator)
        (losses.total / accumulate).backward()
        found.append(losses.total.item())
        if at % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    return found


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
        own_loop=own_loop,
    )
