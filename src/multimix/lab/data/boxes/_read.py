"""COCO-format folders, ``annotations/instances_SPLIT.json`` and images, and VOC-format ones, an XML file an image."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Annotated, Any, NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from multimix._declared import Count, Interval, check
from multimix.lab._paths import expanded
from multimix.lab.data._folder import after
from multimix.lab.data._pixels import suffixes
from multimix.lab.data._sets import classes_told
from multimix.lab.data.boxes._sets import BoxSet, Draft, Photo

Entry = dict[str, Any]
Entries = dict[int, Entry]
_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def load_boxes(spec: str, split: str, *, classes: tuple[str, ...] | None = None) -> BoxSet:
    """Return a split of a COCO-format or VOC-format folder.

    COCO's labels are 1..k in the order of the category ids; images lie in ``SPLIT``, ``images/SPLIT``, ``images`` or
    the folder itself, the first of them that is there. Crowds are ignored objects.

    VOC's labels are the names in alphabetical order. VOC counts pixels from 1 and a box holds its last one: (xmin,
    ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax). Difficult objects are ignored objects.

    Args:
        spec: ``coco:PATH``, or ``voc:PATH`` with more paths after commas, which are joined.
        split: What ``annotations/instances_SPLIT.json`` or ``ImageSets/Main/SPLIT.txt`` is called, such as trainval.
        classes: Those that a network knows; by default all of the set.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is damaged, something comes twice or is unknown, a box is none or outside its image, or
            the classes are not those; the message names the file and the entry.
    """
    kind, _, rest = spec.partition(":")
    if kind not in ("coco", "voc") or not rest:
        raise ValueError(f"data must be coco:PATH or voc:PATH[,PATH...], got {spec!r}")
    if kind == "voc":
        return _read_voc([expanded(path) for path in rest.split(",")], split, classes)
    boxes = _read_coco(expanded(rest), split)
    if classes is not None and boxes.classes != classes:
        known = f"{classes_told(classes)} in the same order"
        raise ValueError(f"{boxes.name} has {classes_told(boxes.classes)}, but {known} were expected")
    return boxes


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Say of what is refused inside where it stands."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from error


def _content(file: Path) -> bytes:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    return file.read_bytes()


def _names_in(folder: Path) -> set[str]:
    """Return the names in a folder; one listing is far quicker than asking for each of 100,000 files."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}, where images should be")
    return set(os.listdir(folder))


def _refuse_outside(name: str) -> None:
    path = Path(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the name of a file in its folder was expected, got {name!r}")


_FIELDS: dict[str, dict[str, Any]] = {
    "categories": {"id": int, "name": str},
    "images": {"id": int, "file_name": str, "height": Count, "width": Count},
    "annotations": {
        "id": int,
        "image_id": int,
        "category_id": int,
        "bbox": tuple[float, float, float, float],
        "area": Annotated[float, Interval(ge=0, lt=inf)] | None,
    },
}
"""What is read of each kind of entry in a COCO-format file, and what it has to be."""


def _read_coco(folder: Path, split: str) -> BoxSet:
    file = folder / "annotations" / f"instances_{split}.json"
    text = _content(file)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    choices = (folder / split, folder / "images" / split, folder / "images", folder)
    place = next(choice for choice in choices if choice.is_dir())
    present = _names_in(place)
    with _at(str(file)):
        categories, images, annotations = (_entries(content, kind) for kind in _FIELDS)
        classes = {key: entry["name"] for key, entry in sorted(categories.items())}
        if twice := [name for name, number in Counter(classes.values()).items() if number > 1]:
            raise ValueError(f"two categories have the name {twice[0]!r}")
        grouped = _by_image(annotations, images, classes)
        draft, named = Draft(f"coco:{folder} {split}", "coco", tuple(classes.values())), dict[str, int]()
        for key, entry in images.items():
            name = entry["file_name"]
            with draft.entry(f"image {key}: file_name"):
                _refuse_outside(name)
                if (first := named.setdefault(name, key)) != key:
                    raise ValueError(f"{name} is that of image {first} too")
            if name not in present and not (place / name).is_file():
                draft.missing.append(f"image {key}: there is no file {place / name}")
            draft.begin(Photo(str(place / name), str(key), entry["height"], entry["width"]))
            for annotation in grouped[key]:
                with draft.entry(f"annotation {annotation['id']} of image {key}"):
                    _add(draft, annotation, classes)
        others = present - {entry["file_name"] for entry in images.values()}
        others = {name for name in others if Path(name).suffix.lower() in suffixes()}
        if others and place in choices[:2]:
            draft.unused = f"no entry names {len(others)} images in {place}, which are left out{after(sorted(others))}"
        return draft.finish()


def _entries(content: Any, kind: str) -> Entries:
    """Return the entries of a kind by their ids."""
    entries = content.get(kind) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"a list of objects was expected under {kind!r}")
    found: Entries = {}
    for number, entry in enumerate(entries):
        with _at(f"{kind}[{number}]"):
            for name, annotation in _FIELDS[kind].items():
                check(annotation, **{name: entry.get(name)})
        if entry["id"] in found:
            raise ValueError(f"id {entry['id']} comes twice among the {kind}")
        found[entry["id"]] = entry
    return found


def _by_image(annotations: Entries, images: Entries, classes: dict[int, str]) -> dict[int, list[Entry]]:
    """Return the annotations by the image that they belong to."""
    grouped: dict[int, list[Entry]] = defaultdict(list)
    for key, entry in annotations.items():
        for field, known in (("image_id", images), ("category_id", classes)):
            if entry[field] not in known:
                raise ValueError(f"annotation {key}: there is no {field} {entry[field]}")
        grouped[entry["image_id"]].append(entry)
    return grouped


def _add(draft: Draft, entry: Entry, classes: dict[int, str]) -> None:
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"iscrowd must be 0 or 1, got {crowd!r}")
    left, top, width, height = entry["bbox"]
    box = (left, top, left + width, top + height)
    draft.add(box, classes[entry["category_id"]], area=entry.get("area"), ignored=bool(crowd))


def _read_voc(folders: Sequence[Path], split: str, classes: tuple[str, ...] | None) -> BoxSet:
    draft = Draft(f"voc:{','.join(map(str, folders))} {split}", "voc", classes)
    for folder in folders:
        images = folder / "JPEGImages"
        present = _names_in(images)
        for name in _listed(folder / "ImageSets" / "Main" / f"{split}.txt"):
            file = folder / "Annotations" / f"{name}.xml"
            root = _parsed(file)
            image = next((name + ending for ending in _ENDINGS if name + ending in present), None)
            if image is None:
                draft.missing.append(f"{file}: there is no image {images / name}.jpg, .jpeg or .png")
            with draft.entry(str(file)):
                height, width = (_whole(root, f"size/{side}") for side in ("height", "width"))
                draft.begin(Photo(str(images / (image or name)), name, height, width))
                for number, part in enumerate(root.findall("object"), 1):
                    with draft.entry(str(file)):
                        _add_object(draft, part, number)
    return draft.finish()


def _listed(file: Path) -> list[str]:
    """Return the images that a split names."""
    names: dict[str, None] = {}
    with _at(str(file)):
        lines = _content(file).decode("utf-8-sig").splitlines()
    for number, line in enumerate(lines, 1):
        if not (words := line.split()):
            continue
        with _at(f"{file}, line {number}"):
            if len(words) > 1:
                raise ValueError(f"the name of one image was expected, got {line.strip()!r}")
            _refuse_outside(words[0])
            if words[0] in names:
                raise ValueError(f"image {words[0]} comes twice")
        names[words[0]] = None
    if not names:
        raise ValueError(f"{file} names no image")
    return list(names)


class _Builder(TreeBuilder):
    """Refuses a document type, where entities that grow without bound are declared."""

    def doctype(self, *_: object) -> NoReturn:
        raise ValueError("an annotation needs no document type, and this one has one")


def _parsed(file: Path) -> Element:
    parser = XMLParser(target=_Builder())
    try:
        parser.feed(_content(file))
        return parser.close()
    except (ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _add_object(draft: Draft, part: Element, number: int) -> None:
    name = (part.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"object {number}: a name was expected")
    with _at(f"object {number} ({name})"):
        difficult = (part.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            raise ValueError(f"difficult must be 0 or 1, got {difficult!r}")
        left, top, right, bottom = (_number(part, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
        draft.add((left - 1, top - 1, right, bottom), name, area=None, ignored=difficult == "1")


def _number(part: Element, path: str) -> float:
    text = part.findtext(path)
    try:
        return float(text or "")
    except ValueError:
        raise ValueError(f"{path} must be a number, got {text!r}") from None


def _whole(part: Element, path: str) -> int:
    value = _number(part, path)
    if not (value >= 1 and value.is_integer()):
        raise ValueError(f"{path} must be a whole number of at least 1, got {value:g}")
    return int(value)
