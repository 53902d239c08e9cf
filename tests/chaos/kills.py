"""Runs that are killed at random moments, again and again, and end as if they never had been."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from multimix.distill import SelfDistilled
from multimix.lab.train import AdamW, TrainConfig, resume, train
from multimix.methods import ERM, Alternate, ManifoldMixup, MultiMix
from parallel.together import SERVER
from train.tiny import tiny, weights

CONFIGS = {
    "erm": tiny(epochs=3),
    "multimix": tiny(method=MultiMix(tuples=20), epochs=3, checkpoint_steps=1),
    "distilled": tiny(method=SelfDistilled(MultiMix(tuples=20), warmup=True), ema=0.9, epochs=3, checkpoint_steps=2),
    "accumulated": tiny(
        method=Alternate((ManifoldMixup(), ERM())), accumulate=3, optimizer=AdamW(), checkpoint_steps=1
    ),
}
_ENOUGH = 60.0
"""Seconds that no attempt takes."""


def run(folder: Path, *, kills: int = 50, seed: int = 0) -> dict[str, Any]:
    """Kill runs at random moments until so many kills have hit one, resume each, and return the record."""
    dice = random.Random(seed)
    counts: Counter[str] = Counter()
    whole: dict[str, tuple[bytes, float]] = {}
    while counts["kills"] < kills:
        name = dice.choice(list(CONFIGS))
        if name not in whole:
            whole[name] = _uninterrupted(CONFIGS[name], folder / "whole" / name)
        expected, seconds = whole[name]
        path = folder / f"{counts['runs']}"
        hits = _until_finished(CONFIGS[name], path, seconds, dice, most=min(3, kills - counts["kills"]), counts=counts)
        same = weights(path) == expected
        counts.update(runs=1, kills=hits, identical=int(same), kills_identical=hits * int(same))
        shutil.rmtree(path)
    return {
        "event": "kills",
        "kills": counts["kills"],
        "sigkill": counts["SIGKILL"],
        "sigterm": counts["SIGTERM"],
        "sigterm_behind_a_checkpoint": counts["behind a checkpoint"],
        "runs": counts["runs"],
        "runs_identical": counts["identical"],
        "kills_resumed_to_identical_weights": counts["kills_identical"],
        "seed": seed,
        "passed": counts["kills_identical"] == counts["kills"],
    }


def _uninterrupted(config: TrainConfig, path: Path) -> tuple[bytes, float]:
    started = time.perf_counter()
    code = _attempt(config, path, None, signal.SIGKILL)
    if code != 0:
        raise RuntimeError(f"an undisturbed run ended with {code}")
    return weights(path), time.perf_counter() - started


def _until_finished(
    config: TrainConfig, path: Path, seconds: float, dice: random.Random, *, most: int, counts: Counter[str]
) -> int:
    """Bring a run to its end, killed at most so often on the way, and return how often it was."""
    hits = 0
    while True:
        kind = dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        code = _attempt(config, path, dice.uniform(0, seconds) if hits < most else None, kind)
        if code == 0:
            return hits
        if code not in (-kind, 128 + kind):
            raise RuntimeError(f"a run ended by itself with {code}")
        hits += 1
        counts[kind.name] += 1
        counts["behind a checkpoint"] += code == 128 + signal.SIGTERM


def _attempt(config: TrainConfig, path: Path, after: float | None, kind: signal.Signals) -> int:
    """Begin or resume a run, send it a signal after so many seconds, and return its exit code."""
    process = SERVER.Process(target=_go_on, args=(config, path))
    process.start()
    process.join(after if after is not None else _ENOUGH)
    if process.exitcode is None:
        with suppress(ProcessLookupError):  # it may have ended just now
            os.kill(process.pid, kind if after is not None else signal.SIGKILL)
        process.join(_ENOUGH)
    code = process.exitcode
    process.close()
    if code is None:
        raise TimeoutError(f"a run did not end within {_ENOUGH} s after {kind.name}")
    return code


def _go_on(config: TrainConfig, path: Path) -> None:
    torch.set_num_threads(1)
    if (path / "config.json").is_file():
        resume(path, quiet=True)
    else:
        train(config, path, quiet=True)
