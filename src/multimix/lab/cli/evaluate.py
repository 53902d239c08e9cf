"""``multimix evaluate``."""

from collections.abc import Iterable
from dataclasses import field, make_dataclass, replace
from pathlib import Path
from typing import Any

from multimix.lab.cli._arguments import override
from multimix.lab.cli._parser import Parser
from multimix.lab.evaluate import SUITES
from multimix.lab.report import page, read_run
from multimix.lab.train.evaluation import evaluations, suites_named
from multimix.lab.train.log import Passes

USAGE = (
    "multimix evaluate RUN ... [--suites NAME ...] [--examples N] [--again] [--batch-size N] [--SUITE.FIELD VALUE ...]"
)
_ABOUT = {
    *("suite", "split", "epoch", "settings", "weights", "examples"),
    *("seed", "seconds", "device", "torch", "commit", "date"),
}
"""What a record says besides metrics."""
_SHOWN = 9
"""Metrics on the line of a suite; the others are in the report."""


def main(arguments: list[str]) -> None:
    """Measure finished runs on their test sets, write the results into them and make each one's report."""
    names = [suite.name for suite in SUITES]
    parser = Parser(
        prog="multimix evaluate",
        usage=USAGE,
        description="Measure finished runs on their test sets. What has been measured already is kept.",
        add_help=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--suites",
        nargs="+",
        default=["accuracy", "calibration"],
        metavar="NAME",
        help=f"all, or which of {', '.join(names)} (default: accuracy calibration)",
    )
    parser.add_argument(
        "--examples",
        type=int,
        metavar="N",
        help="test images of every suite, the same share of each class (default: all)",
    )
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images a batch; no result depends on it")
    parser.add_argument("--trust-code", action="store_true", help="run the Python files that the runs keep")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    if {"-h", "--help"} & set(arguments):
        print(parser.format_help())
        override(_settings(), ["--help"], prog="multimix evaluate RUN ...")
    given, rest = parser.parse_known_args(arguments)
    if given.batch_size is not None and given.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {given.batch_size}")
    settings = vars(override(_settings(), rest, prog="multimix evaluate"))
    if given.examples is not None:
        settings = {name: replace(of, examples=of.examples or given.examples) for name, of in settings.items()}
    suites = names if given.suites == ["all"] else [suite.name for suite in suites_named(given.suites)]
    options = {
        "settings": settings,
        "again": given.again,
        "batch_size": given.batch_size,
        "trust_code": given.trust_code,
    }
    for run in given.runs:
        evaluate(run, suites, quiet=given.quiet, lenient=given.suites == ["all"], **options)


def evaluate(run: Path, suites: Iterable[str], *, quiet: bool, lenient: bool, **options: Any) -> None:
    """Measure one run, a line a suite, and make its report.

    Who asks for all suites is told which the run's data do not suit; who names one gets an error.
    """
    with Passes(str(run), quiet=quiet) as monitor:

        def unfit(suite: str, reason: str) -> None:
            monitor.say(f"{run}: {suite}: left out: {reason}")

        for result in evaluations(run, suites, monitor=monitor, unfit=unfit if lenient else None, **options):
            monitor.say(f"{run}: {result['suite']}: {line_of(result)}")
    print(f"report: {page([read_run(run)], run / 'report.html')}")


def line_of(result: dict[str, Any]) -> str:
    """Return a suite's most important metrics in one line."""
    metrics = {name: value for name, value in result.items() if name not in _ABOUT}
    shown = metrics
    if len(metrics) > _SHOWN:
        means = [name for name in metrics if name.startswith("mean/")]
        plain = means or [name for name in metrics if "/" not in name] or list(metrics)
        shown = {name: metrics[name] for name in plain[:_SHOWN]}
    more = f"  and {len(metrics) - len(shown)} more" if len(shown) < len(metrics) else ""
    values = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
    return f"{values}{more}  ({result['examples']} images)"


def _settings() -> Any:
    """Return the settings of every suite as one dataclass, a field a suite."""
    parts = [(suite.name, suite.Settings, field(default_factory=suite.Settings)) for suite in SUITES]
    return make_dataclass("Settings", parts, frozen=True, kw_only=True)()
