"""``multimix report``."""

from pathlib import Path
from typing import get_args

from multimix.cli._parser import Parser
from multimix.report import (
    Format,
    Record,
    page,
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
    parser.add_argument("--records", type=Path, metavar="FILE", help="also write the records (JSON lines)")
    given = parser.parse_args(arguments)
    if len(given.runs) == 1 and given.runs[0].is_file():
        print(tables(read_records(given.runs[0]), fmt=given.format, suite=given.suite))
    else:
        report(find_runs(given.runs), given.out, fmt=given.format, suite=given.suite, keep=given.records)


def report(
    folders: list[Path], out: Path, *, fmt: Format = "plain", suite: str | None = None, keep: Path | None = None
) -> None:
    """Print the tables of the runs in ``folders`` and write the page, and the records if asked to.

    Raises:
        FileNotFoundError: If there is no run.
        ValueError: If a run is damaged, or none was measured by ``suite``.
    """
    runs = [read_run(folder) for folder in folders]
    rows = records(runs)
    words = tables(rows, fmt=fmt, suite=suite) if rows else "no run has finished yet: there is no table"
    written = page(runs, out)
    print(words)
    if keep is not None:
        write_records(keep, runs)
        print(f"records: {keep}")
    print(f"report: {written}")


def tables(rows: list[Record], *, fmt: Format = "plain", suite: str | None = None) -> str:
    """Return the main table and then those of every suite, or all tables of one suite.

    ``csv`` is for machines, which read one table at a time: it is the main one where no suite is named.

    Raises:
        ValueError: If there is no record, or none of ``suite``.
    """
    if suite is not None:
        return table(summarise(rows, suite=None if suite == "accuracy" else suite), fmt=fmt, whole=True)
    main = summarise(rows)
    others = [] if fmt == "csv" and main.comparisons else [summarise(rows, suite=name) for name in suites(rows)]
    found = [one for one in (main, *others) if one.comparisons]
    return "\n".join(table(one, fmt=fmt) for one in found or [main])


def find_runs(folders: list[Path]) -> list[Path]:
    """Return the run folders among ``folders`` and directly inside them."""
    found: list[Path] = []
    for folder in folders:
        inside = sorted(config.parent for config in folder.glob("*/config.json")) if folder.is_dir() else []
        found += inside if inside and not (folder / "config.json").is_file() else [folder]
    return found
