"""``multimix compare``."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from multimix.lab.cli._arguments import configured, override
from multimix.lab.cli._parser import Parser
from multimix.lab.cli._trials import choose
from multimix.lab.cli.report import reference, report
from multimix.lab.recipes import METHOD_NAMES, RECIPES, STUDIES, Study, method_named, study_named
from multimix.lab.train import TrainConfig
from multimix.lab.train.launch import LAUNCHERS, Launch
from multimix.lab.train.many import fitting_jobs, run_all

_JOBS_ON_SLURM = 16
"""Tasks of an array at the same time where the command line does not say."""


def main(arguments: list[str]) -> None:
    """Train several methods with several seeds by one recipe, then print the tables and write the report."""
    given, rest = _parser().parse_known_args(arguments)
    for name, least in (("seeds", 1), ("jobs", 1), ("retries", 0)):
        if (value := getattr(given, name)) is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    if given.slurm and given.launcher != "slurm":
        raise ValueError(f"--slurm goes with --launcher slurm, got --launcher {given.launcher}")
    name = given.recipe.lower().replace("_", "-")
    if _means_study(name, given.methods, given.arms):
        study = _of_study(given.recipe, given.arms or given.methods, rest, option="arms" if given.arms else "methods")
        out, jobs = Path("runs/compare", name), fitting_jobs(next(iter(study.arms.values()))[0].device)
    else:
        study, out, jobs = _of_recipe(given.recipe, given.methods, rest), Path("runs/compare"), 1
    out = given.out or out
    launch = Launch(
        launcher=given.launcher,
        jobs=given.jobs or (_JOBS_ON_SLURM if given.launcher == "slurm" else jobs),
        retries=given.retries,
        quiet=given.quiet,
        scratch=out,
        slurm=given.slurm,
    )
    runs(study, out, seeds=given.seeds or study.seeds, launch=launch)


def _parser() -> Parser:
    parser = Parser(
        prog="multimix compare",
        usage="multimix compare RECIPE --methods NAME ... [--seeds N] [--jobs N] [--out FOLDER] [--FIELD VALUE ...]\n"
        "       multimix compare STUDY [--arms NAME ...] [--seeds N] [--jobs N] [--out FOLDER] [--FIELD VALUE ...]",
        description="Train several methods with several seeds by one recipe, or all runs of a study;"
        " finished runs are kept, others resumed, and those that fail do not hold up the others. Where a recipe and"
        " a study share a name, --methods means the recipe, unless all of its names are arms of the study and not all"
        " are methods; --arms means the study.",
    )
    parser.add_argument("recipe", help=f"or study; recipes: {', '.join(RECIPES)}; studies: {', '.join(STUDIES)}")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="see multimix list, or all; of a study: its arms")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="arms of a study (default: all of them)")
    parser.add_argument("--seeds", type=int, help="runs a method, with seeds 0, 1, ... (default: 3, or the study's)")
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at the same time, sharing the cores (default: 1; of a study on a CPU: its cores, at most 4;"
        f" on Slurm: {_JOBS_ON_SLURM})",
    )
    parser.add_argument(
        "--launcher",
        choices=LAUNCHERS,
        default="local",
        help="where runs go: processes of this machine; Ray, here or on the cluster at RAY_ADDRESS; Slurm",
    )
    parser.add_argument(
        "--retries", type=int, default=1, help="how often a run that fails or is killed is resumed (default: 1)"
    )
    parser.add_argument(
        "--slurm", default="", metavar="OPTIONS", help="more options of sbatch, as in 'partition=gpu time=4:00:00'"
    )
    parser.add_argument("--out", type=Path, help="folder of the runs and report.html (default: runs/compare/STUDY)")
    parser.add_argument("--quiet", action="store_true", help="print only the tables")
    return parser


def runs(study: Study, out: Path, *, seeds: int, launch: Launch) -> None:
    """Bring all runs of a study to their end, trials first, and report on them."""
    plans = study.chosen(choose(study, out, launch))
    # Seeds go round the methods, so that a stop leaves a fair table.
    wanted = {
        out / f"{label}-{seed}": replace(plan, seed=seed) for seed in range(seeds) for label, plan in plans.items()
    }
    run_all(wanted, launch)
    folders = [out / f"{label}-{seed}" for label in plans for seed in range(seeds)]
    report(folders, out / "report.html", paired=reference(folders, study.against))


def _means_study(name: str, methods: list[str] | None, arms: list[str] | None) -> bool:
    """Return whether a study is meant, and not the recipe that may have the same name."""
    if arms is not None:
        if methods is not None:
            raise ValueError("--arms names arms of a study and --methods methods for a recipe; give one of them")
        return True
    if methods is None:
        return name in STUDIES or name not in RECIPES
    if name in STUDIES and name in RECIPES:
        there = study_named(name).arms
        return all(label in there for label in methods) and not all(map(_is_method, methods))
    return name in STUDIES


def _is_method(name: str) -> bool:
    try:
        method_named(name)
    except ValueError:
        return name == "all"
    return True


def _of_study(name: str, labels: list[str] | None, rest: list[str], *, option: str) -> Study:
    """Return a study, or the arms that an option names, with the fields of all its runs overridden."""
    study = study_named(name)
    for argument in rest:
        field = argument.partition("=")[0]
        if field.startswith("--method."):
            raise ValueError("--method.FIELD does not go with a study, whose arms have methods of their own")
        if field in ("--label", "--seed"):
            raise ValueError("a study sets --label and --seed of its runs itself")
    study = study.changed(lambda config: override(config, rest, prog=f"multimix compare {name}"))
    return study if labels is None else _only(study, labels, option=option)


def _of_recipe(name: str, methods: list[str] | None, rest: list[str]) -> Study:
    """Return methods by one recipe as a study without candidates."""
    if methods is None:
        raise ValueError("the following arguments are required: --methods; see multimix compare --help")
    names = dict.fromkeys(METHOD_NAMES if methods == ["all"] else methods)
    plans = [configured(name, method, rest, prog=f"multimix compare {name}") for method in names]
    arms: dict[str, tuple[TrainConfig, ...]] = {plan.title: (plan,) for plan in plans}
    if len(arms) < len(plans):
        raise ValueError("methods are told apart by their labels, so --label does not go with several of them")
    return Study(name=name, question="", arms=arms, against="erm" if "erm" in arms else next(iter(arms)))


def _only(study: Study, labels: Iterable[str], *, option: str) -> Study:
    """Return a study with some of its arms."""
    labels = list(dict.fromkeys(labels))
    for label in labels:
        if label not in study.arms:
            raise ValueError(f"--{option}: study {study.name} has no arm {label!r}; it has {', '.join(study.arms)}")
    arms = {label: study.arms[label] for label in labels}
    return replace(study, arms=arms, against=study.against if study.against in arms else labels[0])
