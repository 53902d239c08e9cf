"""``multimix compare``: trials choose among the candidates of a study, then every method is trained with every seed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from multimix.lab._code import Reference, find_made, split_reference
from multimix.lab._paths import expanded
from multimix.lab.about import judged_by
from multimix.lab.cli._arguments import Say, configured, override
from multimix.lab.cli._parser import Options, Parser, at_least, told
from multimix.lab.cli.report import Tables, reference, report
from multimix.lab.recipes import RECIPES, Study, is_own, recipe_named
from multimix.lab.recipes.study import TRIAL_SEED
from multimix.lab.runs.files import replacing
from multimix.lab.runs.folder import keep_code
from multimix.lab.train import TrainConfig, to_json
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.launch import LAUNCHERS, Launch, fitting_jobs, run_all
from multimix.names import METHOD_NAMES, method_named
from multimix.protocols import declares

_JOBS_ON_SLURM = 16
"""Tasks of an array at the same time where the command line does not say."""
USAGE = """multimix compare RECIPE --methods NAME ... [--seeds N] [--jobs N] [--out FOLDER] [--FIELD VALUE ...]
       multimix compare STUDY.py[:NAME] [--arms NAME ...] [--seeds N] [--jobs N] [--out FOLDER] [--FIELD VALUE ...]"""
OPTIONS: Options = {
    "recipe": {
        "help": f"{', '.join(RECIPES)}, folder:PATH, npz:PATH;"
        " or FILE.py[:NAME], which with --methods holds a recipe, else a study"
    },
    "--methods": {
        "nargs": "+",
        "metavar": "NAME",
        "help": "see multimix list, or all (but those that need a vision transformer);"
        " until-NAME, ramp-NAME as in multimix train --help; or FILE.py[:CLASS]",
    },
    "--arms": {"nargs": "+", "metavar": "NAME", "help": "arms of a study (default: all of them)"},
    "--seeds": {"type": at_least(1), "help": "runs a method, with seeds 0, 1, ... (default: 3, or the study's)"},
    "--jobs": {
        "type": at_least(1),
        "help": "runs at the same time, sharing the cores (default: 1; of a study on a CPU: its cores, at most 4;"
        f" on Slurm: {_JOBS_ON_SLURM})",
    },
    "--launcher": {
        "choices": LAUNCHERS,
        "default": "local",
        "help": "where runs go: processes of this machine; Ray, here or on the cluster at RAY_ADDRESS; Slurm",
    },
    "--retries": {"type": at_least(0), "default": 1, "help": "how often a run that ends early is resumed (default: 1)"},
    "--extend": {"action": "store_true", "help": "take runs of --out that have fewer epochs than --epochs further"},
    "--slurm": {"default": "", "metavar": "OPTIONS", "help": "more options of sbatch: 'partition=gpu time=4:00:00'"},
    "--out": {"type": expanded, "help": "folder of the runs and report.html (default: runs/compare/STUDY)"},
    "--quiet": {"action": "store_true", "help": "print only the tables"},
}


def main(arguments: list[str]) -> None:
    """Train several methods with several seeds by one recipe, then print the tables and write the report."""
    about = (
        "Train several methods with several seeds by one recipe, or all runs of a study; finished runs are kept, others"
        " resumed, and those that fail do not hold up the others."
    )
    parser = Parser(OPTIONS, prog="multimix compare", usage=USAGE, description=about)
    given, rest = parser.parse_known_args(arguments)
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
        study = _of_recipe(given.recipe, given.methods, rest, say=partial(told, quiet=given.quiet))
    out = given.out or out
    jobs = given.jobs or (_JOBS_ON_SLURM if given.launcher == "slurm" else jobs)
    passed = {name: vars(given)[name] for name in ("launcher", "retries", "extend", "quiet", "slurm")}
    launch = Launch(jobs=jobs, scratch=out, **passed)
    plans = study.chosen(choose(study, out, launch))
    seeds = range(given.seeds or study.seeds)
    # Seeds go round the methods, so that a stop leaves a fair table.
    run_all({out / f"{label}-{s}": replace(plan, seed=s) for s in seeds for label, plan in plans.items()}, launch)
    if file is not None:
        keep_code(out / "code", file.code.sources)
    folders = [out / f"{label}-{seed}" for label in plans for seed in seeds]
    report(folders, out / "report.html", Tables(paired=reference(folders, study.against)))


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
    if labels is None:
        return study, file
    if unknown := [label for label in labels if label not in study.arms]:
        raise ValueError(f"--arms: study {study.name} has no arm {unknown[0]!r}; it has {', '.join(study.arms)}")
    against = study.against if study.against in labels else labels[0]
    return replace(study, arms={label: study.arms[label] for label in labels}, against=against), file


def _of_recipe(name: str, methods: list[str] | None, rest: list[str], *, say: Say) -> Study:
    """Return methods by one recipe as a study without candidates."""
    if methods is None:
        if not is_own(name):
            recipe_named(name)  # who forgot the options of a recipe hears of that, who mistook its name of its name
        raise ValueError("the following arguments are required: --methods; see multimix compare --help")
    if methods == ["all"]:
        methods = [name for name in METHOD_NAMES if not declares(method_named(name), "needs_attention")]
    names = dict.fromkeys(methods)
    prog = f"multimix compare {name}"
    first, *others = names
    plans = [configured(name, first, rest, prog=prog, say=say)]
    plans += [configured(name, method, rest, prog=prog) for method in others]
    arms: dict[str, tuple[TrainConfig, ...]] = {plan.title: (plan,) for plan in plans}
    if len(arms) < len(plans):
        raise ValueError("methods are told apart by their labels, so --label does not go with several of them")
    return Study(name=name, question="", arms=arms, against="erm" if "erm" in arms else next(iter(arms)))


def choose(study: Study, out: Path, launch: Launch) -> dict[str, int]:
    """Choose one candidate for each arm by successive halving, and write ``trials.jsonl``.

    Every candidate is tried with one seed, the better half of each arm's with two more, then four, until one is left;
    arms have equally many candidates, and so equally many trials (Jamieson and Talwalkar 2016, arXiv 1502.07943).

    Returns:
        The number of the best candidate by label; nothing where no arm has several.
    """
    left = {label: list(range(len(several))) for label, several in study.arms.items() if len(several) > 1}
    ends: dict[tuple[str, int], list[dict[str, Any]]] = {}
    seeds = range(TRIAL_SEED, TRIAL_SEED + 1)
    judges: list[str] = []
    folder = out / "trials"
    while any(len(numbers) > 1 for numbers in left.values()):
        trials = [(key, config) for seed in seeds for key, config in study.trials(left, seed).items()]
        if any(config.validation == 0 for _, config in trials):
            raise ValueError("validation must be above 0 where candidates are chosen by it, got 0")
        run_all({folder / config.label: config for _, config in trials}, launch)
        for key, config in trials:
            ends.setdefault(key, []).append(RunFolder(folder / config.label).metrics.read("epoch")[-1])
        judges = judges or [
            f"validation_{judge.name}" for judge in judged_by(next(iter(ends.values()))[0], "validation_")
        ]
        if not judges:
            raise ValueError("validation must hold an image of any label where candidates are chosen by it, got none")
        for label, numbers in left.items():
            ranked = sorted(numbers, key=lambda number: -_mean(ends[label, number], judges[0]))  # of equals, the first
            left[label] = sorted(ranked[: -(-len(numbers) // 2)])
        seeds = range(seeds.stop, seeds.stop + 2 * len(seeds))
    best = {label: number for label, (number,) in left.items()}
    if best:
        with replacing(out / "trials.jsonl") as file:
            file.write("".join(_lines(study, ends, judges, best, folder)).encode())
    return best


def _mean(ends: Sequence[Mapping[str, Any]], name: str) -> float:
    return fmean(end[name] for end in ends)


def _lines(
    study: Study, ends: Mapping[tuple[str, int], Any], judges: list[str], best: Mapping[str, int], folder: Path
) -> Iterator[str]:
    """Yield a line for each candidate: the mean of its trials, and whether it was chosen."""
    for (label, number), config in study.trials().items():
        environment = json.loads(RunFolder(folder / config.label).environment_file.read_text(encoding="utf-8"))
        line = {
            "label": label,
            "candidate": number,
            "method": to_json(config.method),
            "objective": to_json(config.objective),
            "weight_decay": config.optimizer.weight_decay,
            "epochs": config.epochs,
            "seed": config.seed,
            "trials": len(ends[label, number]),
            **{name: _mean(ends[label, number], name) for name in judges},
            "chosen": best[label] == number,
            **{name: environment.get(name) for name in ("device", "torch", "commit")},
        }
        yield json.dumps(line) + "\n"
