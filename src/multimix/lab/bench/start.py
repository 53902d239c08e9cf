"""What it takes before anything is done: imports, and commands that only say what there is, in fresh interpreters."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import torch

from multimix.lab.bench.timing import Case, Comparison

COMMANDS = ("train", "predict", "export", "evaluate", "detect", "compare", "report", "bench", "data")
"""Commands whose help is timed beside ``multimix list``."""


def start_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons of starts; they are the same on every device."""
    return [imports, commands]


def imports() -> Comparison:
    """Compare importing torch alone with importing multimix too, and making the loss."""
    alone = Case("import torch", python("-c", "import torch"))
    ours = python("-c", "import torch, multimix; multimix.MultiMixLoss()")
    case = Case("import multimix and MultiMixLoss(), beyond that", ours, seconds_most=0.2)
    return Comparison("start of a script", {}, alone, (case,), rounds=11, less=alone, apart=True)


def commands() -> Comparison:
    """Compare commands that only tell with an interpreter that does nothing."""
    lines = (("list",), *((name, "--help") for name in COMMANDS))
    cases = [Case(" ".join(("multimix", *line)), python("-m", "multimix", *line), seconds_most=1.0) for line in lines]
    return Comparison("start of a command", {}, Case("python alone", python("-c", "")), tuple(cases), 11, apart=True)


def python(*arguments: str) -> Callable[[], object]:
    """Return a call that runs a fresh interpreter, with modules compiled by an earlier one, as pip leaves them."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return partial(subprocess.run, [sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, env=kept)
