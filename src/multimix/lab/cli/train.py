"""``multimix train``."""

import re
from functools import partial
from pathlib import Path

from multimix.lab._code import split_reference
from multimix.lab.about import SUITES
from multimix.lab.cli._arguments import configured
from multimix.lab.cli._parser import Options, at_least, run_arguments, run_folder, told
from multimix.lab.recipes import RECIPES, is_own
from multimix.lab.report import page, read_run
from multimix.lab.runs.processes import is_main_process
from multimix.lab.train import resume, train
from multimix.lab.train.folder import RunFolder

USAGE = """multimix train RECIPE [--method NAME] [--name RUN] [--out FOLDER] [--FIELD VALUE ...]
       multimix train --resume RUN [--data DATA] [--root FOLDER] [--epochs N] [--trust-code | --method FILE.py]

RECIPE may be folder:PATH or npz:PATH: images of your own are looked at, and what is chosen for them is said. RECIPE and
NAME may be FILE.py or FILE.py:NAME, a file of your own; so may --data. With --resume, --data says where the run's data
are now, --epochs takes it further, and --trust-code runs the Python files that it keeps."""
OPTIONS: Options = {
    "--method": {
        "help": "another method than the recipe's (see multimix list); until-NAME is off from 0.9 of training on, or"
        " from --method.fraction SHARE; ramp-NAME is on in more and more of the steps, by --method.prob START END"
    }
}
RESUMED: Options = {
    "--data": {"help": "where the run's data are now"},
    "--root": {"metavar": "FOLDER", "help": "where data sets lie now that are given by name"},
    "--epochs": {"type": at_least(1), "metavar": "N", "help": "take the run to so many epochs, all told"},
    "--method": {"metavar": "FILE.py", "help": "the run's own file, named again in place of --trust-code"},
    "--trust-code": {"action": "store_true", "help": "run the Python files that the run keeps"},
}


def main(arguments: list[str]) -> None:
    """Train by a recipe, any field overridden, or continue a run."""
    given, rest = run_arguments("train", RECIPES, OPTIONS, arguments, usage=USAGE, resumed=RESUMED)
    if given.resume:
        passed = {name: vars(given)[name] for name in ("data", "root", "epochs", "quiet")}
        if given.method is not None and not split_reference(given.method):
            raise ValueError(
                f"--resume goes on with the run's own method; --method may name its file, got {given.method}"
            )
        trusted = given.trust_code or RunFolder(given.resume).holds_code(given.method)
        run = resume(given.resume, trust_code=trusted, **passed)
    else:
        say = partial(told, quiet=given.quiet or not is_main_process())
        config = configured(given.recipe, given.method, rest, prog=f"multimix train {given.recipe}", say=say)
        own = Path(config.data.partition(":")[2]).stem or "folder"
        recipe = own if is_own(given.recipe) else re.sub(r"\.py:?", "-", config.recipe).strip("-")
        run = train(config, run_folder(given, "runs", recipe, config), quiet=given.quiet)
    if not is_main_process():
        return
    for test in run.metrics.read("test"):
        if test["suite"] != "accuracy":  # of a run that was evaluated, too
            continue
        which = f" ({test['network']})" if "network" in test else ""
        found = "  ".join(known.of(test[known.name]) for known in SUITES["accuracy"].metrics if known.name in test)
        print(f"test{which}: {found}  ({test['examples']} images, epoch {test['epoch']})")
    print(f"run: {run.path}")
    print(f"report: {page([read_run(run.path)], run.path / 'report.html')}")
