"""``multimix report``."""

from pathlib import Path
from typing import get_args

from multimix.cli._parser import Parser
from multimix.report import Format, page, read_records, read_run, records, summarise, table, write_records


def main(arguments: list[str]) -> None:
    """Print the table of runs or records, and write one self-contained page of runs."""
    parser = Parser(prog="multimix report", description="Make a table and one self-contained page of runs.")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folder, a folder of run folders, or one file of records"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="where the page goes")
    parser.add_argument("--format", choices=get_args(Format), default="plain", help="of the table")
    parser.add_argument("--records", type=Path, metavar="FILE", help="also write the records (JSON lines)")
    given = parser.parse_args(arguments)
    if len(given.runs) == 1 and given.runs[0].is_file():
        print(table(summarise(read_records(given.runs[0])), fmt=given.format))
    else:
        report(find_runs(given.runs), given.out, fmt=given.format, keep=given.records)


def report(folders: list[Path], out: Path, *, fmt: Format = "plain", keep: Path | None = None) -> None:
    """Print the table of the runs in ``folders`` and write the page, and the records if asked to.

    Raises:
        FileNotFoundError: If there is no run.
    """
    runs = [read_run(folder) for folder in folders]
    written = page(runs, out)
    if any(run.finished for run in runs):
        print(table(summarise(records(runs)), fmt=fmt))
    else:
        print("no run has finished yet: there is no table")
    if keep is not None:
        write_records(keep, runs)
        print(f"records: {keep}")
    print(f"report: {written}")


def find_runs(folders: list[Path]) -> list[Path]:
    """Return the run folders among ``folders`` and directly inside them."""
    found: list[Path] = []
    for folder in folders:
        inside = sorted(config.parent for config in folder.glob("*/config.json")) if folder.is_dir() else []
        found += inside if inside and not (folder / "config.json").is_file() else [folder]
    return found
