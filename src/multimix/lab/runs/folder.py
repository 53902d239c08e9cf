"""The run folder: what lies in it, and who may write there."""

import fcntl
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import torch

from multimix import __version__
from multimix.lab._code import Code, Sources, digests, split_reference
from multimix.lab._paths import expanded
from multimix.lab.runs.codec import code_of, from_json, named_files, to_json
from multimix.lab.runs.environment import describe
from multimix.lab.runs.files import json_lines, replacing, unwritable

C = TypeVar("C")


class Metrics:
    """The file ``metrics.jsonl``: one event a line, on disk as soon as it happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """Append an event, whole or not at all."""
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"event": event, **values}) + "\n")
        except OSError as error:
            if self.path.exists():
                os.truncate(self.path, before)  # half a line would damage the next one
            raise unwritable(self.path, error) from error

    def read(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the events so far, or those of a kind; a last line that a killed run left half-written is not one."""
        return [event for event in self._read()[0] if kind in (None, event["event"])]

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Rewrite the file with the events for which ``wanted(event)`` holds, and warn of a line that is none."""
        events, left_out = self._read()
        if left_out is not None:
            warnings.warn(left_out, stacklevel=2)
        write_json_lines(self.path, [event for event in events if wanted(event)])

    def _read(self) -> tuple[list[dict[str, Any]], str | None]:
        if not self.path.is_file():
            return [], None
        found, left_out = json_lines(self.path)
        for where, event in found:
            if not isinstance(event.get("event"), str):
                raise ValueError(f"{where}: event: expected str, got {event.get('event')!r:.60}")
        return [event for _, event in found], left_out


class Folder:
    """The files of one run of any kind."""

    def __init__(self, path: Path | str) -> None:
        self.path = path = expanded(path)
        self.config_file = path / "config.json"
        self.environment_file = path / "environment.json"
        self.checkpoint = path / "last.ckpt"
        self.weights = path / "model.safetensors"
        self.code = path / "code"
        self.metrics = Metrics(path / "metrics.jsonl")

    def create(self, config: Any, **about: Any) -> None:
        """Make the folder and write the configuration, more about the run, and the user's files."""
        code = code_of(config)
        self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        keep_code(self.code, code)
        kept = {"code": digests(code)} if code else {}
        described = {"multimix": __version__, "recipe": config.recipe, "config": describe_config(config)}
        self.write_json(self.config_file, {**described, **kept, **about})

    @contextmanager
    def begun(self, config: Any, device: torch.device, **about: Any) -> Iterator[None]:
        """Make the folder of a new run and keep other processes out of it."""
        self.create(config, **about)
        with self.writing():
            self.write_json(self.environment_file, describe(device))
            yield

    def check_free(self) -> None:
        """Raise FileExistsError if the folder holds anything, but for what a kill amid :meth:`create` leaves."""
        begun = (f"{self.config_file.name}.part", self.code.name)
        if self.path.exists() and (not self.path.is_dir() or any(f.name not in begun for f in self.path.iterdir())):
            raise FileExistsError(
                f"run folder {self.path} exists and is not empty; continue it with --resume {self.path},"
                " or give the run another --name"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from writing into the folder while the context lasts."""
        handle = os.open(self.path, os.O_RDONLY)  # the folder itself: nothing is left behind, not by a kill either
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(
                    f"run folder {self.path} is being written by another process; wait for its end, or stop it"
                ) from error
            except OSError:  # a file system that knows no locks: go without
                pass
            yield
        finally:
            os.close(handle)

    @contextmanager
    def reading(self) -> Iterator[dict[str, Any]]:
        """Give what :meth:`create` wrote, and say of which file it is that something in it cannot be read."""
        if not self.path.is_dir():
            raise FileNotFoundError(f"there is no run folder {self.path}{', but a file' * self.path.exists()}")
        if not self.config_file.is_file():
            raise FileNotFoundError(f"{self.path} is not a run folder: it has no config.json")
        try:
            yield json.loads(self.config_file.read_text(encoding="utf-8"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{self.config_file} cannot be read: {error}") from error

    def read_as(self, kind: type[C], code: Code | None = None) -> C:
        """Return the configuration of the run; without its code, a method of a user's own stands for itself, unrun."""
        with self.reading() as whole:
            config = from_json(whole["config"], code)
        if not isinstance(config, kind):
            raise ValueError(f"{self.config_file} holds a {type(config).__name__}, not a {kind.__name__}")
        return config

    def read_code(self, *parts: str, trust_code: bool) -> Code | None:
        """Return the user's own files that the run keeps, if ``parts`` of its configuration need one; else None."""
        with self.reading() as whole:
            config = whole["config"] if isinstance(whole["config"], dict) else {}  # of which read_as complains
            needed = sorted(file for part in parts for file in named_files(config.get(part)))
            kept = {str(name): str(digest) for name, digest in whole.get("code", {}).items()}
        if not needed:
            return None
        if not trust_code:
            listed = ", ".join(f"{file} (sha256 {kept.get(file, 'unknown')})" for file in dict.fromkeys(needed))
            raise ValueError(
                f"run folder {self.path} holds code of its own, which this would run: {listed}; read it in {self.code}"
                " and allow it with --trust-code (in Python: trust_code=True)"
            )
        return Code({name: self._unchanged(name, digest) for name, digest in kept.items()}, self.code)

    def holds_code(self, *references: str | None) -> bool:
        """Return whether user's files that are named as in ``FILE.py:CLASS`` are, byte for byte, what the run keeps.

        Raises:
            FileNotFoundError: If one that is named is not there.
            ValueError: If one that is named, or one that the run keeps beside it, is another.
        """
        found = [named for text in references if text and (named := split_reference(text))]
        with self.reading() as whole:
            kept, written = dict(whole.get("code") or {}), json.dumps(whole["config"])
        places = [expanded(file).parent for file, _ in found]
        for file, own in found:
            if Path(file).name not in kept or (own and json.dumps(f"{Path(file).name}:{own}") not in written):
                raise ValueError(f"run {self.path} was not made of {file}{f':{own}' if own else ''}")
            if not expanded(file).is_file():
                raise FileNotFoundError(f"there is no file {file}")
        for name, digest in kept.items() if found else ():
            there = [place / name for place in places if (place / name).is_file()]
            if not any(digests({name: path.read_bytes()})[name] == digest for path in there):
                raise ValueError(f"{name} is not the file that run {self.path} keeps; --trust-code goes on with that")
        return bool(found)

    def _unchanged(self, name: str, digest: str) -> bytes:
        """Return a file of the user's that the run keeps, as it was when the run began."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{self.config_file}: code must lie in {self.code}, got {name!r}")
        file = self.code / name
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing, which the run needs")
        source = file.read_bytes()
        found = digests({name: source})[name]
        if found != digest:
            raise ValueError(f"{file} has changed since the run began: its sha256 is {found}, not {digest}")
        return source

    def write_json(self, path: Path, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        with replacing(path) as file:
            file.write((json.dumps(value, indent=1) + "\n").encode())

    def check_weights(self, command: str) -> None:
        """Raise FileNotFoundError if the run has not ended; ``command`` would finish it."""
        if not self.weights.is_file():
            raise FileNotFoundError(
                f"{self.path} has no model.safetensors yet; finish it with: multimix {command} --resume {self.path}"
            )

    @property
    def finished(self) -> bool:
        """Return whether the run came to its end."""
        return bool(self.metrics.read("end"))


def write_json_lines(path: Path, values: list[Any]) -> None:
    """Write a file of one JSON value a line, whole or not at all."""
    with replacing(path) as file:
        file.write("".join(json.dumps(value) + "\n" for value in values).encode())


def describe_config(config: Any) -> dict[str, Any]:
    """Return the configuration of a run as JSON with the label that tables use."""
    return {**to_json(config), "label": config.title}


def keep_code(folder: Path, code: Sources) -> None:
    """Write files of the user's into a folder."""
    for name, source in code.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder / name) as file:
            file.write(source)
