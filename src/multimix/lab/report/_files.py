"""Reading JSON with errors that name file and line, and writing files whole or not at all."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises:
        ValueError: The file is not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_lines(path: Path, *, killed: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, JSON object) of a JSON-lines file; blank lines are skipped.

    Args:
        path: The file.
        killed: Leave out a last line that has no line end and cannot be read: the trace of a writer that was killed.

    Raises:
        ValueError: A line is not a JSON object; the message names file and line.
    """
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            if killed and number == len(lines):
                return
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from None
        if not isinstance(value, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(value).__name__}")
        yield number, value


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part.

    Raises:
        ValueError: ``path`` is a folder.
    """
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
