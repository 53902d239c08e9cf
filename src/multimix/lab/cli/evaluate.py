"""``multimix evaluate``."""

import re
from collections.abc import Callable, Iterator
from dataclasses import field, make_dataclass, replace
from pathlib import Path
from typing import Any

from multimix.lab._paths import expanded
from multimix.lab.about import SUITES as ABOUT
from multimix.lab.about import metrics_of
from multimix.lab.cli._arguments import override
from multimix.lab.cli._parser import Options, Parser, at_least
from multimix.lab.evaluate import SUITES
from multimix.lab.report import page, read_run
from multimix.lab.runs.display import Display
from multimix.lab.train.evaluation import USUAL, evaluations, suites_named

_SETTINGS = {suite.name: suite.Settings for suite in SUITES}
_NAMES = [*_SETTINGS]
OPTIONS: Options = {
    "runs": {"nargs": "+", "type": expanded, "metavar": "RUN", "help": "run folder"},
    "--suites": {
        "nargs": "+",
        "metavar": "NAME",
        "help": f"all, or which of {', '.join(_NAMES)} (default: accuracy and, of classes, calibration)",
    },
    "--examples": {"type": int, "metavar": "N", "help": "test images of every suite, balanced by class (default: all)"},
    "--again": {"action": "store_true", "help": "measure what has been measured already, too"},
    "--data": {"help": "where the runs' data are now; or other data, on which results are kept apart"},
    "--root": {"metavar": "FOLDER", "help": "where data sets lie now that are given by name"},
    "--batch-size": {"type": at_least(1), "metavar": "N", "help": "images a batch; no result depends on it"},
    "--trust-code": {"action": "store_true", "help": "run the Python files that the runs keep"},
    "--quiet": {"action": "store_true", "help": "show no progress"},
}
_SHOWN = 9
"""Metrics on the line of a suite; the others are in the report."""


def main(arguments: list[str]) -> None:
    """Measure finished runs on their test sets, write the results into them and make each one's report."""
    usage = "%(prog)s RUN ... [--suites NAME ...] [--examples N] [--again] [--batch-size N] [--SUITE.FIELD ...]"
    about = "Measure finished runs on their test sets. What has been measured already is kept."
    parser = Parser(OPTIONS, prog="multimix evaluate", usage=usage, description=about, add_help=False)
    # The settings of every suite as one dataclass, a field a suite.
    fields = [(suite.name, suite.Settings, field(default_factory=suite.Settings)) for suite in SUITES]
    settings: Any = make_dataclass("Settings", fields, frozen=True, kw_only=True)()
    if {"-h", "--help"} & set(arguments):
        print(parser.format_help())
        override(settings, ["--help"], prog="multimix evaluate RUN ...")
    given, rest = parser.parse_known_args(arguments)
    try:
        chosen = vars(override(settings, rest, prog="multimix evaluate"))
    except ValueError as error:
        said = re.fullmatch(r"Error parsing (\w+): (.+)", str(error))
        raise ValueError(_with_option(*said.groups()) if said else str(error)) from None
    set_here = [name for name, of in chosen.items() if of != type(of)()]
    if given.examples is not None:
        chosen = {name: replace(of, examples=of.examples or given.examples) for name, of in chosen.items()}
    everything = given.suites == ["all"]  # then a suite that a run's data do not suit is left out, else an error
    suites = _NAMES if everything else given.suites and [suite.name for suite in suites_named(given.suites)]
    if unread := [name for name in set_here if name not in (suites or USUAL)]:
        raise ValueError(f"--{unread[0]}.FIELD: {unread[0]} is not measured here: expected it among --suites")
    passed = {
        "settings": chosen,
        **{name: vars(given)[name] for name in ("again", "batch_size", "data", "root", "trust_code")},
    }
    for run in given.runs:
        with Display(str(run), quiet=given.quiet) as display:

            def unfit(suite: str, reason: str, say: Callable = display.say, run: Path = run) -> None:
                reason = _with_option(suite, reason)
                if not everything:
                    raise ValueError(reason)
                say(f"{run}: {suite}: left out: {reason}")

            for result in evaluations(run, suites, monitor=display, unfit=unfit, **passed):
                for line in _lines(result):
                    display.say(f"{run}: {result['suite']}: {line}")
        print(f"report: {page([read_run(run)], run / 'report.html')}")


def _with_option(suite: str, text: str) -> str:
    """Return a line that begins with one of a suite's settings as one that begins with its option."""
    name = next((each for each in vars(_SETTINGS[suite]()) if re.match(rf"{each}\b", text)), None)
    return text if name is None else f"--{suite}.{name.replace('_', '-')}{text.removeprefix(name)}"


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield what is said of a suite: its metrics, what they mean, and its notes."""
    yield line_of(result)
    if says := ABOUT[result["suite"]].says:
        yield says(result)
    for note in result.get("notes", ()):
        yield f"note: {_with_option(result['suite'], note)}"


def line_of(result: dict[str, Any]) -> str:
    """Return a suite's most important metrics in one line."""
    metrics = metrics_of(result)
    plain = [*metrics]
    if len(metrics) > _SHOWN:
        means = [name for name in metrics if name.startswith("mean/")]
        plain = (means or [name for name in metrics if "/" not in name] or plain)[:_SHOWN]
    more = f"  and {len(metrics) - len(plain)} more" if len(plain) < len(metrics) else ""
    values = "  ".join(f"{name} {metrics[name]:.4f}" for name in plain)
    other = f" of {result['other_data']['name']}, not the run's data" if "other_data" in result else ""
    return f"{values}{more}  ({result['examples']} images{other})"
