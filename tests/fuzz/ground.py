"""What wrong command lines find: a run, records and sets that are whole, and what may be wrong with a file of them."""

import io
import json
import operator
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from multimix.lab.cli.__main__ import main
from multimix.lab.detect import DetectConfig, DetectFolder
from multimix.lab.detect.config import Origin
from multimix.lab.train.folder import RunFolder

from .wrong import TINY

Change = Callable[[Path], object]  # changes the folder that a command line runs in

JUNK: dict[str, bytes] = {
    "empty": b"",
    "one zero": b"\0",
    "zeros": bytes(4096),
    "text": b"this is not what you think",
    "not UTF-8": b"\xff\xfe\xfa\x80 \xc3\x28",
    "deep": b"[" * 100_000,
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "the head of a zip": b"PK\x03\x04" + bytes(40),
    "the head of a png": b"\x89PNG\r\n\x1a\n" + bytes(20),
}
"""Contents that no file of ours has."""

KINDS = ("a folder", "a link to nowhere", "a link to itself", "gone")  # what may be in place of a file

EXECUTED = "executed-code-of-a-pickle"
"""The folder that code inside a file makes, should it ever run: every change to the folder is a fault."""


class Payload:
    """What runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (EXECUTED,)


def malicious() -> dict[str, bytes]:
    """Return files whose pickles run code when they are loaded without care: a bare one, and two of torch's."""
    found = {"a pickle with code": pickle.dumps(Payload())}
    for note, is_zip in (("a checkpoint with code", True), ("an old checkpoint with code", False)):
        stream = io.BytesIO()
        torch.save({"format": 1, "network": Payload()}, stream, _use_new_zipfile_serialization=is_zip)
        found[note] = stream.getvalue()
    return found


def contents(rng: Random, data: bytes, *, cuts: int = 4) -> Iterator[tuple[str, bytes]]:
    """Yield what might be found in place of a file's content: none of it, code, or a part."""
    yield from JUNK.items()
    yield from malicious().items()
    for _ in range(cuts):
        size = rng.randrange(1, len(data) * 9 // 10)
        yield f"cut at {size}", data[:size]
        yield f"less its first {size}", data[size:]


def flips(rng: Random, archive: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield zip archives with one bit of a record's data turned, which its check sum tells."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        spans = [_span(archive, info) for info in file.infolist() if info.compress_size]
    for _ in range(count):
        start, size = rng.choice(spans)
        at, bit = start + rng.randrange(size), rng.randrange(8)
        turned = bytearray(archive)
        turned[at] ^= 1 << bit
        yield f"bit {bit} of byte {at} turned", bytes(turned)


def _span(archive: bytes, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where the data of a record begin, behind its name and what else is said of it, and their size."""
    head = info.header_offset
    name, extra = (int.from_bytes(archive[head + at : head + at + 2], "little") for at in (26, 28))
    return head + 30 + name + extra, info.compress_size


def change(act: Callable[..., object]) -> Callable[..., Change]:
    """Turn a function of a folder and more into one of the rest, which returns what waits for the folder."""
    return lambda *given: lambda folder: act(folder, *given)


@change
def replaced(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


@change
def instead(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind != "gone":
        path.symlink_to("nowhere" if kind == "a link to nowhere" else path.name)


@change
def rewritten(folder: Path, name: str, path: tuple[str | int, ...], value: Any) -> None:
    """Put a value at a place inside a JSON file, or take away what is there if it is ``...``."""
    whole = json.loads((folder / name).read_text())
    *towards, last = path
    inside = reduce(operator.getitem, towards, whole)
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    (folder / name).write_text(json.dumps(whole))


@change
def all_of(folder: Path, *changes: Change) -> None:
    for each in changes:
        each(folder)


def paths(value: Any, so_far: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*so_far, key)
        yield from paths(item, (*so_far, key))


class Ground:
    """Files that are whole; made once, and copied from there."""

    def __init__(self, folder: Path) -> None:
        self.finished = folder / "run"
        self.records = folder / "records.jsonl"
        train = ("train", "digits", *TINY, "--method", "erm", "--out", str(folder), "--name", "run", "--quiet")
        report = ("report", str(self.finished), "--records", str(self.records), "--out", str(folder / "report.html"))
        if main(train) or main(report):
            raise RuntimeError("the run that is to be damaged, or records of it, could not be made")
        self.archive = folder / "set.npz"
        np.savez(self.archive, **arrays())  # type: ignore[arg-type]
        self.detection = folder / "detection"
        begin_detection(self.detection, self.finished)

    def lay(self, what: str, folder: Path) -> None:
        """Copy a run into a folder: "finished", stopped after its last "epoch", a "backbone" or a begun "detection"."""
        shutil.copytree(self.detection if what == "detection" else self.finished, folder / "run")
        if what == "epoch":
            metrics = folder / "run" / "metrics.jsonl"
            metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
            (folder / "run" / "model.safetensors").unlink()
        if what in ("detection", "backbone"):
            lay_boxes(folder)


def arrays() -> dict[str, np.ndarray]:
    """Return a small set in the form of MedMNIST."""
    rng = np.random.default_rng(0)
    found = {}
    for part, size in (("train", 20), ("test", 6)):
        found[f"{part}_images"] = rng.integers(0, 256, (size, 8, 8), dtype=np.uint8)
        found[f"{part}_labels"] = np.arange(size) % 2
    return found


def lay_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")


def boxes() -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in (1, 2, 3)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 2, 10, 20], "area": 55.5, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 5, "bbox": [0.5, 0, 39.5, 30], "iscrowd": 0, "area": 900},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 5, "name": "cat"}],
    }


def lay_boxes(folder: Path) -> None:
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
