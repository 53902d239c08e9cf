"""VOC-format folders: ``JPEGImages``, ``Annotations`` and ``ImageSets/Main/SPLIT.txt``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from multimix.lab.data.boxes._files import existing, names_in, refuse_outside
from multimix.lab.data.boxes._sets import BoxSet, Draft, Photo

__all__ = ["read_voc"]

_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


@dataclass(frozen=True)
class _Object:
    """One object of an annotation."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    where: str


def read_voc(folders: Sequence[Path], split: str, *, classes: tuple[str, ...] | None = None) -> BoxSet:
    """Return a split of one folder or of several joined, as VOC2007 and VOC2012 are to "07+12".

    VOC counts pixels from 1 and a box holds its last one: (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax,
    ymax), so that widths are VOC's xmax - xmin + 1. Difficult objects are ignored objects.

    Args:
        folders: Each with JPEGImages, Annotations and ImageSets/Main.
        split: train, val, trainval, test or any other list in ImageSets/Main.
        classes: Names in the order of the labels; by default all that occur, in alphabetical order, which is VOC's own.

    Raises:
        FileNotFoundError: If a folder, the split, an annotation or an image is not there.
        ValueError: If a file is damaged, an image comes twice, a class is unknown, or a box is none or outside its
            image; the message names the file and the object.
    """
    draft = Draft(f"voc:{','.join(map(str, folders))} {split}", "voc")
    objects: list[list[_Object]] = []
    for folder in folders:
        for photo, found in _annotated(folder, split):
            draft.begin(photo)
            objects.append(found)
    names = classes or tuple(sorted({thing.name for found in objects for thing in found}))
    _add_all(draft, objects, {name: label for label, name in enumerate(names, 1)})
    return draft.finish(names)


def _add_all(draft: Draft, objects: list[list[_Object]], labels: dict[str, int]) -> None:
    photos, draft.photos, draft.counts = draft.photos, [], []
    for photo, found in zip(photos, objects, strict=True):
        draft.begin(photo)
        for thing in found:
            if thing.name not in labels:
                raise ValueError(f"{thing.where}: class {thing.name!r} is not among {', '.join(labels)}")
            try:
                draft.add(thing.box, labels[thing.name], area=None, ignored=thing.difficult)
            except ValueError as error:
                raise ValueError(f"{thing.where}: {error}") from None


def _annotated(folder: Path, split: str) -> list[tuple[Photo, list[_Object]]]:
    """Return the images of a folder's split with their objects."""
    images = existing(folder / "JPEGImages", "VOC images")
    annotations = existing(folder / "Annotations", "VOC annotations")
    present = names_in(images)
    found = []
    for name in _listed(folder, split):
        file = annotations / f"{name}.xml"
        root = _parsed(file)
        image = next((name + ending for ending in _ENDINGS if name + ending in present), None)
        if image is None:
            raise FileNotFoundError(f"{file}: there is no image {images / name}.jpg")
        height, width = (_whole(root, f"size/{side}", str(file)) for side in ("height", "width"))
        photo = Photo(str(images / image), name, height, width)
        things = [_object(part, f"{file}: object {i}") for i, part in enumerate(root.findall("object"), 1)]
        found.append((photo, things))
    return found


def _listed(folder: Path, split: str) -> list[str]:
    file = existing(folder / "ImageSets" / "Main", "VOC splits") / f"{split}.txt"
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    names: dict[str, None] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{file}, line {number}"
        words = line.split()
        if not words:
            continue
        if len(words) > 1:
            raise ValueError(f"{where}: the name of one image was expected, got {line.strip()!r}")
        refuse_outside(words[0], where)
        if words[0] in names:
            raise ValueError(f"{where}: image {words[0]} comes twice")
        names[words[0]] = None
    if not names:
        raise ValueError(f"{file} names no image")
    return list(names)


def _parsed(file: Path) -> Element:
    """Return the tree of an XML file; a document type, where entities that grow without bound are declared, is refused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or has a document type.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(file.read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _refuse_doctype(*_: object) -> NoReturn:
    raise ValueError("an annotation needs no document type, and this one has one")


def _object(part: Element, where: str) -> _Object:
    name = (part.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{where}: a name was expected")
    difficult = (part.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"{where} ({name}): difficult must be 0 or 1, got {difficult!r}")
    left, top, right, bottom = (
        _number(part, f"bndbox/{edge}", f"{where} ({name})") for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    return _Object(name, (left - 1, top - 1, right, bottom), difficult == "1", f"{where} ({name})")


def _number(part: Element, path: str, where: str) -> float:
    text = part.findtext(path)
    try:
        return float(text or "")
    except ValueError:
        raise ValueError(f"{where}: {path} must be a number, got {text!r}") from None


def _whole(part: Element, path: str, where: str) -> int:
    value = _number(part, path, where)
    if not (value >= 1 and value.is_integer()):
        raise ValueError(f"{where}: {path} must be a whole number of at least 1, got {value:g}")
    return int(value)
