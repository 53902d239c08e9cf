"""The folder of a detection run, and the images that it is about."""

from dataclasses import dataclass
from typing import Any

import torch

from multimix.lab.data.boxes import BoxBatches, BoxSet, load_boxes
from multimix.lab.detect.config import DetectConfig
from multimix.lab.evaluate.detection import require_coco
from multimix.lab.runs.codec import from_json, to_json
from multimix.lab.runs.folder import Folder
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import Facts


@dataclass(frozen=True)
class Origin:
    """The training run that a backbone is from, as far as building it again takes."""

    config: TrainConfig
    """How it was trained."""
    facts: Facts
    """What its network knows of its data."""
    weights: str
    """Digest of its weights."""

    def described(self) -> dict[str, Any]:
        """Return this as JSON."""
        return {"config": to_json(self.config), "trained_on": vars(self.facts), "weights": self.weights}


class DetectFolder(Folder):
    """The files of one detection run."""

    def read_detection(self) -> tuple[DetectConfig, Origin, tuple[str, ...]]:
        """Return configuration, origin of the backbone and names of the classes.

        Raises:
            FileNotFoundError: If this is not a run folder.
            ValueError: If its configuration is damaged or that of another kind of run.
        """
        config = self.read_as(DetectConfig)
        with self.reading() as whole:
            given = whole["backbone"]
            facts = Facts(**{name: tuple(value) for name, value in given["trained_on"].items()})
            return config, Origin(_trained(given["config"]), facts, str(given["weights"])), tuple(whole["classes"])


def _trained(given: Any) -> TrainConfig:
    config = from_json(given)
    if not isinstance(config, TrainConfig):
        raise ValueError("its backbone has no training configuration")
    return config


@dataclass(frozen=True)
class BoxSplits:
    """What a run trains and is measured on."""

    train: BoxSet
    """All training images and all their objects."""
    test: BoxSet
    """The images to measure on."""

    @property
    def notes(self) -> list[str]:
        """Return what was left out or mended."""
        return list(dict.fromkeys([*self.train.trainable().notes, *self.test.notes]))


def load_splits(config: DetectConfig) -> BoxSplits:
    """Return the configured images.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is damaged, the two splits have different classes, or a package is missing.
    """
    train = load_boxes(config.data, config.train_split)
    test = load_boxes(config.test_data or config.data, config.test_split, classes=train.classes)
    if "coco" in (train.rule, test.rule):
        require_coco()
    return BoxSplits(train, test)


def batches_of(
    config: DetectConfig, boxes: BoxSet, *, channels: int, device: torch.device, train: bool = False
) -> BoxBatches:
    """Return the batches to train on, or those to measure on."""
    return BoxBatches(
        boxes,
        batch_size=config.batch_size,
        channels=channels,
        seed=config.seed,
        shuffle=train,
        flip=train and config.flip,
        device=device,
        workers=config.workers,
    )
