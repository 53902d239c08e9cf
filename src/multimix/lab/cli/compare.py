"""``multimix compare``."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from multimix.lab._code import Reference, find_made, split_reference
from multimix.lab.cli._arguments import configured, override
from multimix.lab.cli._parser import Parser
from multimix.lab.cli._trials import choose
from multimix.lab.cli.report import reference, report
from multimix.lab.recipes import RECIPES, Study, recipe_named
from multimix.lab.train import TrainConfig
from multimix.lab.train.folder import keep_code
from multimix.lab.train.launch import LAUNCHERS, Launch
from multimix.lab.train.many import fitting_jobs, run_all
from multimix.names import METHOD_NAMES

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
    file: Reference | None = None
    out, jobs = Path("runs/compare"), 1
    if given.methods is None and split_reference(given.recipe):
        study, file = _of_study(given.recipe, given.arms, rest)
        out, jobs = out / study.name, fitting_jobs(next(iter(study.arms.values()))[0].device)
    elif given.arms is not None:
        raise ValueError("--arms names arms of a study, which is a file: multimix compare STUDY.py --arms NAME ...")
    else:
        study = _of_recipe(given.recipe, given.methods, rest)
    out = given.out or out
    launch = Launch(
        launcher=given.launcher,
        jobs=given.jobs or (_JOBS_ON_SLURM if given.launcher == "slurm" else jobs),
        retries=given.retries,
        quiet=given.quiet,
        scratch=out,
        slurm=given.slurm,
    )
    runs(study, out, seeds=given.seeds or study.seeds, launch=launch, file=file)


def _parser() -> Parser:
    parser = Parser(
        prog="multimix compare",
        usage="multimix compare RECIPE --methods NAME ... [--seeds N] [--jobs N] [--out FOLDER] [--FIELD VALUE ...]\n"
        "       multimix compare STUDY.py[:NAME] [--arms NAME ...] [--seeds N] [--jobs N] [--out FOLDER]"
        " [--FIELD VALUE ...]",
        description="Train several methods with several seeds by one recipe, or all runs of a study;"
        " finished runs are kept, others resumed, and those that fail do not hold up the others.",
    )
    parser.add_argument(
        "recipe", help=f"{', '.join(RECIPES)}; or FILE.py[:NAME], which with --methods holds a recipe, else a study"
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="see multimix list, or all; or FILE.py[:CLASS]")
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


def runs(study: Study, out: Path, *, seeds: int, launch: Launch, file: Reference | None = None) -> None:
    """Bring all runs of a study to their end, trials first, and report on them; the study's file is kept with them."""
    plans = study.chosen(choose(study, out, launch))
    # Seeds go round the methods, so that a stop leaves a fair table.
    wanted = {
        out / f"{label}-{seed}": replace(plan, seed=seed) for seed in range(seeds) for label, plan in plans.items()
    }
    run_all(wanted, launch)
    if file is not None:
        keep_code(out / "code", file.code.sources)
    folders = [out / f"{label}-{seed}" for label in plans for seed in range(seeds)]
    report(folders, out / "report.html", paired=reference(folders, study.against))


def _of_study(text: str, labels: list[str] | None, rest: list[str]) -> tuple[Study, Reference]:
    """Return a study, or some of its arms, with the fields of all its runs overridden, and its file."""
    study, file = find_made(text, "study", Study)
    for argument in rest:
        field = argument.partition("=")[0]
        if field.startswith("--method."):
            raise ValueError("--method.FIELD does not go with a study, whose arms have methods of their own")
        if field in ("--label", "--seed"):
            raise ValueError("a study sets --label and --seed of its runs itself")
    prog = f"multimix compare {text}"
    study = study.changed(lambda config: replace(override(config, rest, prog=prog), recipe=file))
    return (study if labels is None else _only(study, labels)), file


def _of_recipe(name: str, methods: list[str] | None, rest: list[str]) -> Study:
    """Return methods by one recipe as a study without candidates."""
    if methods is None:
        recipe_named(name)  # who forgot the options of a recipe hears of that, who mistook its name of its name
        raise ValueError("the following arguments are required: --methods; see multimix compare --help")
    names = dict.fromkeys(METHOD_NAMES if methods == ["all"] else methods)
    plans = [configured(name, method, rest, prog=f"multimix compare {name}") for method in names]
    arms: dict[str, tuple[TrainConfig, ...]] = {plan.title: (plan,) for plan in plans}
    if len(arms) < len(plans):
        raise ValueError("methods are told apart by their labels, so --label does not go with several of them")
    return Study(name=name, question="", arms=arms, against="erm" if "erm" in arms else next(iter(arms)))


def _only(study: Study, labels: Iterable[str]) -> Study:
    """Return a study with some of its arms."""
    labels = list(dict.fromkeys(labels))
    for label in labels:
        if label not in study.arms:
            raise ValueError(f"--arms: study {study.name} has no arm {label!r}; it has {', '.join(study.arms)}")
    arms = {label: study.arms[label] for label in labels}
    return replace(study, arms=arms, against=study.against if study.against in arms else labels[0])
