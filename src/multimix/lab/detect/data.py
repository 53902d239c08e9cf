"""The images of a detection run."""

from dataclasses import dataclass

import torch

from multimix.lab.data.boxes import BoxBatches, BoxSet, load_boxes
from multimix.lab.detect.config import DetectConfig
from multimix.lab.evaluate.detection import require_coco


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

    def measured(self, config: DetectConfig) -> dict[str, BoxSet]:
        """Return the sets that a run is measured on, by what it calls them."""
        return {"test": self.test, **({"train": self.train} if config.evaluate_train else {})}


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
