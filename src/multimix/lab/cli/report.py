"""``multimix report``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from multimix.lab.cli._parser import Parser, output_file
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


def main(arguments: list[str]) -> None:
    """Print the tables of runs or records, and write one self-contained page of runs."""
    parser = Parser(prog="multimix report", description="Make tables and one self-contained page of runs.")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folder, a folder of run folders, or one file of records"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="where the page goes")
    parser.add_argument("--format", choices=get_args(Format), default="plain", help="of the tables")
    parser.add_argument("--suite", metavar="NAME", help="print only this suite's tables, and all it has measured")
    parser.add_argument("--records", type=output_file, metavar="FILE", help="also write the records (JSON lines)")
    parser.add_argument("--paired", metavar="LABEL", help="also compare every other method with this one, seed by seed")
    parser.add_argument(
        "--any-length", action="store_true", help="compare runs of different length, as those of equal seconds are"
    )
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="of any suite: the columns of --paired")
    given = parser.parse_args(arguments)
    if given.metrics and given.paired is None:
        raise ValueError("--metrics are the columns of the paired table: expected --paired LABEL too, got none")
    what = {"fmt": given.format, "suite": given.suite, "paired": given.paired, "metrics": given.metrics}
    what["any_length"] = given.any_length
    if len(given.runs) == 1 and given.runs[0].is_file():
        print(tables(read_records(given.runs[0]), **what))
    else:
        report(find_runs(given.runs), given.out, keep=given.records, **what)


def report(
    folders: list[Path],
    out: Path,
    *,
    fmt: Format = "plain",
    suite: str | None = None,
    keep: Path | None = None,
    paired: str | None = None,
    metrics: Sequence[str] | None = None,
    any_length: bool = False,
) -> None:
    """Print the tables of the runs in ``folders`` and write the page, and the records if asked to.

    Args:
        folders: The runs.
        out: Where the page goes.
        fmt: Of the tables.
        suite: The only one to print.
        keep: Where the records go.
        paired: The label that the other methods are compared with seed by seed, printed and in the page.
        metrics: The columns of that table.
        any_length: Whether runs of different length are compared in the printed tables.

    Raises:
        FileNotFoundError: If there is no run.
        ValueError: If a run is damaged, none was measured by ``suite``, or nothing can be compared with ``paired``.
    """
    runs = [read_run(folder) for folder in folders]
    rows = records(runs)
    words = "no run has finished yet: there is no table"
    if rows:
        words = tables(rows, fmt=fmt, suite=suite, paired=paired, metrics=metrics, any_length=any_length)
    written = page(runs, out, paired=None if any_length else paired, metrics=None if any_length else metrics)
    print(words)
    if keep is not None:
        write_records(keep, runs)
        print(f"records: {keep}")
    print(f"report: {written}")


def tables(
    rows: list[Record],
    *,
    fmt: Format = "plain",
    suite: str | None = None,
    paired: str | None = None,
    metrics: Sequence[str] | None = None,
    any_length: bool = False,
) -> str:
    """Return the main table and then those of every suite, or all tables of one suite.

    The differences to ``paired`` stand behind the main table, or behind those of the suite. ``csv`` is for machines,
    which read one table at a time: it is that of the differences, else the main one where no suite is named.

    Raises:
        ValueError: If there is no record, or none of ``suite``, or nothing can be compared with ``paired``.
    """
    only = None if suite == "accuracy" else suite
    averaged = partial(summarise, rows, any_length=any_length)
    beside: list[str] = []
    if paired is not None:
        beside = [paired_table(averaged(metrics, suite=only), paired, metrics=metrics, fmt=fmt)]
        if fmt == "csv":
            return beside[0]
    if suite is not None:
        return "\n".join([table(averaged(suite=only), fmt=fmt, whole=True), *beside])
    main = averaged()
    others = [] if fmt == "csv" and main.comparisons else [averaged(suite=name) for name in suites(rows)]
    found = [one for one in (main, *others) if one.comparisons]
    first, *more = [table(one, fmt=fmt) for one in found or [main]]
    return "\n".join([first, *beside, *more])


def reference(folders: list[Path], wanted: str = "erm") -> str | None:
    """Return the label that the others of a comparison are compared with seed by seed: ``wanted``, else the first.

    None where differences would say nothing: of one method, one seed, or runs that cannot be told apart by label.
    """
    found = summarise(records(read_run(folder) for folder in folders)).comparisons
    rows = [row for one in found for row in one.rows]
    labels = [row.label for row in rows if "accuracy" in row.cells and row.cells["accuracy"].n > 1]
    if len(found) != 1 or len(set(labels)) < 2:
        return None
    label = wanted if wanted in labels else labels[0]
    return label if sum(row.label == label for row in rows) == 1 else None


def find_runs(folders: list[Path]) -> list[Path]:
    """Return the run folders among ``folders`` and directly inside them."""
    found: list[Path] = []
    for folder in folders:
        inside = sorted(config.parent for config in folder.glob("*/config.json")) if folder.is_dir() else []
        found += inside if inside and not (folder / "config.json").is_file() else [folder]
    return found
