"""Many runs: each trained or resumed, several at the same time, wherever a launcher takes them."""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch
from rich.console import Console

from multimix.lab._code import digests
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import RunFolder, describe_config
from multimix.lab.train.launch import Launch, Launcher
from multimix.lab.train.launch.attempt import Job
from multimix.lab.train.launch.local import Here, Pool
from multimix.lab.train.launch.table import Board, Row, failures
from multimix.lab.train.own import code_of, with_own_data
from multimix.lab.train.parallel import world

_POLL = 1.0
"""Seconds between two looks at how runs go."""


class FailedRunsError(RuntimeError):
    """Some runs did not come to their end."""


def check_same(folder: Path, config: TrainConfig) -> None:
    """Raise ValueError if ``folder`` holds a run with another configuration, or made by another user's file."""
    if not (folder / "config.json").is_file():
        return
    there, wanted = describe_config(RunFolder(folder).read_config()), describe_config(config)
    if there != wanted:
        field = next(name for name in wanted if there.get(name) != wanted[name])
        raise ValueError(
            f"run folder {folder} holds a run with another {field} ({there.get(field)!r}, not {wanted[field]!r});"
            " give another --out"
        )
    known = RunFolder(folder).read_digests()
    for name, digest in digests(code_of(config.method, config.data)).items():
        if known.get(name) != digest:
            raise ValueError(
                f"run folder {folder} holds a run of another {name} (sha256 {known.get(name)}, not {digest});"
                " give another --out"
            )


def run_all(runs: Mapping[Path, TrainConfig], launch: Launch) -> None:
    """Bring every run to its end, several at the same time; those that have ended are left as they are.

    A run that fails, or whose process dies, does not hold up the others: it is resumed up to ``launch.retries`` times.

    Raises:
        ValueError: If a folder holds a run with another configuration, or a run asks for several devices; then none is
            begun. If every run is refused for one and the same reason.
        FailedRunsError: If runs failed in the end; a table on the error stream says why. The same call goes on.
    """
    runs = {folder: with_own_data(config) for folder, config in runs.items()}
    for folder, config in runs.items():
        if world(config) > 1:  # its processes are copies of the command, each of which would fan out once more
            raise ValueError(
                "devices and nodes must be 1 where many runs share the machines, got"
                f" {config.devices} and {config.nodes}; multimix train takes more"
            )
        check_same(folder, config)
    rows = [Row(Job(folder, config)) for folder, config in runs.items()]
    for row in rows:
        row.state = "done" if row.job.finished else "waiting"
    waiting = [row for row in rows if row.state == "waiting"]
    if not waiting:
        return
    with (
        closing(_launcher(launch, waiting)) as launcher,
        Board(rows, quiet=launch.quiet, brief=launcher.speaks) as board,
    ):
        _fan_out(waiting, launcher, board, retries=launch.retries)
    _report(rows)


def fitting_jobs(device: str) -> int:
    """Return how many runs at the same time suit this machine: threads of one run wait for each other, runs do not."""
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return 1 if on_gpu else min(4, os.cpu_count() or 1)


def _launcher(launch: Launch, rows: Sequence[Row]) -> Launcher:
    if launch.launcher == "ray":
        from multimix.lab.train.launch.ray import OnRay

        return OnRay(launch.jobs, {row.job.config.device for row in rows})
    if launch.launcher == "slurm":
        from multimix.lab.train.launch.slurm import OnSlurm

        return OnSlurm(launch.scratch / "slurm", jobs=launch.jobs, options=launch.slurm)
    return Here(quiet=launch.quiet) if launch.jobs == 1 else Pool(launch.jobs)


def _fan_out(rows: Sequence[Row], launcher: Launcher, board: Board, *, retries: int) -> None:
    """Keep the launcher's slots full until no row waits."""
    waiting, underway = deque(rows), dict[Path, Row]()
    while waiting or underway:
        fresh = [waiting.popleft() for _ in range(min(len(waiting), launcher.slots - len(underway)))]
        if fresh:
            launcher.start([row.job for row in fresh])
            underway |= {row.job.folder: row for row in fresh}
        queued = launcher.queued()
        for folder, row in underway.items():
            row.state = "waiting" if folder in queued else "running"
        board.show()
        for folder, failure in launcher.ended(_POLL).items():
            row = underway.pop(folder)
            row.conclude(failure, retries=retries)
            if row.state == "waiting":
                waiting.append(row)
    board.show()


def _report(rows: Sequence[Row]) -> None:
    """Raise if rows failed, after a table of them."""
    failed = [row for row in rows if row.state == "failed"]
    if not failed:
        return
    reasons = {row.failures[-1].reason for row in failed}
    if len(failed) == len(rows) and len(reasons) == 1 and all(row.failures[-1].wrong for row in failed):
        raise ValueError(reasons.pop())
    Console(stderr=True, highlight=False).print(failures(failed))
    raise FailedRunsError(
        f"{len(failed)} of {len(rows)} runs failed; those that finished are kept, and the same command goes on with"
        " the others"
    )
