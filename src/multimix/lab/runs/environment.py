"""Where and with what a run takes place, and how it is told to stop."""

import ctypes
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    *("multimix", "torch", "torchvision", "lightning-fabric", "timm", "numpy", "scikit-learn", "torchmetrics"),
    "faster-coco-eval",
)


def describe(device: torch.device) -> dict[str, Any]:
    """Return versions, device, commit, date and command line: what a record needs to be repeated."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in _PACKAGES},
        "torch": torch.__version__,  # with its build, as test records have it
        "device": device.type,
        "device_name": _device_name(device),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "commit": commit(),
        "date": now(),
        "command": " ".join(["multimix", *sys.argv[1:]]) if Path(sys.argv[0]).name == "multimix" else None,
    }


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def commit() -> str | None:
    """Return the commit of the checkout this runs from, ``-dirty`` if the package changed since; None outside one."""
    here = Path(__file__).resolve().parent
    head = _git(here, "rev-parse", "--short=12", "HEAD")
    if head is None or _git(here, "ls-files", "--error-unmatch", __file__) is None:
        return None
    changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", str(here.parent))
    return f"{head}-dirty" if changed else head


def peak_mib(device: torch.device) -> float:
    """Return the most memory held so far, in MiB: of the device if it is a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory does not suffice, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)  # torch has no class for this one


def device_named(name: str) -> torch.device:
    """Return the device that a configuration names: auto, cpu, cuda or cuda:N."""
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    there = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= there:
        raise ValueError(f"device {name!r} is not there: torch sees {there} CUDA device{'s' * (there != 1)}")
    on_gpu = kind == "cuda" or (kind == "auto" and there > 0)
    return torch.device("cuda", int(index or 0)) if on_gpu else torch.device("cpu")


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free: pages that it gives back are zeroed anew, up to a quarter of a step's time."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: up to this size memory comes from the heap
        library.mallopt(-1, -1)  # M_TRIM_THRESHOLD: and the heap keeps all of it


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


class Terminated(SystemExit):
    """A run was asked to stop, and did so behind a checkpoint; batch systems expect the signal's exit code, 143."""

    def __init__(self, said: str, code: int) -> None:
        super().__init__(code)
        self.said = said


@contextmanager
def sigterm_noted() -> Iterator[threading.Event]:
    """Set an event when the process is sent SIGTERM, as by a batch system before it takes the machine away."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # to which Python's signals belong
        yield came
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
