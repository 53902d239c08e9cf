"""``multimix train``."""

import re
from datetime import datetime
from pathlib import Path

from multimix.lab.cli._arguments import configured
from multimix.lab.cli._parser import Parser
from multimix.lab.recipes import RECIPES
from multimix.lab.report import page, read_run
from multimix.lab.train import resume, train
from multimix.lab.train.parallel import leads

USAGE = """multimix train RECIPE [--method NAME] [--name RUN] [--out FOLDER] [--FIELD VALUE ...]
       multimix train --resume RUN [--trust-code]

RECIPE and NAME may be FILE.py or FILE.py:NAME, a file of your own; so may --data."""


def main(arguments: list[str]) -> None:
    """Train by a recipe, any field overridden, or continue a run."""
    parser = Parser(prog="multimix train", usage=USAGE, add_help=False)
    parser.add_argument("recipe", nargs="?", help=", ".join(RECIPES))
    parser.add_argument("--method", help="another method than the recipe's (see multimix list)")
    parser.add_argument("--name", help="of the run folder; by default recipe, method, seed and time")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders go")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue a run where its last checkpoint left it")
    parser.add_argument("--trust-code", action="store_true", help="with --resume: run the Python files that RUN keeps")
    parser.add_argument("--quiet", action="store_true", help="print nothing but the result")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(parser.format_help() + "\nmultimix train RECIPE --help lists every field and its value in the recipe.")
        return
    given, rest = parser.parse_known_args(arguments)
    if given.resume:
        if rest or given.recipe or given.method or given.name:
            raise ValueError("--resume takes the run's own configuration and goes with no other argument")
        run = resume(given.resume, quiet=given.quiet, trust_code=given.trust_code)
    elif given.trust_code:
        raise ValueError("--trust-code goes with --resume: what this command line names is run anyway")
    elif given.recipe is None:
        raise ValueError(f"which recipe? {', '.join(RECIPES)}, or --resume RUN")
    else:
        config = configured(given.recipe, given.method, rest, prog=f"multimix train {given.recipe}")
        recipe = re.sub(r"\.py:?", "-", config.recipe).strip("-")
        name = given.name or f"{recipe}-{config.title}-{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"
        run = train(config, given.out / name, quiet=given.quiet)
    if not leads():
        return
    tests = [event for event in run.metrics.read() if event["event"] == "test"]
    for test in tests:
        which = f" ({test['network']})" if "network" in test else ""
        print(
            f"test{which}: accuracy {100 * test['accuracy']:.2f} %  NLL {test['nll']:.4f}"
            f"  ECE {100 * test['ece']:.2f} %  ({test['examples']} images, epoch {test['epoch']})"
        )
    print(f"run: {run.path}")
    print(f"report: {page([read_run(run.path)], run.path / 'report.html')}")
