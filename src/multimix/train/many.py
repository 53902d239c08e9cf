"""Many runs: each trained or resumed, several at the same time."""

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from time import sleep

import torch

from multimix.data import Splits
from multimix.train.config import TrainConfig
from multimix.train.folder import RunFolder, describe_config
from multimix.train.run import load_data, resume, same_data, train


def check_same(folder: Path, config: TrainConfig) -> None:
    """Raise ValueError if ``folder`` holds a run with another configuration."""
    if not (folder / "config.json").is_file():
        return
    there, wanted = describe_config(RunFolder(folder).read_config()), describe_config(config)
    if there != wanted:
        field = next(name for name in wanted if there.get(name) != wanted[name])
        raise ValueError(
            f"run folder {folder} holds a run with another {field} ({there.get(field)!r}, not {wanted[field]!r});"
            " give another --out"
        )


def run_all(runs: Mapping[Path, TrainConfig], *, jobs: int, quiet: bool) -> None:
    """Bring every run to its end, ``jobs`` of them at the same time; those that have ended are left as they are.

    Raises:
        ValueError: If a folder holds a run with another configuration; then none is begun.
        Exception: Whatever a run raises; runs under way end at their own pace and stay resumable.
    """
    for folder, config in runs.items():
        check_same(folder, config)
    if jobs == 1:
        _in_turn(runs, quiet=quiet)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_share, initargs=(threads,)) as pool:
        waiting = [pool.submit(_run, config, folder, quiet=quiet) for folder, config in runs.items()]
        try:
            for done in as_completed(waiting):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def fitting_jobs(device: str) -> int:
    """Return how many runs at the same time suit this machine: threads of one run wait for each other, runs do not."""
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return 1 if on_gpu else min(4, os.cpu_count() or 1)


def _in_turn(runs: Mapping[Path, TrainConfig], *, quiet: bool) -> None:
    """Run one after the other, and load the data of runs that share them once."""
    known: tuple[TrainConfig, Splits] | None = None
    for folder, config in runs.items():
        if known is None or not same_data(known[0], config):
            known = config, load_data(config)
        _run(config, folder, quiet=quiet, splits=known[1])


def _share(threads: int) -> None:
    """Take only this process' share of the cores: threads that wait for each other cost more than they bring."""
    torch.set_num_threads(threads)
    Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone.

    A worker would go on with what is queued, and a second command would then train the same run at the same time.
    """
    while os.getppid() == parent:
        sleep(1)
    os._exit(1)


def _run(config: TrainConfig, folder: Path, *, quiet: bool, splits: Splits | None = None) -> None:
    if (folder / "config.json").is_file():
        resume(folder, quiet=quiet)
    else:
        train(config, folder, quiet=quiet, splits=splits)
