"""Pictures on the disk, and the types of the factories in conftest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Tree = Callable[..., Path]
Arrays = dict[str, np.ndarray]
Archive = Callable[[Arrays], str]


def write_picture(path: Path, size: tuple[int, int], seed: int) -> np.ndarray:
    """Write a random image of (height, width) and return its pixels (h, w, 3)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels
