"""``python studies/anatomy``."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # python has put the folder itself there

from anatomy import AnatomySettings, Record, anatomise, tables
from multimix.lab.cli import Parser, configured, guarded, output_file
from multimix.lab.recipes import RECIPES
from multimix.lab.train import TrainConfig
from multimix.lab.train.network import load_data

_SHOWN = ("summary", "layers", "layers-balanced")
"""Tables that are printed."""


def main(arguments: list[str]) -> None:
    """Train networks, take their gradients apart on the way, print tables and write records."""
    parser = Parser(
        prog="anatomy",
        usage="python studies/anatomy [--recipe NAME] [--methods NAME ...] [--seeds N] [--out FILE] [--FIELD VALUE]",
        description="Compare MultiMix's gradient with plain training's and with theory, by layer and over training.",
    )
    parser.add_argument("--recipe", default="digits", help=f"{', '.join(RECIPES)} (default: digits)")
    parser.add_argument("--methods", nargs="+", default=["erm"], metavar="NAME", help="to train with (default: erm)")
    parser.add_argument("--seeds", type=int, default=1, help="runs a method, with seeds 0, 1, ... (default: 1)")
    parser.add_argument("--batches", type=int, default=2, help="mini-batches to measure on (default: 2)")
    parser.add_argument("--tuples", type=int, default=4000, help="interpolated tuples of a gradient (default: 4000)")
    parser.add_argument("--out", type=output_file, help="file of records (JSON lines) to write")
    given, rest = parser.parse_known_args(arguments)
    if given.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {given.seeds}")
    settings = AnatomySettings(batches=given.batches, tuples=given.tuples)
    plans = [configured(given.recipe, name, rest, prog="anatomy") for name in dict.fromkeys(given.methods)]
    if len({plan.title for plan in plans}) < len(plans):
        raise ValueError("methods are told apart by their labels, so --label does not go with several of them")
    runs = [replace(plan, seed=seed) for plan in plans for seed in range(given.seeds)]
    show(measured(runs, settings, given.out))


def measured(runs: list[TrainConfig], settings: AnatomySettings, out: Path | None) -> list[Record]:
    """Return the records of all runs; what is there is in the file after each, so that a stop loses only one run."""
    splits = load_data(runs[0])
    records: list[Record] = []
    for config in runs:
        records += anatomise(config, splits, settings)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(record, separators=(",", ":")) for record in records]
            out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return records


def show(records: list[Record]) -> None:
    """Print the tables that say most."""
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console.width = 200
    for table in tables(records, _SHOWN):
        grid = Grid(title=table.title, title_justify="left")
        for place, heading in enumerate(table.headings):
            grid.add_column(heading, justify="left" if place == 0 else "right")
        for row in table.rows:
            grid.add_row(*row)
        console.print(grid)


if __name__ == "__main__":
    sys.exit(guarded("anatomy", partial(main, sys.argv[1:])))
