"""Files as a user would write them: a method with a neighbour, data, a recipe."""

from pathlib import Path

HELPER = "STRENGTH = 0.3\n"
METHOD = '''
import os
import signal
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from helper import STRENGTH
from multimix.protocols import Losses

steps = 0


@dataclass(frozen=True)
class MyMix:
    """Every image with one other."""

    name: ClassVar[str] = "my-mix"
    share: float = STRENGTH
    """Of the other image."""

    def __call__(self, network, inputs, targets, *, generator=None, teacher=None):
        global steps
        steps += 1
        if steps == int(os.environ.get("DIES_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
        order = torch.randperm(len(inputs), generator=generator)
        logits = network((1 - self.share) * inputs + self.share * inputs[order])
        own, other = cross_entropy(logits, targets), cross_entropy(logits, targets[order])
        return Losses((1 - self.share) * own + self.share * other)
'''
DATA = """
import numpy as np


def load():
    labels = np.arange(200) % 2
    images = np.random.default_rng(0).random((200, 8, 8)) / 2 + labels[:, None, None] * 0.4
    return dict(
        train_images=images[:150], train_labels=labels[:150], test_images=images[150:], test_labels=labels[150:]
    )
"""
RECIPE = """
from dataclasses import replace

from multimix.lab.recipes import digits


def small():
    return replace(digits(), width=2, strides=(1, 2, 2, 2), epochs=1, batch_size=25, train_size=100, device="cpu")
"""
FILES = {"helper.py": HELPER, "my_mix.py": METHOD, "my_data.py": DATA, "my_recipe.py": RECIPE}
TOLD = """
from pathlib import Path

Path("was-run").touch()
"""
"""What a file does that nobody should run."""


def lay(folder: Path, **changes: str) -> None:
    """Write the files, or others in their place, by name without suffix."""
    folder.mkdir(exist_ok=True)
    for name, text in {**FILES, **{f"{name}.py": text for name, text in changes.items()}}.items():
        (folder / name).write_text(text)
