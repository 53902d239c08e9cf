"""Files that are written whole or not at all, and files of lines; needs no torch."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file beside ``path`` that takes its place once it is whole and on disk; the old one goes to ``keep``."""
    fresh = path.with_name(path.name + ".part")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():  # a kill between the two leaves the older one under its new name
            path.replace(keep)
        fresh.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        fresh.unlink(missing_ok=True)


def json_lines(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], str | None]:
    """Return (file and line, JSON object) of every line that is not blank, and what is left out, in words.

    That is the last line where a writer was stopped amid it, so that it neither ends nor is JSON.

    Raises:
        ValueError: Other lines are no JSON objects; the message names the file, and each of them.
    """
    lines = path.read_bytes().split(b"\n")
    found, wrong, why = [], [], ""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = parsed(line)
        except ValueError as error:
            wrong.append(number)
            why = why or str(error)
        else:
            found.append((f"{path}, line {number}", value))
    if wrong == [len(lines)]:
        return found, f"{path}, line {wrong[0]} is cut short and left out: its writer was stopped amid it"
    if wrong:
        others = f"; nor are lines {', '.join(map(str, wrong[1:]))}" if wrong[1:] else ""
        raise ValueError(f"{path}, line {wrong[0]}: {why}{others}")
    return found, None


def parsed(text: bytes) -> dict[str, Any]:
    """Return a JSON object, or raise ValueError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def unwritable(path: Path, error: OSError) -> OSError:
    """Return an error that says which file could not be written, and why."""
    if str(path) in str(error):
        return error
    kept = "; what was there before is kept" if path.exists() else ""
    return OSError(f"{path} cannot be written: {error.strerror or error}{kept}")
