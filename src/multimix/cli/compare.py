"""``multimix compare``."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from multimix.cli._arguments import configured, override
from multimix.cli._parser import Parser
from multimix.cli._trials import choose
from multimix.cli.report import reference, report
from multimix.recipes import METHOD_NAMES, RECIPES, STUDIES, Study, study_named
from multimix.train import TrainConfig
from multimix.train.many import fitting_jobs, run_all


def main(arguments: list[str]) -> None:
    """Train several methods with several seeds by one recipe, then print the tables and write the report."""
    parser = Parser(
        prog="multimix compare",
        usage="multimix compare RECIPE --methods NAME ... [--seeds N] [--jobs N] [--out FOLDER] [--FIELD VALUE ...]\n"
        "       multimix compare STUDY [--seeds N] [--jobs N] [--out FOLDER] [--FIELD VALUE ...]",
        description="Train several methods with several seeds by one recipe, or all runs of a study;"
        " finished runs are kept, others resumed.",
    )
    parser.add_argument("recipe", help=f"or study; recipes: {', '.join(RECIPES)}; studies: {', '.join(STUDIES)}")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="see multimix list, or all; of a study: its arms")
    parser.add_argument("--seeds", type=int, help="runs a method, with seeds 0, 1, ... (default: 3, or the study's)")
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at the same time, sharing the CPU's cores (default: 1; of a study on a CPU: its cores, at most 4)",
    )
    parser.add_argument("--out", type=Path, help="folder of the runs and report.html (default: runs/compare/STUDY)")
    parser.add_argument("--quiet", action="store_true", help="print only the tables")
    given, rest = parser.parse_known_args(arguments)
    for name in ("seeds", "jobs"):
        if (value := getattr(given, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    name = given.recipe.lower().replace("_", "-")
    # A recipe may have a study of its name, which is meant where no methods are given.
    if (name in STUDIES and not (given.methods and name in RECIPES)) or not (given.methods or name in RECIPES):
        study = _of_study(given.recipe, given.methods, rest)
        out, jobs = Path("runs/compare", name), fitting_jobs(next(iter(study.arms.values()))[0].device)
    else:
        study, out, jobs = _of_recipe(given.recipe, given.methods, rest), Path("runs/compare"), 1
    runs(study, given.out or out, seeds=given.seeds or study.seeds, jobs=given.jobs or jobs, quiet=given.quiet)


def runs(study: Study, out: Path, *, seeds: int, jobs: int, quiet: bool) -> None:
    """Bring all runs of a study to their end, trials first, and report on them."""
    plans = study.chosen(choose(study, out, jobs=jobs, quiet=quiet))
    # Seeds go round the methods, so that a stop leaves a fair table.
    wanted = {
        out / f"{label}-{seed}": replace(plan, seed=seed) for seed in range(seeds) for label, plan in plans.items()
    }
    run_all(wanted, jobs=jobs, quiet=quiet)
    folders = [out / f"{label}-{seed}" for label in plans for seed in range(seeds)]
    report(folders, out / "report.html", paired=reference(folders, study.against))


def _of_study(name: str, labels: list[str] | None, rest: list[str]) -> Study:
    """Return a study, or some of its arms, with the fields of all its runs overridden."""
    study = study_named(name)
    for argument in rest:
        field = argument.partition("=")[0]
        if field.startswith("--method."):
            raise ValueError("--method.FIELD does not go with a study, whose arms have methods of their own")
        if field in ("--label", "--seed"):
            raise ValueError("a study sets --label and --seed of its runs itself")
    return _only(study.changed(lambda config: override(config, rest, prog=f"multimix compare {name}")), labels)


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


def _only(study: Study, labels: Iterable[str] | None) -> Study:
    """Return a study with some of its arms."""
    if labels is None:
        return study
    labels = list(dict.fromkeys(labels))
    for label in labels:
        if label not in study.arms:
            raise ValueError(f"--methods: study {study.name} has no arm {label!r}; it has {', '.join(study.arms)}")
    arms = {label: study.arms[label] for label in labels}
    return replace(study, arms=arms, against=study.against if study.against in arms else labels[0])
