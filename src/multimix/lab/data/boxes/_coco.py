"""COCO-format folders: ``annotations/instances_SPLIT.json`` and a folder of images."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from multimix.lab.data.boxes._files import existing, names_in, refuse_outside
from multimix.lab.data.boxes._sets import BoxSet, Draft, Photo

__all__ = ["read_coco"]

Entry = dict[str, Any]


def read_coco(folder: Path, split: str) -> BoxSet:
    """Return a split; labels are 1..k in the order of the category ids, which need not be consecutive.

    Images lie in ``SPLIT``, ``images/SPLIT``, ``images`` or the folder itself, the first of them that is there. Boxes
    (x, y, width, height) become (left, top, right, bottom); crowds are ignored objects.

    Raises:
        FileNotFoundError: If the annotations, their images' folder or an image is not there.
        ValueError: If the file is damaged, an id comes twice or is unknown, or a box is none or outside its image; the
            message names the file and the entry.
    """
    file = existing(folder / "annotations", "COCO annotations") / f"instances_{split}.json"
    content = _parsed(file)
    categories = _by_id(file, content, "categories")
    labels = {key: label for label, key in enumerate(sorted(categories), 1)}
    photos = _photos(file, content, _image_folder(folder, split))
    annotations = _grouped(file, _by_id(file, content, "annotations"), photos, labels)
    draft = Draft(f"coco:{folder} {split}", "coco")
    for key, photo in photos.items():
        draft.begin(photo)
        for entry in annotations[key]:
            _add(draft, entry, labels[entry["category_id"]], f"{file}: annotation {entry['id']} of image {key}")
    classes = tuple(str(_value(categories[key], "name", str, f"{file}: category {key}")) for key in labels)
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise ValueError(f"{file}: two categories have the name {twice[0]!r}")
    return draft.finish(classes)


def _parsed(file: Path) -> Entry:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: an object with images, annotations and categories was expected")
    return content


def _by_id(file: Path, content: Entry, kind: str) -> dict[int, Entry]:
    """Return the entries of a kind by their ids."""
    entries = content.get(kind)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file}: a list of objects was expected under {kind!r}")
    found: dict[int, Entry] = {}
    for number, entry in enumerate(entries):
        key = _value(entry, "id", int, f"{file}: {kind}[{number}]")
        if key in found:
            raise ValueError(f"{file}: id {key} comes twice among the {kind}")
        found[key] = entry
    return found


def _photos(file: Path, content: Entry, folder: Path) -> dict[int, Photo]:
    present = names_in(folder)
    photos: dict[int, Photo] = {}
    for key, entry in _by_id(file, content, "images").items():
        where = f"{file}: image {key}"
        name = _value(entry, "file_name", str, where)
        refuse_outside(name, f"{where}: file_name")
        if name not in present and not (folder / name).is_file():
            raise FileNotFoundError(f"{where}: there is no file {folder / name}")
        height, width = (_value(entry, side, int, where) for side in ("height", "width"))
        if min(height, width) < 1:
            raise ValueError(f"{where}: height and width must be at least 1, got {height} and {width}")
        photos[key] = Photo(str(folder / name), str(key), height, width)
    return photos


def _image_folder(folder: Path, split: str) -> Path:
    choices = (folder / split, folder / "images" / split, folder / "images", folder)
    return next(choice for choice in choices if choice.is_dir())


def _grouped(
    file: Path, entries: dict[int, Entry], photos: dict[int, Photo], labels: dict[int, int]
) -> dict[int, list[Entry]]:
    """Return the annotations by the image that they belong to."""
    grouped: dict[int, list[Entry]] = defaultdict(list)
    for key, entry in entries.items():
        where = f"{file}: annotation {key}"
        image, category = (_value(entry, name, int, where) for name in ("image_id", "category_id"))
        if image not in photos:
            raise ValueError(f"{where}: image_id {image} is not among the images")
        if category not in labels:
            raise ValueError(f"{where} of image {image}: category_id {category} is not among the categories")
        grouped[image].append(entry)
    return grouped


def _add(draft: Draft, entry: Entry, label: int, where: str) -> None:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(edge) for edge in box):
        raise ValueError(f"{where}: bbox must be [x, y, width, height], got {box!r}")
    crowd, area = entry.get("iscrowd", 0), entry.get("area")
    if crowd not in (0, 1):
        raise ValueError(f"{where}: iscrowd must be 0 or 1, got {crowd!r}")
    if area is not None and not (_is_number(area) and area >= 0):
        raise ValueError(f"{where}: area must be a number that is not negative, got {area!r}")
    left, top, width, height = box
    try:
        draft.add((left, top, left + width, top + height), label, area=area, ignored=bool(crowd))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _value(entry: Entry, name: str, kind: type, where: str) -> Any:
    value = entry.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: {name} must be {'a whole number' if kind is int else 'a text'}, got {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
