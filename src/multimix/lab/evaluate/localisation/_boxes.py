"""Boxes of objects from a file.

A box is (x0, y0, x1, y1) in pixels of the image file, from its upper left corner: a box around the one pixel in that
corner is (0, 0, 1, 1).
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Box = tuple[float, float, float, float]
Boxes = dict[str, list[Box]]
"""The boxes of each image, by what the file calls the image."""

_HEADER = ["file", "x0", "y0", "x1", "y1"]


def read_boxes(path: str) -> Boxes:
    """Return the boxes of a file.

    ``.json``: an object with a box, or a list of boxes, for each image. ``.csv``: a line ``file,x0,y0,x1,y1`` and
    below it one line a box. ``.txt``: TinyImageNet's ``val_annotations.txt``, whose boxes name their first and last
    pixels.

    Raises:
        ValueError: If there is no such file, it is of another kind, or a box is none; the line says which.
    """
    file = Path(path).expanduser()
    reader = _READERS.get(file.suffix)
    if reader is None:
        raise ValueError(f"boxes must be a file that ends in {', '.join(_READERS)}, got {path}")
    if not file.is_file():
        raise ValueError(f"boxes: there is no file {path}")
    found: Boxes = {}
    for name, values in reader(file):
        found.setdefault(name, []).append(_checked(values, f"{path}, {name}"))
    if not found:
        raise ValueError(f"boxes: there is no box in {path}")
    return found


def _of_json(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"boxes: {file} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"boxes: {file} must hold an object with a box for each image, got {type(data).__name__}")
    for name, value in data.items():
        several = isinstance(value, list) and value and isinstance(value[0], list)
        yield from ((name, box) for box in (value if several else [value]))


def _of_csv(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        if (header := next(rows, [])) != _HEADER:
            raise ValueError(f"boxes: {file} must begin with {','.join(_HEADER)}, got {','.join(header)}")
        yield from ((row[0], row[1:]) for row in rows if row)


def _of_annotations(file: Path) -> Iterator[tuple[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, *box = line.split("\t")
        x0, y0, x1, y1 = _checked(box, f"{file}, {name}", least=0)
        yield name, (x0, y0, x1 + 1, y1 + 1)


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {
    ".json": _of_json,
    ".csv": _of_csv,
    ".txt": _of_annotations,
}


def _checked(values: Any, where: str, *, least: float = 1e-9) -> Box:
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
        if not (x0 >= 0 and y0 >= 0 and x1 - x0 >= least and y1 - y0 >= least):  # NaN lands here too
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"boxes: {where} must have x0, y0, x1, y1 with 0 <= x0 < x1, 0 <= y0 < y1, got {values}"
        ) from None
    return x0, y0, x1, y1
