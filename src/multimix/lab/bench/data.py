"""Mini-batches a second: ours against torchvision's transforms under torch's DataLoader, and against timm's loader.

All augment alike: small images in memory are padded, cropped at random, flipped and normalised; JPEG files are decoded,
a random part of each resized (of torchvision's and timm's usual sizes), flipped and normalised. A call is one pass,
with processes of its own where there are workers, so that their CPU time is known when it ends.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from multimix.lab.bench.step import random_images
from multimix.lab.bench.timing import Case, Comparison
from multimix.lab.data import Augment, Batches, Files, Images

STATISTICS: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SMALL, LARGE = (2048, 32, 128), (192, 224, 32)
"""Images, side of one in a mini-batch, images of a mini-batch; of those in memory, of those in files."""
WORKERS = min(4, os.cpu_count() or 1)
"""Processes beside none at all."""


def data_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons of data in memory and in files, without workers and with."""
    folder = Path(tempfile.mkdtemp(prefix="multimix-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return [
        partial(against_loaders, make, *sizes, workers, device)
        for make, sizes in ((in_memory, SMALL), (partial(in_files, folder), LARGE))
        for workers in (0, WORKERS)
    ]


def against_loaders(
    make: Callable[[int, int], Images | Files], count: int, side: int, b: int, workers: int, device: torch.device
) -> Comparison:
    """Compare a pass over a set with the same by torchvision and timm."""
    dataset = make(count, side)
    where = "in memory" if isinstance(dataset, Images) else "in JPEG files"
    passes = {
        "multimix": ours(dataset, b, workers, device),
        "torchvision and DataLoader": torchvisions(dataset, b, workers, device),
        "timm": timms(dataset, b, workers, device),
    }
    mine, baseline, timm = (Case(name, partial(_drain, batches)) for name, batches in passes.items())
    shape = {"images": count, "b": b, "px": side, "workers": workers}
    name = f"a mini-batch of a pass, images {where}"
    return Comparison(name, shape, baseline, (mine, timm), rounds=5, parts=-(-count // b), apart=True)


def in_memory(count: int, side: int) -> Images:
    """Return images of noise."""
    found = random_images(count, side, classes=10).train
    assert isinstance(found, Images)
    return found


def in_files(folder: Path, count: int, side: int) -> Files:
    """Return smooth pictures of ImageNet's usual size, written once; their files are about as large as photographs'."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        if not path.exists():
            coarse = Image.fromarray(generator.integers(256, size=(47, 63, 3), dtype=np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
    return Files(tuple(map(str, paths)), torch.arange(count) % 10, tuple(map(str, range(10))), side)


class Pictures(Dataset[tuple[Any, int]]):
    """The same set one image at a time, as other loaders want it: PIL images, transformed."""

    def __init__(self, dataset: Images | Files, transform: Any = None) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if isinstance(self.dataset, Images):
            image = Image.fromarray(self.dataset.images[index].permute(1, 2, 0).numpy())
        else:
            image = Image.open(self.dataset.paths[index]).convert("RGB")
        return self.transform(image), int(self.dataset.labels[index])


def ours(dataset: Images | Files, b: int, workers: int, device: torch.device) -> Iterable[Any]:
    """Return batches of the lab's."""
    return Batches(dataset, batch_size=b, augment=Augment(), workers=workers, device=device, **STATISTICS)


def torchvisions(dataset: Images | Files, b: int, workers: int, device: torch.device) -> Iterable[Any]:
    """Return batches of a DataLoader over torchvision's transforms."""
    from torchvision.transforms import v2

    last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(**STATISTICS)]
    pictures = Pictures(dataset, v2.Compose([*_augmentation(dataset), *last]))
    loader = DataLoader(pictures, b, shuffle=True, num_workers=workers)
    return loader if device.type == "cpu" else _Moved(loader, device)


def timms(dataset: Images | Files, b: int, workers: int, device: torch.device) -> Iterable[Any]:
    """Return batches of timm's loader, which normalises them as a whole."""
    from timm.data import create_loader
    from torchvision.transforms import v2

    plain: dict[str, Any] = {"color_jitter": None, "persistent_workers": False, "is_training": True}
    pictures: Any = Pictures(dataset)
    loader = create_loader(pictures, dataset.shape, b, num_workers=workers, device=device, **plain, **STATISTICS)
    if isinstance(dataset, Images):  # else its own transforms do the same as torchvision's
        loader.dataset.transform = v2.Compose([*_augmentation(dataset), *loader.dataset.transform.transforms[-1:]])
    return loader


def _augmentation(dataset: Images | Files) -> list[Any]:
    from torchvision.transforms import v2

    side = dataset.shape[1]
    crop = v2.RandomCrop(side, padding=4) if isinstance(dataset, Images) else v2.RandomResizedCrop(side)
    return [crop, v2.RandomHorizontalFlip()]


class _Moved:
    """Batches moved to a device."""

    def __init__(self, batches: Iterable[Any], device: torch.device) -> None:
        self.batches, self.device = batches, device

    def __iter__(self) -> Any:
        for images, labels in self.batches:
            yield images.to(self.device), labels.to(self.device)


def _drain(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass
