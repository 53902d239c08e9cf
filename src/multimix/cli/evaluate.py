"""``multimix evaluate``."""

from pathlib import Path

from multimix.cli._parser import Parser
from multimix.evaluate import SUITES
from multimix.train import evaluate_run

_ABOUT = frozenset({"suite", "split", "epoch", "examples", "seed", "device", "torch", "commit", "date"})


def main(arguments: list[str]) -> None:
    """Measure finished runs on their test sets and write the results into them."""
    names = [suite.name for suite in SUITES]
    parser = Parser(prog="multimix evaluate", description="Measure finished runs on their test sets.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--suites", nargs="+", default=names, metavar="SUITE", help=f"which of {', '.join(names)}")
    given = parser.parse_args(arguments)
    for run in given.runs:
        for result in evaluate_run(run, given.suites):
            values = "  ".join(f"{name} {value:.4f}" for name, value in result.items() if name not in _ABOUT)
            print(f"{run}: {result['suite']}: {values}  ({result['examples']} images)")
