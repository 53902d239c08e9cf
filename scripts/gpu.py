"""Everything that wants a GPU, in parts of which none can cost another its records; ``make gpu`` calls it.

Tests on the device, the benches, and five methods at full width on CIFAR-10 for a few epochs: eight minutes at most on
one H200. Each part has a limit, and is ended when that or the time of all is over; what a bench has measured by then is
written. A line for each part says at the end how it went, and the exit code is 1 unless all are done.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINUTES = 8
METHODS = ("erm", "mixup", "cutmix", "multimix", "dense-multimix")
PARITY = ("tests/ops", "tests/methods", "tests/distill", "tests/models", "tests/integrations")
LIMITS = {"tests": 80, "ops": 80, "pairs": 20, "compare": 160, "step": 110, "compile": 30}
"""The most seconds of each part."""


def parts(given: argparse.Namespace) -> dict[str, list[list[str]]]:
    """Return the commands of every part."""
    device, runs = given.device, ROOT / "runs" / f"gpu-{time.strftime('%Y%m%d-%H%M%S')}"
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    multimix = [sys.executable, "-m", "multimix"]
    few = ["--rounds", "1", "--threads", "1"] if given.small else []
    benches = {
        name: [[*multimix, "bench", name, "--device", device, *few, "--out", str(given.out / f"{name}-{device}.jsonl")]]
        for name in ("ops", "pairs", "step", "compile")
    }
    settings = ["--data", data(given.data), "--image-size", "32", "--device", device, "--seeds", "1"]
    size = ["--epochs", "1", "--width", "4"] if given.small else ["--epochs", "3", "--precision", "bf16-mixed"]
    compared = ["--methods", *METHODS, *settings, *size, "--jobs", "2", "--out", str(runs), "--quiet"]
    records = ["--records", str(given.out / f"cifar10-{device}.jsonl"), "--out", str(runs / "report.html")]
    tests = ["-n", "8", "-m", "gpu", *PARITY] if device == "cuda" else ["-k", "cpu", "tests/distill"]
    return {
        "tests": [[*pytest, *tests]],
        **{name: benches[name] for name in ("ops", "pairs")},
        "compare": [[*multimix, "compare", "cifar10", *compared], [*multimix, "report", str(runs), *records]],
        **{name: benches[name] for name in ("step", "compile")},
    }


def data(asked: str) -> str:
    """Return a data set that is there: the one asked for, else the digits that come with scikit-learn."""
    path = asked.partition(":")[2]
    if not path or (ROOT / path).exists():
        return asked
    print(f"gpu: {path} is not there, so the methods are compared on digits at 32 pixels", file=sys.stderr)
    return "digits"


def outcome(commands: list[list[str]], seconds: float) -> str:
    """Run commands one after the other, at most so long in all, and say how that went."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))}
    ends = time.monotonic() + seconds
    for command in commands:
        print("gpu:", *command[1:], flush=True)
        running = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        try:
            code = running.wait(max(1, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            return "out of time"
        finally:
            stop(running)
        if code:
            return f"failed, exit code {code}"
    return "done"


def stop(running: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started."""
    try:
        os.killpg(running.pid, signal.SIGTERM)
        time.sleep(1)
        os.killpg(running.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    running.wait()


def main() -> int:
    """Run every part, then say how each went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="one round, one narrow epoch, three times the limits")
    parser.add_argument(
        "--data", default="npz:data/cifar10.npz", help="as multimix train has it (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="folder of the records")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS))
    given = parser.parse_args()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    slack = 3 if given.small else 1
    ends = time.monotonic() + 60 * MINUTES * slack
    lines = []
    for name, commands in parts(given).items():
        if name not in given.parts:
            continue
        started = time.monotonic()
        left = min(slack * LIMITS[name], ends - started)
        said = outcome(commands, left) if left > 0 else "out of time"
        lines.append((said == "done", f"gpu: {name:8} {said}, {time.monotonic() - started:.0f} s"))
    print("\n".join(line for _, line in lines))
    return not all(done for done, _ in lines)


if __name__ == "__main__":
    sys.exit(main())
