"""Wrong command lines about data that are damaged: archives, trees of pictures, and images with boxes."""

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from .damage import JUNK, KINDS, all_of, contents, flips, instead, paths, replaced, rewritten
from .ground import Ground, arrays, boxes, lay_pictures
from .runs import DETECT
from .wrong import TINY, Wrong

_AT_MOST = ("--train-size", "10", *TINY[2:])
ARCHIVE = ("train", "digits", "--data", "npz:set.npz", *_AT_MOST, "--name", "run", "--quiet")
TREE = ("train", "digits", "--data", "folder:pictures", *_AT_MOST[2:], "--name", "run", "--quiet")


def archives(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Archives that are damaged, or whose arrays are not those of a set."""
    data = ground.archive.read_bytes()
    lines = [
        Wrong(ARCHIVE, ("set.npz",), replaced("set.npz", content), f"set.npz: {note}")
        for note, content in [*contents(rng, data), *flips(rng, data, 12)]
    ]
    lines += [
        Wrong(ARCHIVE, ("set.npz",), all_of(replaced("set.npz", data), instead("set.npz", kind)), f"set.npz: {kind}")
        for kind in KINDS
    ]
    for note, changes in _other_arrays().items():
        stream = io.BytesIO()
        whole = {key: value for key, value in {**arrays(), **changes}.items() if value is not None}
        np.savez(stream, **whole)  # type: ignore[arg-type]
        lines.append(Wrong(ARCHIVE, ("set.npz",), replaced("set.npz", stream.getvalue()), f"set.npz: {note}"))
    rng.shuffle(lines)
    return iter(lines)


def _other_arrays() -> dict[str, dict[str, Any]]:
    count = np.arange(20)
    return {
        **{f"no {key}": {key: None} for key in arrays()},
        **{f"{key} of objects": {key: np.array([{}] * 20)} for key in arrays()},
        **{f"{key} of text": {key: np.array(["a"] * 20)} for key in arrays()},
        **{f"{key} empty": {key: np.zeros((0, 8, 8), dtype=np.uint8)} for key in arrays()},
        **{f"{key} a number": {key: np.array(5)} for key in arrays()},
        "labels of floats": {"train_labels": count % 2 / 2},
        "labels without a gap": {"train_labels": count % 2 * 2},
        "negative labels": {"train_labels": count % 2 - 1},
        "one label": {"train_labels": count * 0},
        "huge labels": {"train_labels": count % 2 * 2**62},
        "labels of dates": {"train_labels": np.array(["2020-01-01"] * 20, dtype="datetime64[D]")},
        "an image for each label but one": {"train_labels": np.arange(19) % 2},
        "images of complex numbers": {"train_images": np.zeros((20, 8, 8), dtype=complex)},
        "images of large floats": {"train_images": np.full((20, 8, 8), 255.0)},
        "images of NaN": {"train_images": np.full((20, 8, 8), np.nan)},
        "images of five channels": {"train_images": np.zeros((20, 8, 8, 5), dtype=np.uint8)},
        "images without width": {"train_images": np.zeros((20, 8, 0), dtype=np.uint8)},
        "flat images": {"train_images": np.zeros((20, 64), dtype=np.uint8)},
        "test images of another size": {"test_images": np.zeros((6, 9, 8), dtype=np.uint8)},
        "test labels of other classes": {"test_labels": np.arange(6)},
    }


def pictures(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Trees of pictures in which one cannot be read, or classes are missing."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "png")
    found = [*contents(rng, stream.getvalue()), ("a bomb", _bomb()), ("a picture without width", _png(0, 8))]
    lines = []
    for note, content in found:
        name = f"pictures/{rng.choice(['cat', 'dog'])}/{rng.randrange(6)}.png"
        lines.append(Wrong(TREE, (name,), all_of(lay_pictures, replaced(name, content)), f"{name}: {note}"))
    lines += [
        Wrong(TREE, ("pictures",), all_of(lay_pictures, instead(f"pictures/{name}", kind)), f"{name}: {kind}")
        for kind in KINDS
        for name in ("cat", "dog")
    ]
    trees: dict[str, tuple[str, ...]] = {
        "nothing": (),
        "a file": ("a.png",),
        "one class": ("cat/a.png",),
        "classes of text": ("cat/a.txt", "dog/b.txt"),
        "train alone": ("train/cat/a.png", "train/dog/b.png"),
        "other classes in val": ("train/cat/a.png", "train/dog/b.png", "val/cat/a.png", "val/cow/b.png"),
        "hidden classes": (".cat/a.png", ".dog/b.png"),
        "one picture a class": ("cat/a.png", "dog/b.png"),
    }
    for note, names in trees.items():
        laid = [replaced(f"pictures/{name}", stream.getvalue()) for name in names]
        lines.append(Wrong(TREE, ("pictures",), all_of(_empty, *laid), f"pictures: {note}"))
    rng.shuffle(lines)
    return iter(lines)


def _empty(folder: Path) -> None:
    (folder / "pictures").mkdir()


def _png(width: int, height: int) -> bytes:
    """Return a PNG picture of a size, of which there is no more than the beginning."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def _bomb() -> bytes:
    """Return a small file that would take gigabytes of memory as a picture."""
    return _png(60_000, 60_000)


def annotations(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Annotations of boxes that are damaged, or say what cannot be."""
    at = "coco/annotations/instances_train2017.json"
    lines = []
    for note, content in contents(rng, json.dumps(boxes()).encode()):
        lines.append(Wrong(DETECT, (at,), all_of(ground.lay_backbone, replaced(at, content)), f"boxes: {note}"))
    for kind in KINDS:
        lines.append(Wrong(DETECT, ("coco",), all_of(ground.lay_backbone, instead(at, kind)), f"boxes: {kind}"))
        lines.append(
            Wrong(DETECT, ("coco",), all_of(ground.lay_backbone, instead("coco/train2017", kind)), f"images: {kind}")
        )
    for path in paths(boxes()):
        for value in (..., [], {}, None, "x", -1, 1e999, float("nan")):
            if not _is_harmless(path, value):
                note = f"boxes: {'.'.join(map(str, path))} = {'nothing' if value is ... else value}"
                change = all_of(ground.lay_backbone, rewritten(at, path, value))
                lines.append(Wrong(DETECT, ("instances_train2017", "coco"), change, note))
    for note, content in [*list(JUNK.items())[:6], ("a bomb", _bomb())]:
        name = "coco/train2017/1.png"
        change = all_of(ground.lay_backbone, replaced(name, content))
        lines.append(Wrong(DETECT, (name,), change, f"image: {note}", late=True))
    rng.shuffle(lines)
    return iter(lines)


def _is_harmless(path: tuple[str | int, ...], value: Any) -> bool:
    """Whether a value is allowed at its place, or nobody looks there."""
    last = path[-1]
    return (
        (last in ("area", "iscrowd"))
        or (last == "id" and path[:2] == ("images", 2) and isinstance(value, int))
        or (isinstance(last, int) and (value is ... or path[0] == "annotations"))
        or (path == ("annotations",) and value == [])
        or (last == "name" and value == "x")
        or (last == "id" and path[0] == "annotations")
    )


SETS = (archives, pictures, annotations)
"""Every family of wrong data."""
