"""The folder of a detection run: like a training run's, with another configuration."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from multimix import __version__
from multimix.lab.detect.config import DetectConfig
from multimix.lab.train import TrainConfig, from_json, to_json
from multimix.lab.train.folder import Facts, RunFolder


@dataclass(frozen=True)
class Origin:
    """The training run that a backbone is from, as far as building it again takes."""

    config: TrainConfig
    """How it was trained."""
    facts: Facts
    """What its network knows of its data."""
    weights: str
    """Digest of its weights."""


class DetectFolder(RunFolder):
    """The files of one detection run."""

    def begin(self, config: DetectConfig, origin: Origin, classes: tuple[str, ...]) -> None:
        """Make the folder and write the configuration, with all that building the detector again takes.

        Raises:
            FileExistsError: If the folder holds anything already.
            OSError: If it cannot be written.
        """
        self.claim()
        self.write_json(
            self.config_file,
            {
                "multimix": __version__,
                "recipe": config.recipe,
                "config": {**to_json(config), "label": config.title},
                "classes": classes,
                "backbone": {
                    "config": to_json(origin.config),
                    "trained_on": asdict(origin.facts),
                    "weights": origin.weights,
                },
            },
        )

    def read_detection(self) -> tuple[DetectConfig, Origin, tuple[str, ...]]:
        """Return what :meth:`begin` wrote.

        Raises:
            FileNotFoundError: If this is not a run folder.
            ValueError: If its configuration is damaged or that of another kind of run.
        """
        try:
            whole = self._read()
            return _config(whole["config"]), _origin(whole["backbone"]), tuple(map(str, whole["classes"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{self.config_file} is not that of a detection run: {error}") from error


def _config(given: dict[str, Any]) -> DetectConfig:
    if given.get("type") != "DetectConfig":
        raise ValueError(f"it holds a {given.get('type')}, not a DetectConfig")
    values = {name: from_json(value) for name, value in given.items() if name != "type"}
    if unknown := sorted(set(values) - {f.name for f in fields(DetectConfig)}):
        raise ValueError(f"DetectConfig has no field {', '.join(unknown)}")
    return DetectConfig(**values)


def _origin(given: dict[str, Any]) -> Origin:
    config = from_json(given["config"])
    if not isinstance(config, TrainConfig):
        raise ValueError("its backbone has no training configuration")
    facts = Facts(**{name: tuple(value) for name, value in given["trained_on"].items()})
    return Origin(config, facts, str(given["weights"]))
