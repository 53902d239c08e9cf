"""The run folder: what lies in it, and who may write there."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from multimix import __version__
from multimix.lab._code import Code, Sources, digests
from multimix.lab.data import Splits
from multimix.lab.train.codec import from_json, to_json
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.log import Metrics
from multimix.lab.train.own import code_of, named_files
from multimix.lab.train.state import replacing


@dataclass(frozen=True)
class Facts:
    """What a run's network knows of the data that it was trained on."""

    classes: tuple[str, ...]
    """The name of every class, in the order of the logits."""
    shape: tuple[int, int, int]
    """Shape (c, h, w) of one image."""
    mean: tuple[float, ...]
    """Mean of each channel that images are normalised with, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel, likewise."""

    @classmethod
    def of(cls, splits: Splits) -> "Facts":
        """Return those of a data set."""
        return cls(splits.classes, splits.shape, splits.mean, splits.std)

    def check(self, splits: Splits) -> None:
        """Raise ValueError unless a data set has the classes and the images that the network was trained for."""
        if splits.classes != self.classes:
            raise ValueError(
                f"the run was trained on {_some(self.classes)}, but data {splits.name} has {_some(splits.classes)}"
            )
        if splits.shape != self.shape:
            raise ValueError(
                f"the run was trained on images (c, h, w) = {self.shape}, but those of data {splits.name} are"
                f" {splits.shape}"
            )


def _some(classes: tuple[str, ...]) -> str:
    listed = ", ".join(classes[:4])
    return f"{len(classes)} classes ({listed}{', ...' * (len(classes) > 4)})"


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.environment_file = path / "environment.json"
        self.checkpoint = path / "last.ckpt"
        self.weights = path / "model.safetensors"
        self.averaged = path / "ema.safetensors"
        self.evaluation = path / "evaluation"
        self.code = path / "code"
        self.pictures = path / "pictures"
        self.metrics = Metrics(path / "metrics.jsonl")

    def create(self, config: TrainConfig, facts: Facts) -> None:
        """Make the folder and write the configuration, with what the network knows of its data and the user's files.

        Raises:
            FileExistsError: If the folder holds anything already.
            ValueError: If two of the user's files have the same name.
            OSError: If it cannot be written.
        """
        code = code_of(config)
        self.claim()
        keep_code(self.code, code)
        self.write_json(
            self.config_file,
            {
                "multimix": __version__,
                "recipe": config.recipe,
                "config": describe_config(config),
                **({"code": digests(code)} if code else {}),
                "trained_on": asdict(facts),
            },
        )

    def claim(self) -> None:
        """Make the folder.

        Raises:
            FileExistsError: If it holds anything already.
            OSError: If it cannot be made.
        """
        self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)

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
        """Keep other processes from writing into the folder while the context lasts.

        Raises:
            BlockingIOError: If one is at it.
        """
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

    def read_code(self, *parts: str, trust_code: bool) -> Code | None:
        """Return the user's own files that the run keeps; None if no part of its configuration needs one to be run.

        Args:
            parts: Fields of the configuration: ``method``, ``data``.
            trust_code: Whether the files may be run.

        Raises:
            FileNotFoundError: If this is not a run folder, or a file is missing.
            ValueError: If files may not be run, or have changed since the run began; in one line.
        """
        try:
            whole = self._read()
            config = whole["config"] if isinstance(whole["config"], dict) else {}  # of which read_config complains
            needed = sorted(file for part in parts for file in named_files(config.get(part)))
            kept = {str(name): str(digest) for name, digest in whole.get("code", {}).items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{self.config_file} cannot be read: {error}") from error
        if not needed:
            return None
        if not trust_code:
            listed = ", ".join(f"{file} (sha256 {kept.get(file, 'unknown')})" for file in dict.fromkeys(needed))
            raise ValueError(
                f"run folder {self.path} holds code of its own, which this would run: {listed}; read it in {self.code}"
                " and allow it with --trust-code (in Python: trust_code=True)"
            )
        return Code({name: self._unchanged(name, digest) for name, digest in kept.items()}, self.code)

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

    def read_digests(self) -> dict[str, str]:
        """Return the SHA-256 of each of the user's files when the run began."""
        return dict(self._read().get("code") or {})

    def read_config(self, code: Code | None = None) -> TrainConfig:
        """Return the configuration of the run; without its code, nothing of a user's own is run and nothing can train.

        Raises:
            FileNotFoundError: If this is not a run folder.
            ValueError: If its configuration cannot be read.
        """
        try:
            config = from_json(self._read()["config"], code)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.config_file} cannot be read: {error}") from error
        if not isinstance(config, TrainConfig):
            raise ValueError(f"{self.config_file} holds a {type(config).__name__}, not a training configuration")
        return config

    def read_facts(self) -> Facts | None:
        """Return what the run's network knows of its data; None of a run that did not write it down.

        Raises:
            FileNotFoundError: If this is not a run folder.
            ValueError: If it cannot be read.
        """
        try:
            given = self._read().get("trained_on")
            return None if given is None else Facts(**{name: tuple(value) for name, value in given.items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.config_file} cannot be read: {error}") from error

    def _read(self) -> dict[str, Any]:
        if not self.path.is_dir():
            raise FileNotFoundError(f"there is no run folder {self.path}")
        if not self.config_file.is_file():
            raise FileNotFoundError(f"{self.path} is not a run folder: it has no config.json")
        return json.loads(self.config_file.read_text(encoding="utf-8"))

    def write_json(self, path: Path, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        with replacing(path) as file:
            file.write((json.dumps(value, indent=1) + "\n").encode())

    @property
    def finished(self) -> bool:
        """Return whether the run came to its end."""
        return any(event.get("event") == "end" for event in self.metrics.read())


def describe_config(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as JSON with the label that tables use."""
    return {**to_json(config), "label": config.title}


def keep_code(folder: Path, code: Sources) -> None:
    """Write files of the user's into a folder.

    Raises:
        OSError: If one cannot be written.
    """
    for name, source in code.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder / name) as file:
            file.write(source)
