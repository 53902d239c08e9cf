"""What may be wrong with a file: other content, parts of its own, code, another kind of thing in its place."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch

Change = Callable[[Path], object]
"""Changes the folder that a command line runs in."""

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

KINDS = ("a folder", "a link to nowhere", "a link to itself", "gone")
"""What may be in place of a file."""

EXECUTED = "executed-code-of-a-pickle"
"""The folder that code inside a file makes, should it ever run: every change to the folder is a fault."""


class Payload:
    """What runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (EXECUTED,)


def malicious() -> dict[str, bytes]:
    """Return files whose pickles run code when they are loaded without care: a bare one, and one of torch's."""
    stream, legacy = io.BytesIO(), io.BytesIO()
    torch.save({"format": 1, "network": Payload()}, stream)
    torch.save({"format": 1, "network": Payload()}, legacy, _use_new_zipfile_serialization=False)
    return {
        "a pickle with code": pickle.dumps(Payload()),
        "a checkpoint with code": stream.getvalue(),
        "an old checkpoint with code": legacy.getvalue(),
    }


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


def replaced(name: str, content: bytes) -> Change:
    """Return what writes a file anew."""

    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def instead(name: str, kind: str) -> Change:
    """Return what puts something else in place of a file."""

    def change(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        if kind == "a folder":
            path.mkdir()
        elif kind != "gone":
            path.symlink_to("nowhere" if kind == "a link to nowhere" else path.name)

    return change


def rewritten(name: str, path: tuple[str | int, ...], value: Any) -> Change:
    """Return what puts a value at a place inside a JSON file, or takes away what is there if it is ``...``."""

    def change(folder: Path) -> None:
        whole = json.loads((folder / name).read_text())
        *towards, last = path
        inside = whole
        for key in towards:
            inside = inside[key]
        if value is ...:
            del inside[last]
        else:
            inside[last] = value
        (folder / name).write_text(json.dumps(whole))

    return change


def all_of(*changes: Change) -> Change:
    """Return several changes as one, in their order."""

    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def paths(value: Any, so_far: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*so_far, key)
        yield from paths(item, (*so_far, key))
