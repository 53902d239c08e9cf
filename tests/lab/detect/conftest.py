"""A finished training run and folders of squares, for all who only look at them."""

from pathlib import Path

import pytest

from detect.small import coco_squares, voc_squares
from multimix.lab.train import train
from train.tiny import tiny


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on digits, whose images are grey."""
    config = tiny(epochs=1, width=4, recipe="test")
    return train(config, tmp_path_factory.mktemp("backbone") / "run", quiet=True).path


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("coco")
    coco_squares(folder, "train", 0)
    coco_squares(folder, "val", 1, images=3)
    return f"coco:{folder}"


@pytest.fixture(scope="session")
def voc(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("voc")
    voc_squares(folder, "train", 0)
    voc_squares(folder, "val", 1, images=3)
    return f"voc:{folder}"
