"""Detection runs that take a second, and the images of squares that they learn."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.trees import voc_xml
from multimix.lab.detect import DetectConfig
from multimix.lab.detect.engine import DetectEngine
from multimix.lab.train import SGD, AdamW, Cosine
from train import tiny

COLOURS = {"red": (250, 10, 10), "blue": (10, 10, 250)}


def squares(seed: int, *, images: int = 6) -> list[tuple[np.ndarray, list[tuple[str, list[int]]]]]:
    """Grey images of 48 x 64 pixels with a red or a blue square each, and where it is."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(images):
        pixels = random.integers(100, 140, (48, 64, 3), dtype=np.uint8)
        side = int(random.integers(16, 28))
        left, top = int(random.integers(0, 64 - side)), int(random.integers(0, 48 - side))
        name = ("red", "blue")[i % 2]
        pixels[top : top + side, left : left + side] = COLOURS[name]
        made.append((pixels, [(name, [left, top, side, side])]))
    return made


def coco_squares(folder: Path, split: str, seed: int, **given: int) -> None:
    """Write squares as a COCO-format split."""
    images, annotations = [], []
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    for i, (pixels, parts) in enumerate(squares(seed, **given), 1):
        Image.fromarray(pixels).save(folder / split / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 48, "width": 64})
        for name, box in parts:
            entry = {"id": len(annotations) + 1, "image_id": i, "category_id": 3 + 4 * (name == "blue"), "bbox": box}
            annotations.append(entry)
    categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def voc_squares(folder: Path, split: str, seed: int, **given: int) -> None:
    """Write squares as a VOC-format split."""
    for sub in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    names = []
    for i, (pixels, parts) in enumerate(squares(seed, **given), 1):
        names.append(f"{split}{i}")
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{names[-1]}.png")
        objects = [(name, (x + 1, y + 1, x + w, y + h), 0) for name, (x, y, w, h) in parts]
        (folder / "Annotations" / f"{names[-1]}.xml").write_text(voc_xml(objects, size=(48, 64)))
    (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names))


def small(backbone: Path, data: str, **changes: Any) -> DetectConfig:
    """Two epochs of three steps on six images."""
    settings: dict[str, Any] = {
        "backbone": str(backbone),
        "data": data,
        "train_split": "train",
        "test_split": "val",
        "trainable_stages": 4,
        "channels": 8,
        "hidden": 16,
        "proposals": 40,
        "sampled": 16,
        "min_size": (48,),
        "max_size": 64,
        "coarsest": 16,
        "optimizer": SGD(learning_rate=0.02, weight_decay=1e-4),
        "schedule": Cosine(),
        "epochs": 2,
        "batch_size": 2,
        "device": "cpu",
    }
    return DetectConfig(**{**settings, **changes})


LEARNS: dict[str, Any] = {
    "channels": 16,
    "hidden": 32,
    "optimizer": AdamW(learning_rate=3e-3),
    "evaluate_train": True,
    "epochs": 25,
    "norm": "trained",
}
"""Enough to find the squares of the training images again."""

stopped_after = partial(tiny.stopped_after, engine=DetectEngine)
