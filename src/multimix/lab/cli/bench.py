"""``multimix bench``."""

import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from multimix.lab.bench import BENCHES, Comparison, Rates, Result, measure, rates
from multimix.lab.cli._parser import Options, Parser, output_file
from multimix.lab.runs.environment import describe

OPTIONS: Options = {
    "suite": {"choices": list(BENCHES), "help": "what to measure"},
    "--out": {"type": output_file, "help": "file of records (JSON lines) to write"},
    "--device": {"default": "cuda" if torch.cuda.is_available() else "cpu", "choices": ("cpu", "cuda")},
}


def main(arguments: list[str]) -> None:
    """Measure speed as ratios, print them beside their bars and write records."""
    about = "Measure speed as ratios within one run, beside their bars."
    given = Parser(OPTIONS, prog="multimix bench", description=about).parse_args(arguments)
    device = torch.device(given.device)
    results, machine = [], rates(device)
    for make in BENCHES[given.suite](device):
        comparison = make()
        found = measure(comparison, device, machine)
        show(comparison, found)
        results += found
        if given.out is not None:  # after every comparison, so that a stop loses only the one under way
            write(given.out, results, device, machine)


def show(comparison: Comparison, results: list[Result]) -> None:
    """Print a comparison as a table."""
    shape = ", ".join(f"{name} {value}" for name, value in comparison.shape.items())
    table = Table(title=f"{comparison.name} ({shape}; {comparison.rounds} rounds)", title_justify="left")
    for heading in ("case", "ms p20", "ms p50", "ms p80", "ratio", "bar", "× floor", "MiB", "ratio", "bar", ""):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for r in results:
        table.add_row(
            r.case,
            *(f"{1e3 * seconds:.2f}" for seconds in (r.seconds_p20, r.seconds_p50, r.seconds_p80)),
            f"{r.ratio:.3f}",
            "" if r.ratio_most is None else f"≤ {r.ratio_most:.3f}",
            "" if r.seconds_floor is None else f"{r.seconds_p50 / r.seconds_floor:.2f}",
            f"{r.peak_bytes / 2**20:.1f}",
            "" if r.peak_ratio is None else f"{r.peak_ratio:.3f}",
            "" if r.peak_ratio_most is None else f"≤ {r.peak_ratio_most:.3f}",
            {None: "", True: "met", False: "MISSED"}[r.met],
        )
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console.width = 160
    console.print(table)


def write(path: Path, results: list[Result], device: torch.device, machine: Rates) -> None:
    """Write one record a result, with device, its measured rates, versions, commit and date."""
    where = describe(device)
    about = {key: where[key] for key in ("device", "device_name", "threads", "torch", "multimix", "commit")}
    about |= {"flops_per_second": machine.flops, "bytes_per_second": machine.bytes}
    about["date"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({**asdict(result), "met": result.met, **about}) for result in results]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
