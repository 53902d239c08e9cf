"""Runs that are made up for the suites to measure: random images in batches; and natural images."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimix.lab.data import Images, Splits
from multimix.lab.evaluate import Source
from multimix.methods import ERM

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def batches(inputs: Tensor, labels: Tensor, size: int = 7) -> list[tuple[Tensor, Tensor]]:
    """Inputs and labels in batches."""
    return list(zip(inputs.split(size), labels.split(size), strict=True))


def images(count: int, *, side: int = 8, seed: int = 0, classes: int = 5) -> Images:
    """Random bytes (count, 3, side, side), the classes one after the other."""
    pixels = torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed))
    return Images(pixels.to(torch.uint8), torch.arange(count) % classes, tuple("abcde"[:classes]))


def source(test: Images | int = 40, *, method: Any = None, batch_size: int = 7, **options: Any) -> Source:
    """A run on random images; ``train``, ``validation`` and ``name`` of its splits, and its root, may be given."""
    test = images(test, seed=1) if isinstance(test, int) else test
    train, name = options.pop("train", images(60)), options.pop("name", "made")
    test = replace(test, classes=train.classes)
    splits = Splits(name, train, options.pop("validation", None), test, MEAN, STD)
    return Source(splits, method or ERM(), torch.device("cpu"), batch_size=batch_size, **options)


def normalised(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] as the networks of these runs take them."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def accuracy(network: Any, pixels: Tensor, labels: Tensor) -> float:
    """The share of pixels in [0, 1] that a network of such a run is right about."""
    with torch.no_grad():
        return float((network.eval()(normalised(pixels)).argmax(1) == labels).double().mean())


@cache
def _crops(size: int, count: int) -> Tensor:
    from sklearn.datasets import load_sample_images

    pictures, random, crops = load_sample_images().images, np.random.default_rng(size), []
    for i in range(count):
        # Small images show a whole scene, as those of CIFAR do, and not a few leaves.
        step = max(1, 128 // size)
        y, x = (random.integers(0, n - size * step) for n in pictures[0].shape[:2])
        crops.append(pictures[i % 2][y : y + size * step : step, x : x + size * step : step])
    return torch.from_numpy(np.stack(crops)).movedim(-1, 1).float() / 255


def photos(size: int, count: int) -> Tensor:
    """Crops (count, 3, size, size) of scikit-learn's two photographs, in [0, 1]."""
    return _crops(size, count).clone()
