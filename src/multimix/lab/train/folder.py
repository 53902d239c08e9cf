"""The folder of a training run, and what its network knows of the data."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimix import ops
from multimix.lab._code import Code, digests
from multimix.lab.data import Files, Splits, classes_told, difference, identity
from multimix.lab.data._files import EVALUATION_RATIO, SMALL_SIDE
from multimix.lab.runs.codec import code_of, from_json
from multimix.lab.runs.folder import Folder, describe_config
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.objective import in_numbers


@dataclass(frozen=True)
class Facts:
    """What a network knows of its training data: classes by logit, shape (c, h, w), how pixels in [0, 1] are scaled."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ratio: float = 1.0
    """Of the scaled shorter side of an image to the centre square that is cut out of it."""

    @classmethod
    def of(cls, splits: Splits) -> "Facts":
        """Return those of a data set."""
        ratio = EVALUATION_RATIO if isinstance(splits.train, Files) else 1.0
        return cls(splits.classes, splits.shape, splits.mean, splits.std, ratio)

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "Facts":
        """Return those that a run wrote down; an old one did so without the ratio, which its size tells as a rule."""
        ratio = EVALUATION_RATIO if max(written["shape"][1:]) > SMALL_SIDE else 1.0
        rows = {name: tuple(value) for name, value in written.items() if name != "ratio"}
        return cls(**rows, ratio=written.get("ratio", ratio))

    def check(self, splits: Splits) -> None:
        """Raise ValueError unless a data set has the classes and the images that the network was trained for."""
        if splits.classes != self.classes:
            ours, theirs = classes_told(self.classes), classes_told(splits.classes)
            raise ValueError(f"the run was trained on {ours}, but data {splits.name} has {theirs}")
        if splits.shape != self.shape:
            raise ValueError(
                f"the run was trained on images (c, h, w) = {self.shape}, but those of data {splits.name} are"
                f" {splits.shape}"
            )


def described(splits: Splits) -> dict[str, Any]:
    """Return what a run writes down of its data: its splits, what reading them said, and where relative paths begin."""
    return {"splits": identity(splits), "notes": list(splits.notes), "from": str(Path.cwd())}


class RunFolder(Folder):
    """The files of one training run."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.averaged = self.path / "ema.safetensors"
        self.evaluation = self.path / "evaluation"
        self.figures = self.path / "pictures"

    def read_config(self, code: Code | None = None) -> TrainConfig:
        """Return the configuration of the run; without its code, a method of a user's own stands for itself, unrun."""
        return self.read_as(TrainConfig, code)

    def read_trusted(self, *, trust_code: bool) -> TrainConfig:
        """Return the configuration with all that it needs of the user's own code."""
        return self.read_config(self.read_code("method", "data", trust_code=trust_code))

    def read_facts(self) -> Facts | None:
        """Return what the run's network knows of its data; None of a run that did not write it down."""
        with self.reading() as whole:
            given = whole.get("trained_on")
            return None if given is None else Facts.read(given)

    def read_objective(self) -> ops.CrossEntropy | ops.BinaryCrossEntropy:
        """Return what the run's network is trained for; cross-entropy of a run that did not write it down."""
        with self.reading() as whole:
            return in_numbers(from_json(whole["objective"])) if "objective" in whole else ops.CrossEntropy()

    def read_data(self) -> dict[str, Any]:
        """Return what the run wrote down of its data, as :func:`described` has it; nothing if it is an old one."""
        with self.reading() as whole:
            return dict(whole.get("data") or {})

    def changes_of_data(self, splits: Splits) -> str | None:
        """Return how data differ from those of the run, in one line; None where they do not or it is not known."""
        if known := self.read_data().get("splits"):
            return difference(known, identity(splits))
        return "when it began, images were held out by their places, now by their names" if splits.by_name else None

    def check_data(self, splits: Splits, advice: str) -> None:
        """Raise ValueError unless data are those that the run has had from its beginning."""
        if changes := self.changes_of_data(splits):
            raise ValueError(
                f"data {splits.name} are not those that run {self.path} was trained on: {changes}; {advice}"
            )

    def move_data(self, config: TrainConfig) -> None:
        """Let the run find its data where a configuration has them from now on."""
        with self.reading() as whole:
            moved = {**whole["config"], "data": config.data, "root": config.root}
            self.write_json(self.config_file, {**whole, "config": moved})

    def extend(self, epochs: int) -> None:
        """Let the run go on to more epochs; what a finished one came to is kept in ``after-N-epochs``."""
        with self.reading() as whole:
            done, before = whole["config"]["epochs"], list(whole.get("extended", ()))
            if self.finished:
                kept = self.path / f"after-{done}-epochs"
                kept.mkdir(exist_ok=True)
                for file in (self.config_file, self.environment_file, self.metrics.path):
                    shutil.copy2(file, kept)
                self.metrics.keep(lambda event: event["event"] == "epoch")
                for path in (self.weights, self.averaged, self.evaluation, self.figures):
                    if path.exists():
                        path.replace(kept / path.name)
            longer = {**whole["config"], "epochs": epochs}
            self.write_json(self.config_file, {**whole, "config": longer, "extended": [*before, done]})

    def check_same(self, config: TrainConfig, load: Callable[[TrainConfig], Splits], *, extend: bool = False) -> None:
        """Raise ValueError if the folder holds a run with another configuration, or made by another user's file.

        The same data may lie elsewhere, for which they are loaded and where the run finds them from now on; with
        ``extend`` the run may have fewer epochs.
        """
        if not self.config_file.is_file():
            return
        there, wanted = (describe_config(each) for each in (self.read_config(), config))
        with self.reading() as whole:
            known, files = dict(whole.get("code") or {}), digests(code_of(config.method, config.data))
        if extend and there["epochs"] < wanted["epochs"]:
            there["epochs"] = wanted["epochs"]
        places = ("data", "root")
        if not files and any(there[n] != wanted[n] for n in places) and self.read_data():
            self.check_data(load(config), "give another --out")
            self.move_data(config)
            there |= {n: wanted[n] for n in places}
        changed = [f"with another {n} ({there.get(n)!r}, not {w!r})" for n, w in wanted.items() if there.get(n) != w]
        changed += [f"of another {n} (sha256 {known.get(n)}, not {d})" for n, d in files.items() if known.get(n) != d]
        if changed:
            further = there["epochs"] < wanted["epochs"]
            advice = f"give another --out{', or take it further with --extend' if further else ''}"
            raise ValueError(f"run folder {self.path} holds a run {changed[0]}; {advice}")
