"""``multimix report``."""

from pathlib import Path

from multimix.cli._arguments import Parser
from multimix.report import page, read_run, records, summarise, table


def main(arguments: list[str]) -> None:
    """Print the table of runs and write one self-contained page."""
    parser = Parser(prog="multimix report", description="Make one self-contained page of runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, or a folder of run folders")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="where the page goes")
    given = parser.parse_args(arguments)
    report(given.runs, given.out)


def report(folders: list[Path], out: Path) -> None:
    """Print the table of the runs in ``folders`` and write the page.

    Raises:
        FileNotFoundError: If there is no run.
    """
    runs = [read_run(folder) for folder in find_runs(folders)]
    written = page(runs, out)
    if any(run.finished for run in runs):
        print(table(summarise(records(runs)), fmt="plain"))
    else:
        print("no run has finished yet: there is no table")
    print(f"report: {written}")


def find_runs(folders: list[Path]) -> list[Path]:
    """Return the run folders among ``folders`` and directly inside them."""
    found: list[Path] = []
    for folder in folders:
        inside = sorted(config.parent for config in folder.glob("*/config.json")) if folder.is_dir() else []
        found += inside if inside and not (folder / "config.json").is_file() else [folder]
    return found
