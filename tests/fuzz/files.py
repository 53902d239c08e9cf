"""Wrong command lines about files that are damaged: runs, checkpoints, records, archives, images and boxes."""

import io
import json
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save

from .ground import (
    JUNK,
    KINDS,
    Change,
    Ground,
    all_of,
    arrays,
    boxes,
    contents,
    flips,
    instead,
    lay_images,
    paths,
    replaced,
    rewritten,
)
from .wrong import TINY, Wrong, family

DETECT = (
    *("detect", "coco-mini", "--backbone", "run", "--data", "coco:coco", "--name", "d", "--quiet"),
    *("--device", "cpu", "--min-size", "32", "--max-size", "64", "--channels", "8", "--hidden", "8", "--epochs", "1"),
)
WORDS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "run", "--suites", "calibration", "--quiet", "--examples", "50"),
    "resume": ("train", "--resume", "run", "--quiet"),
    "report": ("report", "run"),
    "detect": DETECT,
    "resume detect": ("detect", "--resume", "run", "--quiet"),
}
READS: dict[str, tuple[str, ...]] = {
    "config.json": tuple(WORDS),
    "model.safetensors": ("evaluate", "detect"),
    "last.ckpt": ("resume", "resume detect"),
}
"""Which commands read a file of a run."""
ARCHIVE = ("train", "digits", "--data", "npz:set.npz", "--train-size", "10", *TINY[2:], "--name", "run", "--quiet")
TREE = ("train", "digits", "--data", "folder:images", *TINY[2:], "--name", "run", "--quiet")

VALUES: tuple[Any, ...] = ({}, [[]], "\ud800", {"type": "os.system"}, {"type": "TrainConfig"}, -1, 1e999, float("nan"))
"""JSON values that suit hardly any place; Python's JSON knows infinity and NaN."""
CHECKED = (
    *("type", "train_size", "split_seed", "image_size", "crop_padding", "workers", "width", "method", "optimizer"),
    *("learning_rate", "weight_decay", "schedule", "final", "epochs", "batch_size", "accumulate", "precision", "seed"),
    *("validate_every", "checkpoint_steps", "data", "model", "strides", "root"),
)
"""Fields of a training configuration of which no such value may pass, whoever reads it."""
REPORTED = ("config", "label", "data", "model", "seed", "epochs", "method")  # fields of which a report tells
DETECTED: tuple[tuple[str, ...], ...] = (
    *(("config",), ("backbone",), ("classes",), ("backbone", "config"), ("backbone", "trained_on")),
    *(("config", name) for name in ("type", "optimizer", "epochs", "batch_size", "proposals", "min_size", "norm")),
    ("config", "init"),
)
"""Places of a detection run's configuration."""


def about_run(ground: Ground, command: str, name: str, content: bytes, note: str, *about: str) -> Wrong:
    """Return a command about a run of which a file is replaced."""
    change = all_of(_laid(ground, command), replaced(f"run/{name}", content))
    return Wrong(WORDS[command], about or (name,), change, f"{name}: {note}")


def _laid(ground: Ground, command: str) -> Change:
    what = {"resume": "epoch", "detect": "backbone", "resume detect": "detection"}.get(command, "finished")
    return partial(ground.lay, what)


@family
def run_files(rng: Random, ground: Ground) -> Iterator[Wrong]:
    for name, commands in READS.items():
        data = (ground.finished / name).read_bytes()
        for command in commands:
            for note, content in [*contents(rng, data), *(flips(rng, data, 6) if name == "last.ckpt" else ())]:
                yield about_run(ground, command, name, content, note, f"run/{name}", "'run'", "recursion")
            for kind in KINDS if name != "last.ckpt" else ():  # without which a run begins anew
                change = all_of(_laid(ground, command), instead(f"run/{name}", kind))
                yield Wrong(WORDS[command], ("run",), change, f"{name}: {kind}")


@family
def run_values(rng: Random, ground: Ground) -> Iterator[Wrong]:
    whole = json.loads((ground.finished / "config.json").read_text())
    for command, words in WORDS.items():
        for path in DETECTED if command == "resume detect" else paths(whole):
            for value in (*VALUES, ...):
                if (command != "resume detect" and not _is_read(command, path)) or _passes(command, path, value):
                    continue
                change = all_of(_laid(ground, command), rewritten("run/config.json", path, value))
                note = f"{'.'.join(map(str, path))} = {'nothing' if value is ... else repr(value)[:30]}"
                field = next(str(name) for name in reversed(path) if isinstance(name, str))
                yield Wrong(words, ("config.json", field), change, note)


def _is_read(command: str, path: tuple[str | int, ...]) -> bool:
    """Whether a command looks at a place of a training run's configuration."""
    if path[0] != "config":
        return False
    return path[-1] in REPORTED if command == "report" else path[1:] == () or path[1] in CHECKED


def _passes(command: str, path: tuple[str | int, ...], value: Any) -> bool:
    """Whether a value at a place is nothing wrong: a default stands in, or the command does not look there."""
    last, report = path[-1], command == "report"
    missing = value is ... and (report or not (path == ("config",) or last == "type"))
    text = isinstance(value, str) and last in ("label", "data", "model", "root")
    number = value == -1 and report
    types = isinstance(value, dict) and last in ("method", "config")
    endless = value == float("inf") and last in ("weight_decay", "warmup_epochs")
    unread = command == "detect" and last in ("data", "root")  # which only the run's own data set is looked up by
    return missing or text or number or types or endless or unread or last == "nesterov"


@family
def events(rng: Random, ground: Ground) -> Iterator[Wrong]:
    rest = (ground.finished / "metrics.jsonl").read_bytes()
    bad = {
        "text": b"epoch 1",
        "a list": b"[1, 2]",
        "null": b"null",
        "cut": b'{"event": "epo',
        "no event": b'{"epoch": 1}',
        "an event of no text": b'{"event": 5}',
        "not UTF-8": b'{"event": "\xff"}',
        "deep": b"[" * 100_000,
        "zeros": bytes(30),
        "an epoch of no number": b'{"event": "epoch", "epoch": "one"}',
    }
    for note, line in bad.items():
        yield about_run(ground, "report", "metrics.jsonl", line + b"\n" + rest, note)


@family
def weights(rng: Random, ground: Ground) -> Iterator[Wrong]:
    data = (ground.finished / "model.safetensors").read_bytes()
    own = load(data)
    name, *_, last = sorted(own)  # a file lists them in an order that differs from reading to reading
    some = [min(key for key in own if key.endswith(end)) for end in ("num_batches_tracked", "running_var")]
    huge = json.dumps({name: {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}).encode()
    other = {
        **{f"{gone} missing": save({k: v for k, v in own.items() if k != gone}) for gone in (name, last, *some)},
        "none": save({}),
        "one more": save({**own, "more": torch.zeros(2)}),
        "other names": save({f"x.{key}": value for key, value in own.items()}),
        "other shapes": save({key: torch.zeros(3, 3) for key in own}),
        "a head without end": struct.pack("<Q", 2**62) + data[8:],
        "a head of nothing": struct.pack("<Q", 0) + data[8:],
        "a tensor without end": struct.pack("<Q", len(huge)) + huge,
    }
    for note, content in other.items():
        for command in READS["model.safetensors"]:
            yield about_run(ground, command, "model.safetensors", content, note)


@family
def checkpoints(rng: Random, ground: Ground) -> Iterator[Wrong]:
    own = torch.load(ground.finished / "last.ckpt", weights_only=True)
    states: dict[str, Any] = {
        "a number": 5,
        "a list": [1, 2],
        "a tensor": torch.zeros(3),
        "nothing": {},
        "another format": {**own, "format": 99},
        "a format of text": {**own, "format": "1"},
    }
    for note, state in states.items():
        stream = io.BytesIO()
        torch.save(state, stream)
        for command in READS["last.ckpt"]:
            yield about_run(ground, command, "last.ckpt", stream.getvalue(), note)


@family
def records(rng: Random, ground: Ground) -> Iterator[Wrong]:
    data = ground.records.read_bytes()
    first = json.loads(data.splitlines()[0])
    for note, content in contents(rng, data):
        if note not in ("empty", "zeros", "one zero") and not note.startswith("cut at"):
            yield Wrong(("report", "r.jsonl"), ("r.jsonl",), replaced("r.jsonl", content), f"records: {note}")
    for name in ("metric", "value", "seed", "label", "data", "model", "epochs", "config"):
        for value in ({}, [], None, True):
            content = json.dumps({**first, name: value}).encode() + b"\n" + data
            yield Wrong(("report", "r.jsonl"), (name,), replaced("r.jsonl", content), f"records: {name} = {value}")
    for words, about in (
        (("--suite", "odo"), "suite"),
        (("--paired", "nobody"), "nobody"),
        (("--paired", "erm", "--metrics", "nlll"), "nlll"),
        (("--metrics", "nll"), "--metrics"),
        (("--suite", ""), "suite"),
    ):
        yield Wrong(("report", "r.jsonl", *words), (about,), replaced("r.jsonl", data), "records")


@family
def places(rng: Random, ground: Ground) -> Iterator[Wrong]:
    file, folder = replaced("thing", b"a file"), (lambda base: (base / "thing").mkdir())
    run, detection = partial(ground.lay, "finished"), partial(ground.lay, "detection")
    tiny = ("train", "digits", *TINY, "--quiet")
    for words, about, laid in (
        ((*tiny, "--out", "thing/more", "--name", "x"), "thing", file),
        ((*tiny, "--out", ".", "--name", "thing"), "thing", file),
        ((*tiny, "--out", ".", "--name", "run"), "run", run),
        (("report", "thing"), "thing", file),
        (("report", "run", "thing"), "thing", all_of(run, file)),
        (("report", "run", "--out", "thing"), "thing", all_of(run, folder)),
        (("report", "run", "--out", "thing/x.html"), "thing", all_of(run, file)),
        (("report", "run", "--records", "thing/r.jsonl"), "thing", all_of(run, file)),
        (("bench", "ops", "--out", "thing"), "thing", folder),
        (("bench", "pairs", "--out", "thing/r.jsonl"), "thing", file),
        (("detect", "--resume", "run"), "run", run),
        (("train", "--resume", "run"), "run", detection),
        (("evaluate", "run"), "run", detection),
        (("report", "run"), "run", detection),
        ((*DETECT, "--records", "thing"), "thing", all_of(run, folder)),
    ):
        yield Wrong(words, (about,), laid, "something else in its place")
    readers = (("evaluate",), ("report",), ("train", "--resume"), ("detect", "--resume"), (*DETECT, "--backbone"))
    for words in readers:
        for name in ("nowhere", "\udcff", "né/数字", "x" * 300, "/nowhere/else", "~nobody/x", "%s", "-"):
            yield Wrong((*words, name), (name[:20], "argument", "RUN", "required", "\\udcff", "backbone"))


@family
def archives(rng: Random, ground: Ground) -> Iterator[Wrong]:
    data = ground.archive.read_bytes()
    for note, content in [*contents(rng, data), *flips(rng, data, 12), *_other_archives()]:
        yield Wrong(ARCHIVE, ("set.npz",), replaced("set.npz", content), f"set.npz: {note}")
    for kind in KINDS:
        change = all_of(replaced("set.npz", data), instead("set.npz", kind))
        yield Wrong(ARCHIVE, ("set.npz",), change, f"set.npz: {kind}")


def _other_archives() -> Iterator[tuple[str, bytes]]:
    count = np.arange(20)
    train_labels = {
        "negative": count % 2 - 1,
        "huge": count % 2 * 2**62,
        "dates": np.array(["2020-01-01"] * 20, dtype="datetime64[D]"),
    }
    train_images = {
        "complex": np.zeros((20, 8, 8), dtype=complex),
        "five channels": np.zeros((20, 8, 8, 5), dtype=np.uint8),
        "no width": np.zeros((20, 8, 0), dtype=np.uint8),
    }
    anywhere = {
        "gone": None,
        "objects": np.array([{}] * 20),
        "text": np.array(["a"] * 20),
        "empty": np.zeros((0, 8, 8), dtype=np.uint8),
        "a number": np.array(5),
    }
    changes: dict[str, dict[str, np.ndarray | None]] = {key: dict(anywhere) for key in arrays()}
    changes["train_labels"].update(train_labels)
    changes["train_images"].update(train_images)
    for key, note, value in ((key, note, value) for key, kinds in changes.items() for note, value in kinds.items()):
        stream = io.BytesIO()
        whole = {name: array for name, array in {**arrays(), key: value}.items() if array is not None}
        np.savez(stream, **whole)  # type: ignore[arg-type]
        yield f"{key}: {note}", stream.getvalue()


@family
def images(rng: Random, ground: Ground) -> Iterator[Wrong]:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "png")
    for note, content in [*contents(rng, stream.getvalue()), ("a bomb", BOMB), ("without width", _png(0, 8))]:
        name = f"images/{rng.choice(['cat', 'dog'])}/{rng.randrange(6)}.png"
        yield Wrong(TREE, (name,), all_of(lay_images, replaced(name, content)), f"{name}: {note}")
    for kind in KINDS:
        for name in ("cat", "dog"):
            yield Wrong(TREE, ("images",), all_of(lay_images, instead(f"images/{name}", kind)), f"{name}: {kind}")
    trees: dict[str, tuple[str, ...]] = {
        "nothing": (),
        "a file": ("a.png",),
        "classes of text": ("cat/a.txt", "dog/b.txt"),
        "hidden classes": (".cat/a.png", ".dog/b.png"),
        "one image a class": ("cat/a.png", "dog/b.png"),
    }
    for note, names in trees.items():
        laid = [replaced(f"images/{name}", stream.getvalue()) for name in names]
        yield Wrong(TREE, ("images",), all_of(_empty, *laid), f"images: {note}")


def _empty(folder: Path) -> None:
    (folder / "images").mkdir()


def _png(width: int, height: int) -> bytes:
    """Return a PNG image of a size, of which there is no more than the beginning."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BOMB = _png(60_000, 60_000)  # a small file that would take gigabytes of memory as an image


@family
def annotations(rng: Random, ground: Ground) -> Iterator[Wrong]:
    at, lay = "coco/annotations/instances_train2017.json", partial(ground.lay, "backbone")
    for note, content in contents(rng, json.dumps(boxes()).encode()):
        yield Wrong(DETECT, (at,), all_of(lay, replaced(at, content)), f"boxes: {note}")
    for kind in KINDS:
        for name in (at, "coco/train2017"):
            yield Wrong(DETECT, ("coco",), all_of(lay, instead(name, kind)), f"{name}: {kind}")
    for path in paths(boxes()):
        for value in (..., [], {}, None, "x", -1, 1e999, float("nan")):
            if not _is_harmless(path, value):
                note = f"boxes: {'.'.join(map(str, path))} = {'nothing' if value is ... else value}"
                yield Wrong(DETECT, ("instances_train2017", "coco"), all_of(lay, rewritten(at, path, value)), note)
    for note, content in [*list(JUNK.items())[:6], ("a bomb", BOMB)]:
        name = "coco/train2017/1.png"
        yield Wrong(DETECT, (name,), all_of(lay, replaced(name, content)), f"image: {note}", late=True)


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
