"""A network to attack."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import toy


class Trained(NamedTuple):
    network: nn.Module
    pixels: Tensor
    """(60, 3, 8, 8), not seen in training."""
    labels: Tensor


@pytest.fixture(scope="session")
def trained() -> Trained:
    """A small convolutional network with batch normalisation, right about nearly all of its five kinds of images."""
    generator = torch.Generator().manual_seed(0)
    kinds = (torch.rand(5, 3, 1, 1, generator=generator) + torch.rand(5, 3, 8, 8, generator=generator)) * 0.3 + 0.2
    labels = torch.arange(160) % 5
    pixels = (kinds[labels] + 0.1 * torch.randn(160, 3, 8, 8, generator=generator)).clamp(0, 1)
    network = toy.images(width=8)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        cross_entropy(network(pixels[:100]), labels[:100]).backward()
        optimiser.step()
    optimiser.zero_grad()
    network.seen.clear()
    return Trained(network.eval(), pixels[100:].clone(), labels[100:].clone())
