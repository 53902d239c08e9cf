"""The folder of a training run, and what its network knows of the data."""

from dataclasses import dataclass
from pathlib import Path

from multimix.lab._code import Code, digests
from multimix.lab.data import Splits
from multimix.lab.runs.codec import code_of
from multimix.lab.runs.folder import Folder, describe_config
from multimix.lab.train.config import TrainConfig


@dataclass(frozen=True)
class Facts:
    """What a network knows of its training data: classes by logit, shape (c, h, w), how pixels in [0, 1] are scaled."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, splits: Splits) -> "Facts":
        """Return those of a data set."""
        return cls(splits.classes, splits.shape, splits.mean, splits.std)

    def check(self, splits: Splits) -> None:
        """Raise ValueError unless a data set has the classes and the images that the network was trained for."""
        if splits.classes != self.classes:
            ours, theirs = (
                f"{len(classes)} classes ({', '.join(classes[:4])}{', ...' * (len(classes) > 4)})"
                for classes in (self.classes, splits.classes)
            )
            raise ValueError(f"the run was trained on {ours}, but data {splits.name} has {theirs}")
        if splits.shape != self.shape:
            raise ValueError(
                f"the run was trained on images (c, h, w) = {self.shape}, but those of data {splits.name} are"
                f" {splits.shape}"
            )


class RunFolder(Folder):
    """The files of one training run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.averaged = path / "ema.safetensors"
        self.evaluation = path / "evaluation"
        self.figures = path / "pictures"

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
            return None if given is None else Facts(**{name: tuple(value) for name, value in given.items()})

    def check_same(self, config: TrainConfig) -> None:
        """Raise ValueError if the folder holds a run with another configuration, or made by another user's file."""
        if not self.config_file.is_file():
            return
        there, wanted = describe_config(self.read_config()), describe_config(config)
        with self.reading() as whole:
            known, files = dict(whole.get("code") or {}), digests(code_of(config.method, config.data))
        changed = [f"with another {n} ({there.get(n)!r}, not {w!r})" for n, w in wanted.items() if there.get(n) != w]
        changed += [f"of another {n} (sha256 {known.get(n)}, not {d})" for n, d in files.items() if known.get(n) != d]
        if changed:
            raise ValueError(f"run folder {self.path} holds a run {changed[0]}; give another --out")
