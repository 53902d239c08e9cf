"""Which data a run had: counts and digests of its splits, by which later commands know them again."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from multimix.lab.data._sets import Files, ImageSet, Splits

Identity = Mapping[str, Mapping[str, Any]]
"""Of each split, how many ``images`` it has, and its ``digest``."""


def identity(splits: Splits) -> dict[str, dict[str, Any]]:
    """Return what a run writes down of its data, and compares with when it meets them again."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: {"images": len(part), "digest": digest(part)} for name, part in parts.items() if part is not None}


def difference(before: Identity, now: Identity) -> str | None:
    """Return how data differ from those that a run had, in one line; None where they do not."""
    changed = []
    for name in dict.fromkeys((*before, *now)):
        there, here = (known.get(name, {"images": 0, "digest": ""}) for known in (before, now))
        if there["images"] != here["images"]:
            changed.append(f"{name} had {there['images']} images and has {here['images']}")
        elif there["digest"] != here["digest"]:
            changed.append(f"{name} has {here['images']} images as before, but others")
    return "; ".join(changed) or None


def digest(part: ImageSet) -> str:
    """Return a digest of a set: of labels and pixels or, of files, of their names and sizes."""
    if not isinstance(part, Files):
        return part.origin or digest_of(part.labels, part.images)
    return digest_of(part.labels, *(f"{name}\0{os.path.getsize(path)}" for name, path in _named(part)))


def content_digest(files: Files) -> str:
    """Return a digest of labels, names and all that is in the files."""
    return digest_of(files.labels, *(f"{name}\0{file_digest(path)}" for name, path in _named(files)))


def _named(files: Files) -> Iterable[tuple[str, str]]:
    return zip(files.names or map(os.path.basename, files.paths), files.paths, strict=True)


def file_digest(path: str) -> str:
    """Return a digest of what is in a file."""
    with open(path, "rb") as file:
        return hashlib.blake2b(file.read(), digest_size=16).hexdigest()


def digest_of(*content: Tensor | str) -> str:
    """Return a digest of texts and tensors."""
    state = hashlib.blake2b(digest_size=16)
    for part in content:
        if isinstance(part, str):
            state.update(f"{part}\n".encode(errors="surrogateescape"))  # of names that are not UTF-8
        else:
            state.update(repr(tuple(part.shape)).encode())
            state.update(part.cpu().contiguous().numpy().data)
    return state.hexdigest()
