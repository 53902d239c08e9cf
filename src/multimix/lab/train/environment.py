"""Where and with what a run took place."""

import os
import platform
import resource
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("multimix", "torch", "torchvision", "lightning-fabric", "timm", "numpy", "scikit-learn", "torchmetrics")


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
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["multimix", *sys.argv[1:]]) if Path(sys.argv[0]).name == "multimix" else None,
    }


def commit() -> str | None:
    """Return the commit of the checkout this runs from, ``-dirty`` if the package changed since; None outside one."""
    here = Path(__file__).resolve().parent
    head = _git(here, "rev-parse", "--short=12", "HEAD")
    if head is None or _git(here, "ls-files", "--error-unmatch", __file__) is None:
        return None
    return head + (
        "-dirty" if _git(here, "status", "--porcelain", "--untracked-files=no", "--", str(here.parent)) else ""
    )


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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
