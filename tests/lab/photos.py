"""Photos of three colours, in many shapes and formats, for who has a folder of images."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (30, 40, 200), "green": (20, 170, 60), "red": (210, 30, 40)}


def several_labels(folder: Path) -> dict[str, np.ndarray]:
    """Write ``set.npz`` of small noise of which an image may have any of three labels, and return its arrays."""
    rng, parts = np.random.default_rng(0), {}
    for part in ("train", "test"):
        parts[f"{part}_images"] = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
        parts[f"{part}_labels"] = rng.integers(0, 2, (40, 3))
    np.savez(folder / "set.npz", **parts)
    return parts


def photos(folder: Path, each: int = 12, side: int = 40) -> Path:
    """Write photos of every colour, noisy, of many shapes, as JPEG and PNG, one of them lying on its side."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            height, width = rng.integers(side, 2 * side, 2)
            pixels = np.clip(rng.normal(colour, 30, (height, width, 3)), 0, 255).astype(np.uint8)
            image = Image.fromarray(pixels)
            if number % 3:
                exif = Image.Exif()
                exif[274] = 6 if number == 1 else 1
                image.save(folder / name / f"{number}.jpg", exif=exif)
            else:
                image.save(folder / name / f"{number}.png")
    return folder
