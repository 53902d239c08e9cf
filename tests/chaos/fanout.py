"""A fan-out of many runs on Ray, one of whose workers is killed amid its run.

``python tests/chaos/fanout.py FOLDER`` prints the record.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

METHODS = ("erm", "multimix")
SEEDS = 4
VICTIM = "multimix-1"
SETTINGS = shlex.split("--train-size 400 --width 8 --epochs 6 --batch-size 50 --checkpoint-steps 5 --device cpu")
"""Of every run: 6 epochs of 6 mini-batches, so that an epoch is long enough to be killed in."""

_MULTIMIX = (sys.executable, "-m", "multimix.lab.cli")


def run(folder: Path) -> dict[str, Any]:
    """Fan out 8 runs into a folder, kill one of the workers, and return the record of what came of it.

    Raises:
        RuntimeError: If the fan-out fails, or its victim ended before it could be killed.
    """
    folder = folder.absolute()
    started = time.perf_counter()
    command = [*_MULTIMIX, "compare", "digits", "--methods", *METHODS, "--seeds", str(SEEDS)]
    launch = ["--launcher", "ray", "--jobs", "2", "--out", str(folder / "runs"), *SETTINGS]
    with (folder / "output.txt").open("w+", encoding="utf-8") as output:
        compare = subprocess.Popen([*command, *launch], stdout=output, stderr=subprocess.STDOUT)
        killed_after = _kill_writer(folder / "runs" / VICTIM, compare)
        code = compare.wait()
        output.seek(0)
        said = output.read()
    if code:
        raise RuntimeError(f"multimix compare ended with exit code {code}: {said}")
    seconds = time.perf_counter() - started
    method, seed = VICTIM.rsplit("-", 1)
    undisturbed = ["train", "digits", "--method", method, "--seed", seed, "--out", str(folder), "--name", "undisturbed"]
    # As many threads as each of the two runs on Ray had: sums are otherwise taken in another order.
    threads = str(max(1, (os.cpu_count() or 1) // 2))
    subprocess.run(
        [*_MULTIMIX, *undisturbed, "--quiet", *SETTINGS],
        env=os.environ | {"OMP_NUM_THREADS": threads},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    weights = [path / "model.safetensors" for path in (folder / "undisturbed", folder / "runs" / VICTIM)]
    record = {
        "event": "fanout",
        "launcher": "ray",
        "runs": len(METHODS) * SEEDS,
        "killed": 1,
        "killed_after_epoch": killed_after,
        "retried": sum(line.endswith(": retry 1") for line in said.splitlines()),
        "finished": sum(_ended(path) for path in (folder / "runs").glob("*/metrics.jsonl")),
        "identical": weights[0].read_bytes() == weights[1].read_bytes(),
        "seconds": round(seconds, 1),
    }
    return {**record, "passed": record["retried"] == 1 and record["finished"] == record["runs"] and record["identical"]}


def _kill_writer(folder: Path, compare: "subprocess.Popen[bytes]") -> int:
    """Kill the process that trains a run amid its course; return how many epochs it had done."""
    checkpoint = folder / "last.ckpt"
    while (epochs := _epochs(folder)) < 2 or not checkpoint.exists() or (pid := _writer(folder)) is None:
        if compare.poll() is not None or _ended(folder / "metrics.jsonl"):
            raise RuntimeError(f"run {folder.name} ended before it could be killed; see {folder.parent.parent}")
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return epochs


def _writer(folder: Path) -> int | None:
    """Return the process that writes into a run folder: it holds the folder open as long as it does."""
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if handle.readlink() == folder:
                return int(handle.parts[2])
        except OSError:  # processes come and go, and some are not ours to look at
            continue
    return None


def _events(metrics: Path) -> list[str]:
    if not metrics.exists():
        return []
    lines = metrics.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line)["event"] for line in lines]


def _epochs(folder: Path) -> int:
    return _events(folder / "metrics.jsonl").count("epoch")


def _ended(metrics: Path) -> bool:
    return "end" in _events(metrics)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    where.mkdir(parents=True, exist_ok=True)
    print(json.dumps(run(where)))
