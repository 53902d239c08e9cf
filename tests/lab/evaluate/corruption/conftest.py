"""Natural images, and the random numbers that a corruption gets."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from multimix.lab.data import seed_of
from multimix.lab.evaluate.predict import per_example


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
        return partial(per_example, examples=range(count), seed=seed, device=torch.device("cpu"))(draw)

    return numbers
