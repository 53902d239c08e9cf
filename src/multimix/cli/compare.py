"""``multimix compare``."""

from dataclasses import replace
from pathlib import Path

from multimix.cli._arguments import configured
from multimix.cli._parser import Parser
from multimix.cli.report import report
from multimix.recipes import METHOD_NAMES, RECIPES
from multimix.train import TrainConfig, resume, train
from multimix.train.run import load_data


def main(arguments: list[str]) -> None:
    """Train several methods with several seeds by one recipe, then print the table and write the report."""
    parser = Parser(
        prog="multimix compare",
        usage="multimix compare RECIPE --methods NAME ... [--seeds N] [--out FOLDER] [--FIELD VALUE ...]",
        description="Train several methods with several seeds by one recipe; finished runs are kept, others resumed.",
    )
    parser.add_argument("recipe", help=", ".join(RECIPES))
    parser.add_argument("--methods", nargs="+", required=True, metavar="NAME", help="see multimix list, or all")
    parser.add_argument("--seeds", type=int, default=3, help="runs a method, with seeds 0, 1, ...")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder of the runs and report.html")
    parser.add_argument("--quiet", action="store_true", help="print only the table")
    given, rest = parser.parse_known_args(arguments)
    if given.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {given.seeds}")
    names = METHOD_NAMES if given.methods == ["all"] else given.methods
    prog = f"multimix compare {given.recipe}"
    plans = [configured(given.recipe, name, rest, prog=prog) for name in dict.fromkeys(names)]
    run_all(plans, seeds=given.seeds, out=given.out, quiet=given.quiet)
    folders = [folder_of(plan, seed, given.out) for plan in plans for seed in range(given.seeds)]
    report(folders, given.out / "report.html")


def folder_of(plan: TrainConfig, seed: int, out: Path) -> Path:
    """Return where the run of a plan with a seed lies."""
    return out / f"{plan.title}-{seed}"


def run_all(plans: list[TrainConfig], *, seeds: int, out: Path, quiet: bool) -> None:
    """Bring every plan with every seed to its end; seeds go round the methods, so that a stop leaves a fair table."""
    splits = load_data(plans[0])
    for seed in range(seeds):
        for plan in plans:
            config = replace(plan, seed=seed)
            folder = folder_of(plan, seed, out)
            if (folder / "config.json").is_file():
                _check_same(folder, config)
                resume(folder, quiet=quiet)
            else:
                train(config, folder, quiet=quiet, splits=splits)


def _check_same(folder: Path, config: TrainConfig) -> None:
    from multimix.train import to_json
    from multimix.train.folder import RunFolder, describe_config

    there = describe_config(RunFolder(folder).read_config())
    wanted = describe_config(config)
    if there != wanted:
        field = next(name for name in to_json(config) if there.get(name) != wanted[name])
        raise ValueError(
            f"run folder {folder} holds a run with another {field} ({there.get(field)!r}, not {wanted[field]!r});"
            " give another --out"
        )
