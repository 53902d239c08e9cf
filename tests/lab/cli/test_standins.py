"""Help texts and lists come without torch, and say what they would say with it."""

import json
import os
import re
import subprocess
import sys

TELL = ["list", "train --help", "train digits --help", "compare --help", "evaluate --help", "detect coco --help"]
WRONG = "train digitz --help"
HEAVY = ["torch", "numpy", "torchvision", "timm", "sklearn", "scipy", "lightning_fabric", "matplotlib"]
CALL = """
import json, sys
from multimix.__main__ import main
for line in sys.argv[1:]:
    code = main(line.split())
    print(json.dumps([code, sorted({*HEAVY, "multimix.methods"} & set(sys.modules))]))
"""


def call(*lines, first=""):
    """What a process prints for each command line, its exit code and what it has imported by then."""
    code = f"{first}\nHEAVY = {HEAVY}\n{CALL}"
    environment = {**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", code, *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    told: list[list[str]] = [[]]
    for row in done.stdout.splitlines():
        told[-1].append(row)
        if re.match(r"\[\d, \[", row):
            told.append([])
    return {line: (rows[:-1], *json.loads(rows[-1])) for line, rows in zip(lines, told, strict=False)}


def test_help_needs_no_torch_and_is_that_of_the_real_classes():
    light, real = call(*TELL, WRONG), call(*TELL, first="import torch")
    for line in TELL:
        assert light[line] == (real[line][0], 0, [])
        assert len(light[line][0]) > 10
    told, code, imported = light[WRONG]  # an error of the real classes
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
