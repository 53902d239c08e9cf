"""Help texts and lists come without torch, and say what they would say with it."""

import json
import os
import re
import subprocess
import sys

import pytest

TELL = ["list", "train --help", "train digits --help", "compare --help", "evaluate --help", "detect coco --help"]
HEAVY = ["torch", "numpy", "torchvision", "timm", "sklearn", "scipy", "lightning_fabric", "matplotlib"]
CALL = """
import json, sys
from multimix.__main__ import main
for line in sys.argv[1:]:
    code = main(line.split())
    print(json.dumps([code, sorted({*HEAVY, "multimix.methods"} & set(sys.modules))]))
"""


def call(*lines, first=""):
    """What a process prints for command lines, each followed by its exit code and what it has imported."""
    code = f"{first}\nHEAVY = {HEAVY}\n{CALL}"
    environment = {**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", code, *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def real():
    """What each line says where torch is there already, and nothing stands in for it."""
    told: list[list[str]] = [[]]
    for row in call(*TELL, first="import torch"):
        if re.match(r"\[\d, \[", row):
            told.append([])
        else:
            told[-1].append(row)
    return dict(zip(TELL, told, strict=False))


@pytest.mark.parametrize("line", TELL)
def test_help_needs_no_torch_and_is_that_of_the_real_classes(line, real):
    *told, end = call(line)
    assert json.loads(end) == [0, []]
    assert told == real[line]
    assert len(told) > 10


def test_a_wrong_name_is_an_error_of_the_real_classes():
    *told, end = call("train digitz --help")
    code, imported = json.loads(end)
    assert (told, code) == ([], 2)
    assert "torch" in imported


def test_nothing_of_the_stand_ins_stays_behind():
    code = """
import sys
from multimix.lab.cli._standins import standins
with standins():
    from multimix.methods import MultiMix as light
import torch
from multimix.methods import MultiMix
assert MultiMix is not light and torch.ones(2).sum() == 2
with standins():
    from multimix.methods import MultiMix as same
assert same is MultiMix
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
