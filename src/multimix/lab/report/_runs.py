"""Run folders, as the training engine leaves them."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multimix.lab.report._evaluations import Evaluation, read_evaluations
from multimix.lab.report._files import read_lines, read_object

# The seed, names, and where or how often things are read and written do not make a run another experiment.
_NOT_SETTINGS = frozenset(
    {"seed", "label", "type", "recipe", "name", "folder", "out", "resume"}
    | {"root", "download", "workers", "checkpoint_steps", "tensorboard"}
)
_LATER = {"init": None, "devices": 1, "nodes": 1, "sync_batchnorm": False, "fsdp": False}
"""Settings that came after runs had been recorded, with what those runs did: a run that does the same is no other."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A PNG that a run left behind, with what it shows."""

    path: Path
    """The file."""
    caption: str
    """What it shows, in words; the file's name where the run says nothing."""
    width: int
    """Pixels across."""
    height: int
    """Pixels down."""


@dataclass(frozen=True)
class Run:
    """One training run: one method, one seed."""

    folder: Path
    """Where it lies."""
    config: dict[str, Any]
    """The full configuration: label, data, model, seed, epochs, method and the rest."""
    environment: dict[str, Any]
    """Versions, device, commit, date and command; empty where the run died before writing it."""
    epochs: tuple[dict[str, Any], ...]
    """One event an epoch, in order; where a resumed run repeats an epoch, the later one."""
    tests: tuple[dict[str, Any], ...]
    """The test events, in order of writing."""
    end: dict[str, Any] | None
    """The event that closes a finished run; None of an unfinished one."""
    pictures: tuple[Picture, ...] = ()
    """Pictures, by file name."""
    recipe: str | None = None
    """The recipe that the configuration came from."""
    version: str | None = None
    """MultiMix's version."""
    code: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the user's own files that made it, by name."""
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """What suites left for figures, by suite; only what belongs to the newest test."""

    @property
    def label(self) -> str:
        """The method's name in tables and figures."""
        return str(self.config["label"])

    @property
    def finished(self) -> bool:
        """Whether training and the final test came to their end."""
        return self.end is not None

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration less seed, label and places: what must be equal for two runs to be averaged."""
        return {
            name: value
            for name, value in self.config.items()
            if name not in _NOT_SETTINGS and not (name in _LATER and value == _LATER[name])
        }

    @property
    def settings_hash(self) -> str:
        """Ten hexadecimal digits that stand for ``settings``."""
        text = json.dumps(self.settings, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def read_run(folder: str | Path) -> Run:
    """Read a run folder, finished or not.

    Args:
        folder: A folder holding ``config.json`` and, as far as the run came, ``environment.json``, ``metrics.jsonl``,
            ``pictures/`` and ``evaluation/``.

    Returns:
        The run. A half-written last line of ``metrics.jsonl`` is left out: the run was killed.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder is no run, or a file in it is broken; the message names the file, and the line.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"run folder {str(folder)!r} does not exist")
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r}: expected a run folder, got a file")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{str(folder)!r} is not a MultiMix run: it holds no config.json")
    whole = read_object(folder / "config.json")
    config = _checked_config(folder / "config.json", whole)
    environment = folder / "environment.json"
    epochs, tests, end = _read_events(folder / "metrics.jsonl")
    return Run(
        folder=folder,
        config=config,
        environment=read_object(environment) if environment.is_file() else {},
        epochs=epochs,
        tests=tests,
        end=end,
        pictures=_read_pictures(folder / "pictures"),
        recipe=_text(whole.get("recipe")),
        version=_text(whole.get("multimix")),
        code=_code_of(whole),
        evaluations=read_evaluations(folder / "evaluation", tests),
    )


def _code_of(whole: dict[str, Any]) -> dict[str, str]:
    code = whole.get("code")
    return {str(name): str(digest) for name, digest in code.items()} if isinstance(code, dict) else {}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _checked_config(path: Path, whole: dict[str, Any]) -> dict[str, Any]:
    config = whole.get("config")
    if not isinstance(config, dict):
        raise ValueError(f"{path}: not a MultiMix run's configuration, which has an object under 'config'")
    if config.get("type") == "DetectConfig":
        raise ValueError(f"{path}: a detection run, of which a report is not made; its numbers are in metrics.jsonl")
    for name, kind in {"label": str, "data": str, "model": str, "seed": int, "epochs": int, "method": dict}.items():
        value = config.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{path}: config.{name}: expected {kind.__name__}, got {value!r}")
    return config


def _read_events(path: Path) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...], dict[str, Any] | None]:
    if not path.is_file():
        return (), (), None
    epochs: dict[int, dict[str, Any]] = {}
    tests: list[dict[str, Any]] = []
    end = None
    for number, event in read_lines(path, killed=True):
        kind = event.get("event")
        if not isinstance(kind, str):
            raise ValueError(f"{path}, line {number}: expected a text under 'event', got {kind!r}")
        if kind == "epoch":
            epochs[_epoch(path, number, event)] = event
            end = None  # a finished run that was taken further is unfinished again
        elif kind == "test":
            tests.append(event)
        elif kind == "end":
            end = event
    return tuple(epochs[key] for key in sorted(epochs)), tuple(tests), end


def _epoch(path: Path, number: int, event: dict[str, Any]) -> int:
    epoch = event.get("epoch")
    if not isinstance(epoch, int) or isinstance(epoch, bool):
        raise ValueError(f"{path}, line {number}: epoch: expected a whole number, got {epoch!r}")
    return epoch


def _read_pictures(folder: Path) -> tuple[Picture, ...]:
    captions = read_object(folder / "captions.json") if (folder / "captions.json").is_file() else {}
    paths = sorted(folder.glob("*.png"))
    return tuple(_picture(path, str(captions.get(path.name, path.stem))) for path in paths)


def _picture(path: Path, caption: str) -> Picture:
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or not head.startswith(_PNG):
        raise ValueError(f"{path}: not a PNG picture")
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    return Picture(path=path, caption=caption, width=width, height=height)
