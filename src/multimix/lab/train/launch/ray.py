"""Runs as tasks of Ray: on this machine, or on the cluster that RAY_ADDRESS names."""

import logging
import os
import sys
from collections.abc import Collection, Sequence
from typing import Any

import torch

from multimix.lab.train.launch.job import Failure, Job, Launcher, Loaded, attempt

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # tasks without a GPU keep CUDA_VISIBLE_DEVICES as it is
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # which the table says in a line
}
"""What Ray reads from the environment when it is imported."""


class OnRay(Launcher):
    """Tasks of Ray, without its own retries, which write into run folders that all machines of the cluster share."""

    def __init__(self, jobs: int, devices: Collection[str]) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError as error:
            raise ValueError("launcher ray needs the package: pip install ray") from error
        self.slots = jobs
        self._ray: Any = ray
        self._own = not ray.is_initialized()
        if self._own:
            here = {
                "num_cpus": os.cpu_count(),
                "num_gpus": torch.cuda.device_count(),
                "include_dashboard": False,
                "object_store_memory": 100 * 2**20,  # bytes, for configurations and lines
            }
            there = {"address": "auto"} if os.environ.get("RAY_ADDRESS") else {"address": "local", **here}
            self._ray.init(logging_level=logging.ERROR, log_to_driver=False, **there)
        try:
            self._share = share(self._ray.nodes(), jobs, devices)
        except ValueError:
            self.close()
            raise
        self._task = self._ray.remote(max_retries=0, **self._share)(_there)
        self._underway: dict[Any, Job] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit jobs."""
        threads = max(1, int(self._share["num_cpus"]))
        for job in jobs:
            task = self._task.remote(job, threads=threads, folder=os.getcwd(), command=sys.argv)
            self._underway[task] = job

    def poll(self, seconds: float) -> dict[Job, Failure | None]:
        """Return the outcome of the tasks that have ended; one whose worker died is a failure."""
        done, _ = self._ray.wait(list(self._underway), timeout=seconds)
        return {self._underway.pop(task): self._outcome(task) for task in done}

    def _outcome(self, task: Any) -> Failure | None:
        try:
            outcome: Failure | None = self._ray.get(task)
        except self._ray.exceptions.WorkerCrashedError:
            return Failure("its Ray worker was killed")
        except self._ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            return Failure(f"{type(error).__name__}: {said[0] if said else ''}".removesuffix(": "))
        return outcome

    def close(self) -> None:
        """Leave Ray, which ends the tasks, and Ray itself where it was begun here."""
        if self._own:
            self._ray.shutdown()


def share(nodes: Sequence[dict[str, Any]], jobs: int, devices: Collection[str]) -> dict[str, float]:
    """Return what each of several jobs at the same time asks Ray for, whose ``ray.nodes()`` are ``nodes``."""
    there = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(node.get("GPU", 0.0) for node in there)
    numbered = sorted(device for device in devices if device.startswith("cuda:"))
    if numbered:
        raise ValueError(f"device {numbered[0]} does not go with Ray, which hands out GPUs itself; give device cuda")
    if "cuda" in devices and not gpus:
        raise ValueError("device cuda was asked for, but no machine of this Ray cluster has a GPU")
    wanted = gpus / jobs if any(device != "cpu" for device in devices) else 0.0
    cpus = sum(node.get("CPU", 0.0) for node in there) / jobs
    widest = max((node.get("CPU", 0.0) for node in there), default=1.0)
    return {"num_cpus": _whole(min(cpus, widest)), "num_gpus": _whole(min(wanted, 1.0))}


def _whole(amount: float) -> float:
    """Return an amount that Ray takes: above 1 only whole numbers, and four digits below."""
    return float(int(amount)) if amount >= 1 else int(amount * 1e4) / 1e4


def _there(job: Job, *, threads: int, folder: str, command: list[str]) -> Failure | None:
    """Attempt a run in a worker of Ray, in the folder and with the command line of whoever asked for it."""
    os.chdir(folder)
    sys.argv = command
    torch.set_num_threads(threads)
    return attempt(job, data=Loaded())
