"""Folders of labelled images as people keep them: a folder a class, in one tree or in train, val and test."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from multimix.lab._paths import expanded
from multimix.lab.data._identity import file_digest
from multimix.lab.data._pixels import Look, UnreadableError, look_at, suffixes
from multimix.lab.data._sets import Files, Parts

_DECODED = 2 * 1024**3  # bytes of files
_LISTED = 20
TEST_SHARE = 0.2
"""Of a folder that is not split, the share of its images that become the test set."""
_ROLES = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
"""What a folder's name, or a word of it, in lower case, says that it holds."""
_CLUTTER = {"__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini"}
"""What systems leave behind, in lower case."""


@dataclass
class Survey:
    """What reading a folder found, and what it left out."""

    root: Path
    notes: list[str] = field(default_factory=list)
    """How the folder was understood, a sentence each."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Paths below the root by why they are left out."""

    def leave_out(self, why: str, path: str | Path) -> None:
        """Note a path that is not read."""
        self.left_out.setdefault(why, []).append(_text(os.path.relpath(path, self.root)))

    def lines(self) -> list[str]:
        """Return the notes and what was left out, a line each."""
        return [*self.notes, *(f"left out, {why}: {named(paths)}" for why, paths in self.left_out.items())]


def read_folder(path: str, split_seed: int, *, skip_unreadable: bool = False) -> Parts:
    """Return the sets of a folder of images.

    It holds a folder for each class, or such folders in train/ with val/ or test/ beside it, in the usual spellings. A
    folder that holds one folder only is passed through. Where there are both val/ and test/, val/ is the validation
    set. Of one tree of classes a fifth becomes the test set, chosen by the names of the files. All files are looked at
    first: those that cannot be read are left out, or an UnreadableError lists them.
    """
    top = expanded(path)
    if not top.is_dir():
        raise FileNotFoundError(f"folder:{path} is not a folder")
    survey = Survey(top)
    root = _inside(top, survey)
    folders = {role: _inside(place, survey) for role, place in _splits(root, survey).items()} or {"train": root}
    trees = {"train": class_tree(folders.pop("train"), survey=survey)}
    trees |= {role: class_tree(place, trees["train"].classes, survey) for role, place in folders.items()}
    _check_apart(trees)
    trees = _readable(trees, survey, skip_unreadable=skip_unreadable)
    if len(trees) == 1:
        train, test = by_name(trees["train"], TEST_SHARE, split_seed, f"{root}: no folder of test images")
        survey.notes.append(
            f"no folder of test images: {TEST_SHARE:.0%} of the images, by their names, are the test set"
        )
        seen = set(test.labels.tolist())
        if alone := [name for label, name in enumerate(test.classes) if label not in seen]:
            survey.notes.append(f"classes of one image, which is for training and not in the test set{after(alone)}")
        return Parts(train, test, notes=survey.lines(), by_name=True)
    if "test" not in trees:
        survey.notes.append(f"no folder of test images: {folders['val'].name} is the test set")
        trees["test"] = trees.pop("val")
    return Parts(trees["train"], trees["test"], trees.get("val"), notes=survey.lines())


def _readable(trees: dict[str, Files], survey: Survey, *, skip_unreadable: bool) -> dict[str, Files]:
    """Return trees of files that can be read, all of which are looked at: decoded, or if they are many, their headers.

    Raises:
        UnreadableError: Some cannot be read and are not to be left out; the line lists them.
    """
    paths = [path for files in trees.values() for path in files.paths]
    looks, whole = look_over(paths)
    bad = {path: look.problem for path, look in looks.items() if look.problem is not None}
    if bad and not skip_unreadable:
        advice = "mend or remove them, or leave them out with skip_unreadable=True (--skip-unreadable)"
        raise unreadable([*bad.values()], len(paths), advice, "which multimix data lists")
    for path in bad:
        survey.leave_out("cannot be read", path)
    sizes = sorted(look.size for look in looks.values() if look.size is not None)
    kinds = Counter(os.path.splitext(path)[1].lower() for path in paths if path not in bad)
    survey.notes.append(
        f"{len(sizes)} images ({', '.join(f'{count} {end}' for end, count in kinds.most_common())}), the smallest"
        f" {'{} x {}'.format(*sizes[0])} and the largest {'{} x {}'.format(*sizes[-1])} pixels"
        + ("" if whole else "; too many bytes to decode all beforehand, so that headers were looked at")
    )
    if whole and (copies := _copies([path for path in paths if path not in bad], survey.root)):
        survey.notes.append(
            f"byte for byte the same images, which may lie in several splits or classes: {len(copies)}{after(copies)}"
        )
    kept = {
        role: files.subset([i for i, path in enumerate(files.paths) if path not in bad])
        for role, files in trees.items()
    }
    for role, files in kept.items():
        check_classes(files, f"{role} images that can be read")
    return kept


def look_over(paths: Sequence[str]) -> tuple[dict[str, Look], bool]:
    """Look at all of each file, or if they are too many bytes at the headers; return that, and whether it was all."""
    whole = sum(os.path.getsize(path) for path in paths if os.path.exists(path)) <= _DECODED  # links may lead nowhere
    console = Console(stderr=True)
    bar: Any = {"total": len(paths), "console": console, "transient": True, "disable": not console.is_terminal}
    return dict(zip(paths, track(look_at(paths, whole=whole), "looking at the images", **bar), strict=True)), whole


def _copies(paths: Sequence[str], root: Path) -> list[str]:
    """Return the files that have the content of one before them, each with that one."""
    sizes = Counter(map(os.path.getsize, paths))
    seen: dict[str, str] = {}
    first = {p: seen.setdefault(file_digest(p), p) for p in paths if sizes[os.path.getsize(p)] > 1}
    below = partial(os.path.relpath, start=root)
    return [f"{_text(below(p))} = {_text(below(other))}" for p, other in first.items() if other != p]


def unreadable(problems: Sequence[str], of: int, advice: str, where: str = "not listed here") -> UnreadableError:
    """Return an error that lists files of which each has a problem."""
    more = f"; and {len(problems) - _LISTED} more, {where}" if len(problems) > _LISTED else ""
    listed = "; ".join(problems[:_LISTED])
    error = UnreadableError(f"{len(problems)} of {of} files cannot be read as images; {advice}: {listed}{more}")
    error.problems = problems
    return error


def _inside(folder: Path, survey: Survey) -> Path:
    """Return a folder, or what it holds if that is one folder and nothing else to read."""
    while True:
        folders, images = _content(folder)
        if len(folders) != 1 or images or not _content(folders[0])[0]:
            return folder
        folder = folders[0]
        survey.notes.append(f"read from {os.path.relpath(folder, survey.root)}, the only folder there")


def _content(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the images in a folder, in the order of their names."""
    entries = sorted(p for p in folder.iterdir() if not _is_hidden(p.name))
    return [p for p in entries if p.is_dir()], [p for p in entries if _is_image(p.name) and not p.is_dir()]


def _splits(root: Path, survey: Survey) -> dict[str, Path]:
    """Return the folders of a root that hold its splits, by role; none if it is one tree of classes."""
    folders, images = _content(root)
    found = _roles(root, folders, survey)
    if "train" in found and len(found) > 1:
        for path in (*images, *(folder for folder in folders if folder not in found.values())):
            survey.leave_out("beside the splits", path)
        return found
    nested = [folder.name for folder in found.values() if _content(folder)[0]]
    if nested or (found and len(found) == len(folders)):
        missing = "no folder named train" if "train" not in found else "neither val nor test beside it"
        flat = "" if nested else "; and there is no class folder in it"
        name = next(iter(found.values())).name
        raise ValueError(f"{root} holds {name}, a name of a split, and {missing}{after(_names(folders))}{flat}")
    return {}


def _roles(root: Path, folders: list[Path], survey: Survey) -> dict[str, Path]:
    """Return folders by what their names say; where none is a usual one, what a word says, as in seg_train."""
    named = {folder: _ROLES[folder.name.lower()] for folder in folders if folder.name.lower() in _ROLES}
    if not named:
        words = {folder: {_ROLES.get(word) for word in re.findall("[a-z]+", folder.name.lower())} for folder in folders}
        worded = {folder: role for folder, roles in words.items() if len(roles - {None}) == 1 for role in roles if role}
        if {"train"} < set(worded.values()) and (len(worded) == len(folders) or all(_content(f)[0] for f in worded)):
            named = worded
            survey.notes.append("by their names, " + ", ".join(f"{f.name} is {role}" for f, role in worded.items()))
    found: dict[str, Path] = {}
    for folder, role in named.items():
        if role in found:
            raise ValueError(f"{root} holds {found[role].name} and {folder.name}, which are both the {role} images")
        found[role] = folder
    return found


def class_tree(root: Path, classes: tuple[str, ...] | None = None, survey: Survey | None = None) -> Files:
    """List the images under ``root``, whose folders are the classes, which must be ``classes`` if those are given.

    The order is that of torchvision's ImageFolder; hidden files and folders are passed over.
    """
    survey = Survey(root) if survey is None else survey
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is missing")
    folders, loose = _content(root)
    names = _names(folders)
    if len(names) < 2:
        flat = f"; {len(loose)} images lie in no class folder{after([p.name for p in loose])}" if loose else ""
        raise ValueError(f"{root} must hold at least two class folders, got {len(names)}{after(names)}{flat}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{root} holds two class folders of one name in different spellings of Unicode{after(twice)}")
    if classes is not None and names != classes:
        apart = sorted(set(names) ^ set(classes))
        raise ValueError(f"{root} must have the class folders of the training set; they differ in{after(apart)}")
    for path in sorted(root.iterdir()):
        if path not in folders:
            survey.leave_out("hidden" if _is_hidden(path.name) else "in no class folder", path)
    pairs = []
    for label, folder in enumerate(folders):
        before = {why: len(paths) for why, paths in survey.left_out.items()}
        images = images_under(folder, survey)
        if not images:
            others = [p for why, paths in survey.left_out.items() for p in paths[before.get(why, 0) :]]
            raise ValueError(
                f"{root} has no image of a kind that can be read for the class {names[label]}{after(others)}"
            )
        pairs += [(path, label) for path in images]
    pairs = _once(pairs, names, survey)
    relative = tuple(Path(os.path.relpath(path, root)).as_posix() for path, _ in pairs)
    return Files(tuple(path for path, _ in pairs), torch.tensor([label for _, label in pairs]), names, names=relative)


def images_under(folder: Path, survey: Survey | None = None) -> list[str]:
    """Return the image files below ``folder``, in ImageFolder's order; a link to a folder above it is not followed."""
    survey = Survey(folder) if survey is None else survey
    found = []
    for here, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        followed = []
        for name in folders:
            place = os.path.join(here, name)
            if _is_hidden(name):
                survey.leave_out("hidden", place)
            elif os.path.islink(place) and _is_above(os.path.realpath(place), os.path.realpath(here)):
                survey.leave_out("a link to a folder above it", place)
            else:
                followed.append(name)
        folders[:] = followed
        for name in sorted(files):
            place = os.path.join(here, name)
            if _is_hidden(name):
                survey.leave_out("hidden", place)
            elif not _is_image(name):
                survey.leave_out("no image by its name", place)
            else:
                found.append((here, name))
    return [os.path.join(*pair) for pair in sorted(found)]


def by_name(files: Files, fraction: float, seed: int, what: str) -> tuple[Files, Files]:
    """Return a set without a fraction of it, and that fraction.

    Which images are held out depends on the seed and each file's own name alone, so that a file that comes or goes
    moves no other. Every class keeps an image; where it has two, one is held out.
    """
    places = torch.tensor([_place(name, seed) for name in files.names], dtype=torch.float64)
    held = places < fraction
    for label in range(len(files.classes)):
        members = (files.labels == label).nonzero().flatten()
        order = members[places[members].argsort()]
        held[order[-1]] = False
        if len(order) > 1:
            held[order[0]] = True
    if not held.any():
        raise ValueError(f"{what}: a class of two images is needed, got {len(files)} of {len(files.classes)} classes")
    return files.subset((~held).nonzero().flatten()), files.subset(held.nonzero().flatten())


def _place(name: str, seed: int) -> float:
    """Return a number in [0, 1) that a file's name and a seed fix."""
    text = f"{seed}/{unicodedata.normalize('NFC', name)}"
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def check_classes(files: Files, what: str) -> None:
    """Raise ValueError if a class has no image."""
    counts = torch.bincount(files.labels, minlength=len(files.classes))
    if empty := [files.classes[i] for i in (counts == 0).nonzero().flatten().tolist()]:
        raise ValueError(f"{what} has none for the class{after(empty)}")


def _once(pairs: list[tuple[str, int]], names: tuple[str, ...], survey: Survey) -> list[tuple[str, int]]:
    """Return each file of a tree once; a ValueError if links put one into two classes."""
    seen: dict[str, tuple[str, int]] = {}
    kept = []
    for path, label in pairs:
        first, there = seen.setdefault(os.path.realpath(path), (path, label))
        if there != label:
            raise ValueError(f"{path} and {first} are one file, in the classes {names[label]} and {names[there]}")
        if first == path:
            kept.append((path, label))
        else:
            survey.leave_out("a link to an image that is read already", path)
    return kept


def _check_apart(splits: dict[str, Files]) -> None:
    """Raise ValueError if links put a file into two splits."""
    seen: dict[str, tuple[str, str]] = {}
    for split, files in splits.items():
        for path in files.paths:
            there, first = seen.setdefault(os.path.realpath(path), (split, path))
            if there != split:
                raise ValueError(f"{path} of the {split} images and {first} of the {there} images are one file")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes()


def _is_above(folder: str, other: str) -> bool:
    return os.path.commonpath((folder, other)) == folder


def _names(folders: Iterable[Path]) -> tuple[str, ...]:
    return tuple(_text(folder.name) for folder in folders)


def _text(name: str) -> str:
    """Return a file's name as any text can hold it, even if it is not UTF-8, as in old archives."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def _raise(error: OSError) -> None:
    raise error


def named(names: Sequence[str]) -> str:
    """Return how many there are, by suffix if they are files, and the first few."""
    ends = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in names)
    kinds = f" ({', '.join(f'{count} {end}' for end, count in ends.most_common(5))})" if len(names) > 5 else ""
    return f"{len(names)}{kinds}{after(names)}"


def after(names: Sequence[str]) -> str:
    """Return the first few names for the end of a message."""
    return f": {', '.join(names[:5])}{', ...' * (len(names) > 5)}" if names else ""
