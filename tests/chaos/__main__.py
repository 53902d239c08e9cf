"""``python -m chaos [--out FILE] [PART ...]``: kills, parity, wrong inputs and a soak, a record a line.

Minutes each; the short forms are among the tests.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from chaos import kills, parity, soak
from fuzz import wrong_inputs
from multimix.lab.runs.environment import describe

PARTS: dict[str, Callable[[Path], Iterable[dict[str, Any]]]] = {
    "kills": lambda folder: [kills.run(folder, kills=50)],
    "parity": lambda folder: parity.run(),
    "fuzz": lambda folder: [wrong_inputs.run(300, 0)],
    "soak": lambda folder: [soak.run(5000)],
}


def main() -> int:
    """Run the parts and return 1 if one of them does not hold its bar."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--out", type=Path, help="append the records to this file, too")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"PART must be of {', '.join(PARTS)}, got {', '.join(unknown)}")
    failed = 0
    for name in given.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for record in PARTS[name](Path(folder)):
                failed += not record.get("passed", True)
                line = json.dumps({**record, **describe(torch.device("cpu"))})
                print(line, flush=True)
                if given.out is not None:
                    given.out.parent.mkdir(parents=True, exist_ok=True)
                    with given.out.open("a", encoding="utf-8") as file:
                        file.write(line + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
