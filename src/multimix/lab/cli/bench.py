"""``multimix bench``."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from multimix.lab.bench import BENCHES, HEADINGS, Comparison, Rates, Result, counted, grouped, measure, rates
from multimix.lab.cli._parser import Options, Parser, at_least, output_file
from multimix.lab.runs.environment import describe, keep_freed_memory

OPTIONS: Options = {
    "suite": {"choices": list(BENCHES), "help": "what to measure"},
    "--out": {"type": output_file, "help": "file of records (JSON lines) to write"},
    "--threads": {
        **{"type": at_least(1), "nargs": "+", "metavar": "N"},
        "help": "torch's threads, one table each (default: 1 and as many as there are; on a GPU these alone)",
    },
    "--rounds": {"type": at_least(1), "metavar": "N", "help": "at most so many rounds, for a try"},
    "--device": {"default": "cuda" if torch.cuda.is_available() else "cpu", "choices": ("cpu", "cuda")},
}


def main(arguments: list[str]) -> None:
    """Measure speed as ratios, print them beside their bars and write records."""
    about = "Measure speed as ratios within one run, beside their bars."
    given = Parser(OPTIONS, prog="multimix bench", description=about).parse_args(arguments)
    device, usual = torch.device(given.device), torch.get_num_threads()
    threads = given.threads or sorted({1, usual} if given.device == "cpu" else {usual})
    keep_freed_memory()  # as training does; the largest case would make every other one pay for fresh pages
    results: list[Result] = []
    machines: dict[int, Rates] = {}
    try:
        for make in BENCHES[given.suite](device):
            comparison, costs = make(), None
            comparison = replace(comparison, rounds=min(comparison.rounds, given.rounds or comparison.rounds))
            for number in [usual] if comparison.apart else threads:
                torch.set_num_threads(number)
                machines[number] = machines.get(number) or rates(device)
                costs = costs or counted(comparison, device)
                found = measure(comparison, device, machines[number], costs)
                show(comparison, found)
                results += found
                if given.out is not None:  # after every comparison, so that a stop loses only the one under way
                    write(given.out, results, device, machines)
    finally:
        torch.set_num_threads(usual)


def show(comparison: Comparison, results: list[Result]) -> None:
    """Print a comparison as a table."""
    for what, rows in grouped(asdict(result) | {"met": result.met} for result in results):
        table = Table(title=f"{what}; {comparison.rounds} rounds", title_justify="left")
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading == "case" else "right")
        for row in rows:
            table.add_row(*row[:-1], row[-1].replace("**missed**", "MISSED"))
        console = Console()
        if not console.is_terminal:  # a file or a pipe has no width of its own
            console.width = 170
        console.print(table)


def write(path: Path, results: list[Result], device: torch.device, machines: Mapping[int, Rates]) -> None:
    """Write one record a result, with device, its measured rates by number of threads, versions, commit and date."""
    where = describe(device)
    about = {key: where[key] for key in ("device", "device_name", "torch", "multimix", "commit", "date")}
    rate = {n: {"flops_per_second": found.flops, "bytes_per_second": found.bytes} for n, found in machines.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({**asdict(each), "met": each.met, **about, **rate[each.threads]}) for each in results]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
