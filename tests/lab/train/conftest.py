"""One finished run for all who only look at it."""

from pathlib import Path

import pytest

from multimix.distill import SelfDistilled
from multimix.lab.train import train
from multimix.methods import MultiMix
from train.tiny import tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of self-distilled MultiMix with a moving average; leave it as it is."""
    config = tiny(method=SelfDistilled(MultiMix(tuples=20), warmup=True), ema=0.5, seed=4, recipe="test")
    return train(config, tmp_path_factory.mktemp("finished") / "run", quiet=True).path
