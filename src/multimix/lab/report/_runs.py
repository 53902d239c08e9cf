"""Run folders, as training and evaluation leave them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Events = tuple[dict[str, Any], ...]

# The seed, names, and where or how often things are read and written do not make a run another experiment.
_NOT_SETTINGS = frozenset(
    {"seed", "label", "type", "recipe", "name", "folder", "out", "resume"}
    | {"root", "download", "workers", "checkpoint_steps", "tensorboard"}
)
_LATER = {"init": None, "devices": 1, "nodes": 1, "sync_batchnorm": False, "fsdp": False}
"""Settings that came after runs had been recorded, with what those runs did: a run that does the same is no other."""
_CONFIG = {"label": str, "data": str, "model": str, "seed": int, "epochs": int, "method": dict}
_EVALUATION = {"suite": str, "weights": str | None, "settings": dict | None, "figures": dict}
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
class Evaluation:
    """The figures of one suite of one run, as data."""

    suite: str
    """Its name."""
    settings: dict[str, Any]
    """What it was set to."""
    weights: str | None
    """Digest of the network's weights."""
    date: str
    """When it was measured."""
    figures: dict[str, dict[str, Any]]
    """Data by the figure's name."""


@dataclass(frozen=True)
class Run:
    """One training run: one method, one seed."""

    folder: Path
    """Where it lies."""
    config: dict[str, Any]
    """The full configuration: label, data, model, seed, epochs, method and the rest."""
    environment: dict[str, Any]
    """Versions, device, commit, date and command; empty where the run died before writing it."""
    epochs: Events
    """One event an epoch, in order; where a resumed run repeats an epoch, the later one."""
    tests: Events
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
    def setting(self) -> tuple[str, str, int]:
        """Data, model and epochs: what methods that are compared have in common."""
        return self.config["data"], self.config["model"], self.config["epochs"]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration less seed, label and places: what must be equal for two runs to be averaged."""
        given = {name: value for name, value in self.config.items() if name not in _NOT_SETTINGS}
        return {name: value for name, value in given.items() if name not in _LATER or value != _LATER[name]}

    @property
    def settings_hash(self) -> str:
        """Ten hexadecimal digits that stand for ``settings``."""
        text = json.dumps(self.settings, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def kind(self) -> tuple[str, str]:
        """Label and settings: runs of one kind differ in the seed alone."""
        return self.label, self.settings_hash


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
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{str(folder)!r} is not a MultiMix run: it holds no config.json")
    whole = _object(path)
    config, code = whole.get("config"), whole.get("code")
    if not isinstance(config, dict):
        raise ValueError(f"{path}: not a MultiMix run's configuration, which has an object under 'config'")
    if config.get("type") == "DetectConfig":
        raise ValueError(f"{path}: a detection run, of which a report is not made; its numbers are in metrics.jsonl")
    check_types(config, _CONFIG, f"{path}: config.")
    epochs, tests, end = _read_events(folder / "metrics.jsonl")
    return Run(
        folder=folder,
        config=config,
        environment=_object(folder / "environment.json"),
        epochs=epochs,
        tests=tests,
        end=end,
        pictures=_read_pictures(folder / "pictures"),
        recipe=None if whole.get("recipe") is None else str(whole["recipe"]),
        version=None if whole.get("multimix") is None else str(whole["multimix"]),
        code={str(name): str(digest) for name, digest in code.items()} if isinstance(code, dict) else {},
        evaluations=_read_evaluations(folder / "evaluation", tests),
    )


def read_lines(path: Path, *, killed: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and line, JSON object) of a JSON-lines file; blank lines are skipped."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = _parsed(line, where := f"{path}, line {number}")
        except ValueError:
            if killed and number == len(lines):
                return
            raise
        yield where, value


def check_types(values: dict[str, Any], kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return values; raise ValueError if one is not of its kind."""
    for name, kind in kinds.items():
        value = values.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{where}{name}: expected {getattr(kind, '__name__', kind)}, got {value!r:.60}")
    return values


def _object(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing where there is none."""
    return _parsed(path.read_bytes(), str(path)) if path.is_file() else {}


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def _read_events(path: Path) -> tuple[Events, Events, dict[str, Any] | None]:
    epochs: dict[int, dict[str, Any]] = {}
    tests: list[dict[str, Any]] = []
    end = None
    for where, event in read_lines(path, killed=True) if path.is_file() else ():
        check_types(event, {"event": str}, f"{where}: ")
        if event["event"] == "epoch":
            check_types(event, {"epoch": int}, f"{where}: ")
            epochs[event["epoch"]] = event
            end = None  # a finished run that was taken further is unfinished again
        elif event["event"] == "test":
            tests.append(event)
        elif event["event"] == "end":
            end = event
    return tuple(epochs[key] for key in sorted(epochs)), tuple(tests), end


def _read_pictures(folder: Path) -> tuple[Picture, ...]:
    captions = _object(folder / "captions.json")
    found = []
    for path in sorted(folder.glob("*.png")):
        with path.open("rb") as file:
            head = file.read(24)
        if len(head) < 24 or not head.startswith(_PNG):
            raise ValueError(f"{path}: not a PNG picture")
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        found.append(Picture(path, str(captions.get(path.name, path.stem)), width, height))
    return tuple(found)


def _read_evaluations(folder: Path, tests: Sequence[dict[str, Any]]) -> dict[str, Evaluation]:
    newest = {event.get("suite"): event for event in tests if event.get("network") is None}
    kept = {}
    for path in sorted(folder.glob("*.json")):
        whole = _object(path)
        check_types(whole, _EVALUATION, f"{path}: ")
        check_types(whole["figures"], dict.fromkeys(whole["figures"], dict), f"{path}: figures.")
        test = newest.get(whole["suite"], {})
        settings, weights = whole.get("settings") or {}, whole.get("weights")
        # Figures of other weights or settings, or with no test since the writer was stopped before it, do not count.
        if test and (test.get("weights"), test.get("settings") or {}) == (weights, settings):
            date = str(whole.get("date") or "")
            kept[whole["suite"]] = Evaluation(whole["suite"], settings, weights, date, whole["figures"])
    return kept
