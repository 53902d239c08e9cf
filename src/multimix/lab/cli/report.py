"""``multimix report``."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from multimix.lab._paths import expanded
from multimix.lab.about import judged_by
from multimix.lab.cli._parser import Options, Parser, output_file
from multimix.lab.report import (
    Format,
    Record,
    page,
    paired_table,
    read_records,
    read_run,
    records,
    suites,
    summarise,
    table,
    write_records,
)

OPTIONS: Options = {
    "runs": {
        "nargs": "+",
        "type": expanded,
        "metavar": "RUN",
        "help": "run folder, folder of these, or one file of records",
    },
    "--out": {"type": expanded, "help": "where the page of runs goes (default: report.html)"},
    "--format": {"choices": get_args(Format), "default": "plain", "help": "of the tables"},
    "--suite": {"metavar": "NAME", "help": "print only this suite's tables, and all it has measured"},
    "--records": {"type": output_file, "metavar": "FILE", "help": "also write the records (JSON lines)"},
    "--paired": {"metavar": "LABEL", "help": "also compare every other method with this one, seed by seed"},
    "--any-length": {"action": "store_true", "help": "compare runs of different length, as those of equal seconds are"},
    "--metrics": {"nargs": "+", "metavar": "NAME", "help": "of any suite: the columns of --paired"},
}


def main(arguments: list[str]) -> None:
    """Print the tables of runs or records, and write one self-contained page of runs."""
    about = "Make tables and one self-contained page of runs."
    given = Parser(OPTIONS, prog="multimix report", description=about).parse_args(arguments)
    if given.metrics and given.paired is None:
        raise ValueError("--metrics are the columns of the paired table: expected --paired LABEL too, got none")
    wanted = Tables(given.format, given.suite, given.paired, given.metrics, given.any_length)
    if len(given.runs) == 1 and given.runs[0].is_file():
        if given.out or given.records:
            raise ValueError("--out and --records are of run folders: records in a file make tables alone")
        print(wanted.of(read_records(given.runs[0])))
    else:
        report(find_runs(given.runs), given.out or Path("report.html"), wanted, keep=given.records)


@dataclass(frozen=True)
class Tables:
    """Which tables are printed, and how."""

    fmt: Format = "plain"
    """``csv`` is for machines, which read one table at a time: the differences, else the suite's, else the main one."""
    suite: str | None = None
    """The only one to print."""
    paired: str | None = None
    """The label that others are compared with seed by seed: behind the main table, or that of the suite."""
    metrics: Sequence[str] | None = None
    """The columns of that table."""
    any_length: bool = False
    """Whether runs of different length are compared in the printed tables."""

    def of(self, rows: list[Record]) -> str:
        """Return the main table and then those of every suite, or all tables of one suite."""

        def averaged(metrics: Sequence[str] | None = None, suite: str | None = None) -> Any:
            return summarise(rows, metrics, suite=suite, any_length=self.any_length)

        only = None if self.suite == "accuracy" else self.suite
        beside: list[str] = []
        if self.paired is not None:
            pairs = averaged(self.metrics, only)
            beside = [paired_table(pairs, self.paired, metrics=self.metrics, fmt=self.fmt)]
            if self.fmt == "csv":
                return beside[0]
        if self.suite is not None:
            return "\n".join([table(averaged(suite=only), fmt=self.fmt, whole=True), *beside])
        main = averaged()
        others = [] if self.fmt == "csv" and main.comparisons else [averaged(suite=name) for name in suites(rows)]
        found = [one for one in (main, *others) if one.comparisons]
        first, *more = [table(one, fmt=self.fmt) for one in found or [main]]
        return "\n".join([first, *beside, *more])


def report(folders: list[Path], out: Path, wanted: Tables, *, keep: Path | None = None) -> None:
    """Print the tables of the runs in ``folders`` and write the page, and the records to ``keep`` if asked to."""
    runs = [read_run(folder) for folder in folders]
    rows = records(runs)
    if rows and (unfinished := [str(run.folder) for run in runs if not run.finished]):
        more = ", ..." * (len(unfinished) > 5)
        said = (
            f"{len(unfinished)} of {len(runs)} runs are unfinished, and in no table: {', '.join(unfinished[:5])}{more}"
        )
        warnings.warn(said, stacklevel=2)
    words = wanted.of(rows) if rows else "no run has finished yet: there is no table"
    paired: dict[str, Any] = {} if wanted.any_length else {"paired": wanted.paired, "metrics": wanted.metrics}
    written = page(runs, out, **paired)
    print(words)
    if keep is not None:
        write_records(keep, runs)
        print(f"records: {keep}")
    print(f"report: {written}")


def reference(folders: list[Path], wanted: str = "erm") -> str | None:
    """Return the label to compare others with: ``wanted``, else the first; None where differences would say nothing."""
    found = summarise(records(read_run(folder) for folder in folders)).comparisons
    rows = [row for one in found for row in one.rows]
    labels = [row.label for row in rows if any(row.cells[judge.name].n > 1 for judge in judged_by(row.cells)[:1])]
    if len(found) != 1 or len(set(labels)) < 2:
        return None
    label = wanted if wanted in labels else labels[0]
    return label if sum(row.label == label for row in rows) == 1 else None


def find_runs(folders: list[Path]) -> list[Path]:
    """Return the run folders among ``folders`` and directly inside them."""
    found: list[Path] = []
    for folder in folders:
        inside = [] if (folder / "config.json").is_file() else sorted(folder.glob("*/config.json"))
        found += [config.parent for config in inside] or [folder]
    return found
