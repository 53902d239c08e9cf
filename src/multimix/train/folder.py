"""The run folder: what lies in it, and who may write there."""

import json
from pathlib import Path
from typing import Any

from multimix import __version__
from multimix.train.codec import from_json, to_json
from multimix.train.config import TrainConfig
from multimix.train.log import Metrics
from multimix.train.state import replacing


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.environment_file = path / "environment.json"
        self.checkpoint = path / "last.ckpt"
        self.weights = path / "model.safetensors"
        self.pictures = path / "pictures"
        self.metrics = Metrics(path / "metrics.jsonl")

    def create(self, config: TrainConfig) -> None:
        """Make the folder and write the configuration.

        Raises:
            FileExistsError: If the folder holds anything already.
            OSError: If it cannot be written.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise FileExistsError(
                f"run folder {self.path} exists and is not empty; continue it with --resume {self.path},"
                " or give the run another --name"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json(
            self.config_file, {"multimix": __version__, "recipe": config.recipe, "config": describe_config(config)}
        )

    def read_config(self) -> TrainConfig:
        """Return the configuration of the run.

        Raises:
            FileNotFoundError: If this is not a run folder.
            ValueError: If its configuration cannot be read.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(f"there is no run folder {self.path}")
        if not self.config_file.is_file():
            raise FileNotFoundError(f"{self.path} is not a run folder: it has no config.json")
        try:
            config = from_json(json.loads(self.config_file.read_text(encoding="utf-8"))["config"])
        except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.config_file} cannot be read: {error}") from error
        if not isinstance(config, TrainConfig):
            raise ValueError(f"{self.config_file} holds a {type(config).__name__}, not a training configuration")
        return config

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
