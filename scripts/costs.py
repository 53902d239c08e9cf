"""Run ``make demo`` and ``make test`` once each, and write what they cost; ``multimix bench`` has everything smaller.

Run, on a machine that does nothing else::

    python scripts/costs.py --out benchmarks/commands.jsonl
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import torch

from multimix.lab.runs.environment import describe

BARS = {"demo": ("cpu", 200), "test": ("wall", 480)}
"""The most seconds, of which time, that each target may take on two cores."""


def cost(target: str) -> dict[str, float | int]:
    """Run a target and return its exit code, its wall time, and the CPU time of all its processes."""
    before, started = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    code = subprocess.run(["make", target], check=False).returncode
    after, wall = getrusage(RUSAGE_CHILDREN), time.perf_counter() - started
    return {
        "exit_code": code,
        "wall_seconds": wall,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def main() -> int:
    """Measure and write, and keep the records of other targets; one that fails is said to have failed, and has none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of records (JSON lines) to write")
    parser.add_argument("--targets", nargs="+", choices=BARS, default=list(BARS))
    given = parser.parse_args()
    where = describe(torch.device("cpu"))
    about = {key: where[key] for key in ("device", "device_name", "cpus", "torch", "multimix", "commit", "date")}
    found = {target: cost(target) for target in given.targets}
    done = [
        json.dumps({"command": f"make {target}", **spent, "bar": BARS[target], **about})
        for target, spent in found.items()
        if spent["exit_code"] == 0
    ]
    for target, spent in found.items():
        how = "done" if spent["exit_code"] == 0 else f"failed with {spent['exit_code']}"
        print(f"make {target}: {how} in {spent['wall_seconds']:.0f} s, CPU {spent['cpu_seconds']:.0f} s")
    before = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    others = [line for line in before if json.loads(line)["command"].removeprefix("make ") not in found]
    given.out.write_text("".join(f"{line}\n" for line in (*others, *done)), encoding="utf-8")
    return int(len(done) < len(found))


if __name__ == "__main__":
    sys.exit(main())
