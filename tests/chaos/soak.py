"""A long run whose memory stays where it is."""

from pathlib import Path
from typing import Any

import torch

from multimix.distill import SelfDistilled
from multimix.lab.runs.loop import LossLog
from multimix.lab.train import Engine
from multimix.lab.train.network import load_data
from multimix.methods import Alternate, CutMix, DenseMultiMix, MultiMix
from train.tiny import tiny

BAR = 0.01
"""How much memory may grow, as a share of what the process holds."""


def run(steps: int = 5000) -> dict[str, Any]:
    """Train so many steps and return the record: resident memory after a tenth of them, and at the end."""
    torch.set_num_threads(1)
    both = Alternate((MultiMix(tuples=100), DenseMultiMix(tuples=20), CutMix()))
    config = tiny(method=SelfDistilled(both), ema=0.99, train_size=640, epochs=10**6)
    engine, log = Engine(config, load_data(config)), LossLog()
    seen: list[float] = []
    done = 0
    while done < steps:
        for inputs, targets in engine.epoch():
            total, terms = engine.step(inputs, targets)
            log.add(total, terms, len(targets))
            log.look()
            done += 1
            if done % max(1, steps // 50) == 0:
                seen.append(resident_mib())
        engine.end_epoch()
    warm = seen[len(seen) // 10 :]
    early, late = max(warm[: len(warm) // 3]), max(warm[-len(warm) // 3 :])
    return {
        "event": "soak",
        "steps": done,
        "early_mib": round(early, 1),
        "late_mib": round(late, 1),
        "growth": round(late / early - 1, 5),
        "bar": BAR,
        "passed": late / early - 1 < BAR,
    }


def resident_mib() -> float:
    """Return what the process holds in memory, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20
