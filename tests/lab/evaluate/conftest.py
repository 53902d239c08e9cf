"""Networks to attack, natural images, and the random numbers that a corruption gets."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

import toy
from multimix.lab.data import seed_of
from multimix.lab.evaluate.passes import per_example


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


@cache
def _crops(size: int, count: int) -> Tensor:
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images
    random = np.random.default_rng(size)
    crops = []
    for i in range(count):
        # Small images show a whole scene, as those of CIFAR do, and not a few leaves.
        step = max(1, 128 // size)
        y, x = (random.integers(0, n - size * step) for n in pictures[0].shape[:2])
        crops.append(pictures[i % 2][y : y + size * step : step, x : x + size * step : step])
    return torch.from_numpy(np.stack(crops)).movedim(-1, 1).float() / 255


@pytest.fixture
def photos() -> Callable[..., Tensor]:
    """Crops (count, 3, size, size) of scikit-learn's two photographs, in [0, 1]."""
    return lambda size, count=4: _crops(size, count).clone()


@pytest.fixture
def drawn() -> Callable[[str, int, Callable[[Generator], Tensor]], Tensor]:
    """The numbers that ``corrupt`` draws for the first examples, from the same seeds, for a plain loop to use."""

    def numbers(name: str, count: int, draw: Callable[[Generator], Tensor]) -> Tensor:
        seed = seed_of("corruption", name, 0)
        return partial(per_example, examples=range(count), seed=seed)(draw)

    return numbers
