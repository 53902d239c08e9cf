"""What wrong command lines find before it is damaged: a finished run of a second, records, sets of images and boxes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multimix.lab.cli.__main__ import main
from multimix.lab.detect import DetectConfig, DetectFolder
from multimix.lab.detect.folder import Origin
from multimix.lab.train.folder import RunFolder

from .wrong import TINY


class Ground:
    """Files that are whole; made once, and copied from there."""

    def __init__(self, folder: Path) -> None:
        self.finished = folder / "run"
        line = ["train", "digits", *TINY, "--method", "erm", "--out", str(folder), "--name", "run", "--quiet"]
        if main(line) != 0:
            raise RuntimeError("the run that is to be damaged could not be trained")
        self.records = folder / "records.jsonl"
        line = ["report", str(self.finished), "--records", str(self.records), "--out", str(folder / "report.html")]
        if main(line) != 0:
            raise RuntimeError("no records could be made of the run that is to be damaged")
        self.archive = folder / "set.npz"
        np.savez(self.archive, **arrays())  # type: ignore[arg-type]
        self.detection = folder / "detection"
        begin_detection(self.detection, self.finished)

    def lay_finished(self, folder: Path) -> None:
        """Copy the run into a folder."""
        shutil.copytree(self.finished, folder / "run")

    def lay_unfinished(self, folder: Path) -> None:
        """Copy the run as if it had been stopped right after its last epoch."""
        self.lay_finished(folder)
        metrics = folder / "run" / "metrics.jsonl"
        metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
        (folder / "run" / "model.safetensors").unlink()

    def lay_detection(self, folder: Path) -> None:
        """Copy a detection run that has only begun, and what it is about, into a folder."""
        shutil.copytree(self.detection, folder / "run")
        lay_boxes(folder)

    def lay_backbone(self, folder: Path) -> None:
        """Copy the run, to be a backbone, and a set of images with boxes into a folder."""
        self.lay_finished(folder)
        lay_boxes(folder)


def arrays() -> dict[str, np.ndarray]:
    """Return a small set in the form of MedMNIST."""
    rng = np.random.default_rng(0)
    found = {}
    for part, size in (("train", 20), ("test", 6)):
        found[f"{part}_images"] = rng.integers(0, 256, (size, 8, 8), dtype=np.uint8)
        found[f"{part}_labels"] = np.arange(size) % 2
    return found


def lay_pictures(folder: Path) -> None:
    """Write a tree of two classes with six images each, ``pictures``, into a folder."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{i}.png")


def boxes() -> dict[str, Any]:
    """Return annotations of three images as COCO writes them."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in (1, 2, 3)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 2, 10, 20], "area": 55.5, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 5, "bbox": [0.5, 0, 39.5, 30], "iscrowd": 0, "area": 900},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 5, "name": "cat"}],
    }


def lay_boxes(folder: Path) -> None:
    """Write a set of images with boxes, ``coco``, into a folder."""
    (folder / "coco" / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / "coco" / split).mkdir()
        (folder / "coco" / "annotations" / f"instances_{split}.json").write_text(json.dumps(boxes()))
        for i in (1, 2, 3):
            Image.new("RGB", (40, 30), (i, 2 * i, 3 * i)).save(folder / "coco" / split / f"{i}.png")


def begin_detection(folder: Path, backbone: Path) -> None:
    """Write the folder of a detection run that was stopped before its first step."""
    run = RunFolder(backbone)
    facts = run.read_facts()
    assert facts is not None
    config = DetectConfig(backbone="run", data="coco:coco", device="cpu", channels=8, hidden=8, min_size=(32,))
    origin = Origin(run.read_config(), facts, "0" * 16)
    DetectFolder(folder).create(config, classes=("cat", "dog"), backbone=origin.described())
