"""A run over sixty photos of three colours, of several shapes and modes, that knows what it was trained on."""

from pathlib import Path

import pytest

from multimix.lab.train import train
from photos import photos
from train.tiny import tiny


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    return photos(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="session")
def run(tmp_path_factory, colours) -> Path:
    config = tiny(data=f"folder:{colours}", train_size=None, image_size=16, epochs=6, batch_size=8, width=8, seed=1)
    return train(config, tmp_path_factory.mktemp("runs") / "colours", quiet=True).path
