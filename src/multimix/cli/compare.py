"""``multimix compare``."""

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from multimix.cli._arguments import configured
from multimix.cli._parser import Parser
from multimix.cli.report import reference, report
from multimix.recipes import METHOD_NAMES, RECIPES
from multimix.train import TrainConfig, resume, train
from multimix.train.folder import RunFolder, describe_config
from multimix.train.run import load_data


def main(arguments: list[str]) -> None:
    """Train several methods with several seeds by one recipe, then print the table and write the report."""
    parser = Parser(
        prog="multimix compare",
        usage="multimix compare RECIPE --methods NAME ... [--seeds N] [--jobs N] [--out FOLDER] [--FIELD VALUE ...]",
        description="Train several methods with several seeds by one recipe; finished runs are kept, others resumed.",
    )
    parser.add_argument("recipe", help=", ".join(RECIPES))
    parser.add_argument("--methods", nargs="+", required=True, metavar="NAME", help="see multimix list, or all")
    parser.add_argument("--seeds", type=int, default=3, help="runs a method, with seeds 0, 1, ... (default: 3)")
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at the same time, sharing the CPU's cores (default: 1)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder of the runs and report.html")
    parser.add_argument("--quiet", action="store_true", help="print only the table")
    given, rest = parser.parse_known_args(arguments)
    for name in ("seeds", "jobs"):
        if getattr(given, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(given, name)}")
    names = METHOD_NAMES if given.methods == ["all"] else given.methods
    prog = f"multimix compare {given.recipe}"
    plans = [configured(given.recipe, name, rest, prog=prog) for name in dict.fromkeys(names)]
    # Seeds go round the methods, so that a stop leaves a fair table.
    runs = {folder_of(plan, seed, given.out): replace(plan, seed=seed) for seed in range(given.seeds) for plan in plans}
    if len(runs) < len(plans) * given.seeds:
        raise ValueError("methods are told apart by their labels, so --label does not go with several of them")
    for folder, config in runs.items():
        check_same(folder, config)
    run_all(runs, jobs=given.jobs, quiet=given.quiet)
    folders = [folder_of(plan, seed, given.out) for plan in plans for seed in range(given.seeds)]
    report(folders, given.out / "report.html", paired=reference(folders))


def folder_of(plan: TrainConfig, seed: int, out: Path) -> Path:
    """Return where the run of a plan with a seed lies."""
    return out / f"{plan.title}-{seed}"


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


def run_all(runs: dict[Path, TrainConfig], *, jobs: int, quiet: bool) -> None:
    """Bring every run to its end, ``jobs`` of them at the same time."""
    if jobs == 1:
        splits = load_data(next(iter(runs.values())))
        for folder, config in runs.items():
            if (folder / "config.json").is_file():
                resume(folder, quiet=quiet)
            else:
                train(config, folder, quiet=quiet, splits=splits)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_share, initargs=(threads,)) as pool:
        waiting = [pool.submit(_run, config, folder, quiet=quiet) for folder, config in runs.items()]
        try:
            for done in as_completed(waiting):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # runs under way end at their own pace and stay resumable
            raise


def _share(threads: int) -> None:
    """Take only this process' share of the cores: threads that wait for each other cost more than they bring."""
    import torch

    torch.set_num_threads(threads)


def _run(config: TrainConfig, folder: Path, *, quiet: bool) -> None:
    if (folder / "config.json").is_file():
        resume(folder, quiet=quiet)
    else:
        train(config, folder, quiet=quiet)
