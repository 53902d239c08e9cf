"""Wrong command lines about runs that are damaged: unreadable files, values of a wrong type, other checkpoints."""

import io
import json
import struct
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import torch
from safetensors.torch import load, save

from .damage import KINDS, Change, all_of, contents, flips, instead, paths, replaced, rewritten
from .ground import Ground
from .wrong import TINY, Wrong

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
    "config.json": ("evaluate", "resume", "report", "detect", "resume detect"),
    "model.safetensors": ("evaluate", "detect"),
    "last.ckpt": ("resume", "resume detect"),
}
"""Which commands read a file of a run."""
_OPTIONAL = {("last.ckpt", kind) for kind in ("gone", "a link to nowhere", "a link to itself", "a folder")}
"""What a run may lack: it then begins anew."""
VALUES: tuple[Any, ...] = ({}, [[]], "\ud800", {"type": "os.system"}, {"type": "TrainConfig"}, -1, 1e999, float("nan"))
"""JSON values that suit hardly any place; Python's JSON knows infinity and NaN."""
CHECKED = (
    *("type", "train_size", "split_seed", "image_size", "crop_padding", "workers", "width", "method", "optimizer"),
    *("learning_rate", "weight_decay", "schedule", "final", "epochs", "batch_size", "accumulate", "precision", "seed"),
    *("validate_every", "checkpoint_steps", "data", "model", "strides", "root"),
)
"""Fields of a training configuration of which no such value may pass, whoever reads it."""


def _laid(ground: Ground, command: str) -> Change:
    """Return what lays what a command reads."""
    return {
        "resume": ground.lay_unfinished,
        "detect": ground.lay_backbone,
        "resume detect": ground.lay_detection,
    }.get(command, ground.lay_finished)


def run_files(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Files of a run that no command can read."""
    lines = []
    for name, commands in READS.items():
        data = (ground.finished / name).read_bytes()
        for command in commands:
            lay, words, at = _laid(ground, command), WORDS[command], f"run/{name}"
            found = [*contents(rng, data), *(flips(rng, data, 6) if name == "last.ckpt" else ())]
            for note, content in found:
                lines.append(
                    Wrong(words, (at, "'run'", "recursion"), all_of(lay, replaced(at, content)), f"{name}: {note}")
                )
            if name == "last.ckpt":
                continue
            lines += [Wrong(words, ("run",), all_of(lay, instead(at, kind)), f"{name}: {kind}") for kind in KINDS]
    rng.shuffle(lines)
    return iter(lines)


def run_values(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Values of a run's configuration that are of a wrong type, missing or unknown."""
    whole = json.loads((ground.finished / "config.json").read_text())
    lines = []
    for command in ("evaluate", "resume", "report", "detect", "resume detect"):
        lay, words = _laid(ground, command), WORDS[command]
        for path in _places(whole, command):
            for value in (*VALUES, ...):
                if _passes(command, path, value):
                    continue
                change = all_of(lay, rewritten("run/config.json", path, value))
                note = f"{'.'.join(map(str, path))} = {'nothing' if value is ... else repr(value)[:30]}"
                field = next(str(name) for name in reversed(path) if isinstance(name, str))
                lines.append(Wrong(words, ("config.json", field), change, note))
    rng.shuffle(lines)
    return iter(lines)


def _places(whole: Any, command: str) -> Iterator[tuple[str | int, ...]]:
    if command == "resume detect":
        yield from (("config",), ("backbone",), ("classes",), ("config", "type"), ("config", "optimizer"))
        yield from (("config", name) for name in ("epochs", "batch_size", "proposals", "min_size", "norm", "init"))
        yield from (("backbone", "config"), ("backbone", "trained_on"))
        return
    reported = ("config", "label", "data", "model", "seed", "epochs", "method")
    for path in paths(whole):
        if path[0] == "config" and (
            path[-1] in reported if command == "report" else path[1:] == () or path[1] in CHECKED
        ):
            yield path


def _passes(command: str, path: tuple[str | int, ...], value: Any) -> bool:
    """Whether a value at a place is nothing wrong: a default stands in, or the command does not look there."""
    last = path[-1]
    missing = value is ... and not (
        path == ("config",) or (last == "type" and command != "report") or command == "report"
    )
    text = isinstance(value, str) and last in ("label", "data", "model", "root")
    number = value == -1 and command == "report"
    types = isinstance(value, dict) and last in ("method", "config")
    endless = value == float("inf") and last in ("weight_decay", "warmup_epochs")
    unread = command == "detect" and last in ("data", "root")  # which only the run's own data set is looked up by
    return missing or text or number or types or endless or unread or last == "nesterov"


def events(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Lines of a run's events that are none, before others that are."""
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
    lines = []
    for note, line in bad.items():
        change = all_of(ground.lay_finished, replaced("run/metrics.jsonl", line + b"\n" + rest))
        lines.append(Wrong(("report", "run"), ("metrics.jsonl",), change, f"events: {note}"))
    rng.shuffle(lines)
    return iter(lines)


def weights(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Weights that are well written and not the run's own."""
    data = (ground.finished / "model.safetensors").read_bytes()
    own = load(data)
    name, *others = sorted(own)  # a file lists them in an order that differs from reading to reading
    huge = json.dumps({name: {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}).encode()
    other = {
        "none": save({}),
        **{
            f"{gone} missing": save({key: value for key, value in own.items() if key != gone})
            for gone in (name, others[-1], _first(own, "num_batches_tracked"), _first(own, "running_var"))
        },
        "one more": save({**own, "more": torch.zeros(2)}),
        "other names": save({f"x.{key}": value for key, value in own.items()}),
        "other shapes": save({key: torch.zeros(3, 3) for key in own}),
        "a head without end": struct.pack("<Q", 2**62) + data[8:],
        "a head of nothing": struct.pack("<Q", 0) + data[8:],
        "a tensor without end": struct.pack("<Q", len(huge)) + huge,
    }
    lines = []
    for note, content in other.items():
        for command in ("evaluate", "detect"):
            change = all_of(_laid(ground, command), replaced("run/model.safetensors", content))
            lines.append(Wrong(WORDS[command], ("model.safetensors",), change, f"weights: {note}"))
    rng.shuffle(lines)
    return iter(lines)


def _first(names: Iterable[str], end: str) -> str:
    return min(name for name in names if name.endswith(end))


def checkpoints(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Checkpoints that are well written and not the run's own."""
    own = torch.load(ground.finished / "last.ckpt", weights_only=True)
    states: dict[str, Any] = {
        "a number": 5,
        "a list": [1, 2],
        "a tensor": torch.zeros(3),
        "nothing": {},
        "another format": {**own, "format": 99},
        "a format of text": {**own, "format": "1"},
    }
    lines = []
    for note, state in states.items():
        stream = io.BytesIO()
        torch.save(state, stream)
        for command in ("resume", "resume detect"):
            change = all_of(_laid(ground, command), replaced("run/last.ckpt", stream.getvalue()))
            lines.append(Wrong(WORDS[command], ("last.ckpt",), change, f"checkpoint: {note}"))
    rng.shuffle(lines)
    return iter(lines)


def records(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Records that are none, and what is asked of records that they do not say."""
    data = ground.records.read_bytes()
    first = json.loads(data.splitlines()[0])
    lines = []
    for note, content in contents(rng, data):
        if note in ("empty", "zeros", "one zero") or note.startswith("cut at"):
            continue
        lines.append(Wrong(("report", "r.jsonl"), ("r.jsonl",), replaced("r.jsonl", content), f"records: {note}"))
    for name in ("metric", "value", "seed", "label", "data", "model", "epochs", "config"):
        for value in ({}, [], None, True):
            line = json.dumps({**first, name: value}).encode() + b"\n"
            note = f"records: {name} = {value}"
            lines.append(Wrong(("report", "r.jsonl"), (name,), replaced("r.jsonl", line + data), note))
    whole = replaced("r.jsonl", data)
    for words, about in (
        (("--suite", "odo"), "suite"),
        (("--paired", "nobody"), "nobody"),
        (("--paired", "erm", "--metrics", "nlll"), "nlll"),
        (("--metrics", "nll"), "--metrics"),
        (("--suite", ""), "suite"),
    ):
        lines.append(Wrong(("report", "r.jsonl", *words), (about,), whole, "records"))
    rng.shuffle(lines)
    return iter(lines)


def places(rng: Random, ground: Ground) -> Iterator[Wrong]:
    """Folders where files should be, files where folders should be, and places where nothing is."""
    file, folder = replaced("thing", b"a file"), (lambda base: (base / "thing").mkdir())
    run = ground.lay_finished
    tiny = ("train", "digits", *TINY, "--quiet")
    lines = [
        Wrong((*tiny, "--out", "thing", "--name", "x"), ("thing",), file, "a file"),
        Wrong((*tiny, "--out", "thing/more", "--name", "x"), ("thing",), file, "a file"),
        Wrong((*tiny, "--out", ".", "--name", "thing"), ("thing",), file, "a file"),
        Wrong((*tiny, "--out", ".", "--name", "run"), ("run",), run, "a run"),
        Wrong(("report", "thing", "--out", "x.html"), ("thing",), folder, "a folder"),
        Wrong(("report", "thing"), ("thing",), file, "a file"),
        Wrong(("report", "run", "thing"), ("thing",), all_of(run, file), "a run and a file"),
        Wrong(("report", "run", "--out", "thing"), ("thing",), all_of(run, folder), "a folder"),
        Wrong(("report", "run", "--out", "thing/x.html"), ("thing",), all_of(run, file), "a file"),
        Wrong(("report", "run", "--records", "thing/r.jsonl"), ("thing",), all_of(run, file), "a file"),
        Wrong(("bench", "ops", "--out", "thing"), ("thing",), folder, "a folder"),
        Wrong(("bench", "pairs", "--out", "thing/r.jsonl"), ("thing",), file, "a file"),
        Wrong(("detect", "--resume", "run"), ("run",), run, "a training run"),
        Wrong(("train", "--resume", "run"), ("run",), ground.lay_detection, "a detection run"),
        Wrong(("evaluate", "run"), ("run",), ground.lay_detection, "a detection run"),
        Wrong(("report", "run"), ("run",), ground.lay_detection, "a detection run"),
        Wrong((*DETECT, "--records", "thing"), ("thing", "coco"), all_of(run, folder), "no boxes"),
    ]
    readers = (("evaluate",), ("report",), ("train", "--resume"), ("detect", "--resume"), (*DETECT, "--backbone"))
    names = ("nowhere", "\udcff", "né/数字", "x" * 300, "/nowhere/else", "~nobody/x", "%s", "-")
    about = ("argument", "RUN", "required", "\\udcff", "backbone")
    lines += [Wrong((*words, name), (name[:20], *about)) for words in readers for name in names]
    rng.shuffle(lines)
    return iter(lines)


RUNS = (run_files, run_values, events, weights, checkpoints, records, places)
"""Every family of wrong files of runs."""
