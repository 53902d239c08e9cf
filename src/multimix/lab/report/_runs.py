"""Run folders, as training and evaluation leave them."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from multimix.lab._paths import expanded
from multimix.lab.about import NOT_METRICS, is_number, metrics_of
from multimix.lab.report._words import metric
from multimix.lab.runs.files import json_lines, parsed

Events = tuple[dict[str, Any], ...]

# The seed, names, and where or how often things are read and written do not make a run another experiment.
_NOT_SETTINGS = frozenset(
    {"seed", "label", "type", "recipe", "name", "folder", "out", "resume"}
    | {"root", "download", "workers", "checkpoint_steps", "logger", "tensorboard"}
)
_LATER = {"init": None, "devices": 1, "nodes": 1, "sync_batchnorm": False, "fsdp": False, "objective": None}
"""Settings that came after runs had been recorded, with what those runs did: a run that does the same is no other."""
_CONFIG = {"label": str, "data": str, "model": str, "seed": int, "epochs": int, "method": dict}
_EVALUATION = {"suite": str, "weights": str | None, "settings": dict | None, "figures": dict}
_TEST = {
    **dict.fromkeys(("suite", "network", "split", "weights", "date"), str | None),
    **{"epoch": int | None, "settings": dict | None},
}
_NOT_SHOWN = {"resume", "other_test"}  # events of old runs that say nothing, and what was measured on other data
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
    data: dict[str, str] = field(default_factory=dict)
    """What the run wrote down of its data, by split: a text that is the same for the same images."""
    notes: tuple[str, ...] = ()
    """What was left out of its files or does not fit together, a sentence each."""

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
        The run. A half-written last line of ``metrics.jsonl`` is left out: the run was killed. ``notes`` say so, and
        whatever else was left out or does not fit together; each is also a ``UserWarning``.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder is no run, or a file in it is broken; the message names the file, and the line.
    """
    folder = expanded(folder)
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
    if "extended" in whole:  # such a run is another experiment than one of so many epochs from the start
        config["extended"] = whole["extended"]
    epochs, tests, end, notes = _read_events(folder / "metrics.jsonl", config["epochs"])
    evaluations, more = _read_evaluations(folder / "evaluation", tests)
    for note in (notes := [*notes, *more]):
        warnings.warn(note, stacklevel=2)
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
        evaluations=evaluations,
        data=_splits_of(whole.get("data")),
        notes=tuple(notes),
    )


def _splits_of(data: Any) -> dict[str, str]:
    """Return what identifies each split of the data that a run wrote down, as text."""
    splits = data.get("splits") if isinstance(data, dict) else None
    pairs = splits.items() if isinstance(splits, dict) else ()
    return {name: json.dumps(known, sort_keys=True) for name, known in pairs}


def check_types(values: dict[str, Any], kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return values; raise ValueError if one is not of its kind."""
    for name, kind in kinds.items():
        value = values.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{where}{name}: expected {getattr(kind, '__name__', kind)}, got {value!r:.60}")
    return values


def _object(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing where there is none."""
    try:
        return parsed(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_events(path: Path, length: int) -> tuple[Events, Events, dict[str, Any] | None, list[str]]:
    """Return epochs, tests and end of a run of so many epochs, and what was left out or is doubtful, in words."""
    if not path.is_file():
        return (), (), None, []
    epochs: dict[int, dict[str, Any]] = {}
    tests: list[dict[str, Any]] = []
    end = None
    lines, cut = json_lines(path)
    notes = [cut] if cut else []
    for where, event in lines:
        check_types(event, {"event": str}, f"{where}: ")
        if event["event"] == "epoch":
            check_types(event, {"epoch": int}, f"{where}: ")
            if not 1 <= event["epoch"] <= length:
                notes.append(f"{where}: epoch {event['epoch']} is none of the {length}, and left out")
                continue
            if event["epoch"] in epochs:
                notes.append(f"{where}: epoch {event['epoch']} comes again, and counts in place of the one before")
            epochs[event["epoch"]] = event
            end = None  # a finished run that was taken further is unfinished again
        elif event["event"] == "test":
            check_types(event, _TEST, f"{where}: ")
            tests.append(event)
            notes += [f"{where}: {doubt}" for doubt in _doubts(event, length)]
        elif event["event"] == "end":
            end = event
        elif event["event"] not in _NOT_SHOWN:
            notes.append(f"{where}: an event {event['event']!r:.40} is not known, and left out")
    last = length if end else max(epochs, default=0)
    if missing := last - len(epochs):
        first = next(number for number in count(1) if number not in epochs)
        notes.append(f"{path}: {missing} of {last} epochs have no record, the first of them epoch {first}")
    return tuple(epochs[key] for key in sorted(epochs)), tuple(tests), end, notes


def _doubts(test: dict[str, Any], length: int) -> Iterator[str]:
    """Yield what of a test does not count, and why."""
    if test.get("epoch", length) != length:
        yield f"a test of epoch {test['epoch']} is left out: numbers are those of the last, {length}"
    if texts := [name for name, value in test.items() if name not in NOT_METRICS and not is_number(value)]:
        yield f"{texts[0]}: expected a number, got {test[texts[0]]!r:.40}, and is left out"
    elif not (found := metrics_of(test)):
        yield "a test without any metric is left out"
    elif high := [name for name, value in found.items() if metric(name).unit == "%" and (value < 0 or value > 1)]:
        yield f"{high[0]}: expected a share from 0 to 1, got {found[high[0]]:g}, which tables show as it is"


def _read_pictures(folder: Path) -> tuple[Picture, ...]:
    captions = _object(folder / "captions.json")
    found = []
    for path in sorted(folder.glob("*.png")):
        with path.open("rb") as file:
            size = png_size(file.read(24))
        if size is None:
            raise ValueError(f"{path}: not a PNG picture")
        found.append(Picture(path, str(captions.get(path.name, path.stem)), *size))
    return tuple(found)


def png_size(head: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG picture from its first 24 bytes; None of anything else."""
    if len(head) < 24 or not head.startswith(_PNG):
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _read_evaluations(folder: Path, tests: Sequence[dict[str, Any]]) -> tuple[dict[str, Evaluation], list[str]]:
    """Return the figures that belong to the newest tests, by suite, and what does not fit together, in words."""
    newest = {event.get("suite"): event for event in tests if event.get("network") is None}
    kept, notes = {}, []
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
        else:
            notes.append(f"{path}: its figures are left out, as no test has its weights and settings")
    suites: dict[str, list[str]] = {}
    for suite, test in newest.items():
        suites.setdefault(str(test.get("weights") or ""), []).append(str(suite or "accuracy"))
    suites.pop("", None)
    if len(suites) > 1:
        groups = " but not of ".join(", ".join(names) for names in suites.values())
        notes.append(f"{folder.parent}: tests are of different weights, those of {groups}: measure it --again")
    return kept, notes
