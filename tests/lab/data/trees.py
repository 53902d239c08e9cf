"""Images, trees and annotations on the disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multimix.lab.data import Images

SIZE = (30, 40)
"""Height and width of every image with boxes."""

Part = tuple[str, tuple[float, float, float, float], int]
"""Name, box as the file has it, and whether the object is difficult."""


def write_image(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """Write a random image of (height, width) and return its pixels (h, w, 3)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def nhwc(images: Images) -> np.ndarray:
    """Return the pixels of a set as files have them, (n, h, w, c)."""
    return images.images.permute(0, 2, 3, 1).numpy()


def coco_content() -> dict[str, Any]:
    """Three images, one of them empty; the categories' ids are sparse and out of order."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in (7, 3, 12)]
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 20], "area": 55.5, "iscrowd": 0},
        {"id": 2, "image_id": 12, "category_id": 5, "bbox": [0.5, 0, 39.5, 30], "iscrowd": 1, "area": 900},
        {"id": 5, "image_id": 7, "category_id": 5, "bbox": [20, 10, 8, 4]},
    ]
    categories = [{"id": 90, "name": "dog"}, {"id": 5, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_folder(folder: Path, content: Any = None) -> Path:
    """Write a COCO-format folder; text instead of a content is written as it is."""
    content = coco_content() if content is None else content
    file = folder / "annotations" / "instances_train.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    for i in (7, 3, 12):
        write_image(folder / "train" / f"{i}.png", seed=i)
    return folder


def voc_xml(parts: Sequence[Part], *, size: tuple[int, int] = SIZE) -> str:
    """Return an annotation as VOC writes it."""
    objects = "".join(
        f"<object><name>{name}</name><pose>Left</pose><difficult>{difficult}</difficult><part><name>head</name>"
        f"<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part><bndbox><xmax>{box[2]}</xmax>"
        f"<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, difficult in parts
    )
    shape = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>x.jpg</filename>{shape}{objects}</annotation>"


def voc_folder(folder: Path, images: dict[str, Sequence[Part]]) -> Path:
    """Write a VOC-format folder."""
    for sub in ("Annotations", "ImageSets/Main"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets/Main/trainval.txt").write_text("".join(f"{name}\n" for name in images))
    for seed, (name, parts) in enumerate(images.items()):
        (folder / "Annotations" / f"{name}.xml").write_text(voc_xml(parts))
        write_image(folder / "JPEGImages" / f"{name}.jpg", seed=seed)
    return folder
