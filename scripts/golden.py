"""Freeze what the package computes, so that a change of its code can be compared with what stood before.

``python scripts/golden.py write FILE`` runs every case and writes JSON lines: a name, the SHA-256 of the bytes and a
few numbers to read. ``python scripts/golden.py compare OLD NEW`` prints what differs, is gone or is new, and exits with
1 if there is any such entry. The package is the one on ``PYTHONPATH``, and only names that users call are used, so that
one script serves both. A case that raises is written with its error. Everything runs on the CPU, one thread a process.
"""

import json
import logging
import os
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
warnings.simplefilter("ignore")

USAGE = "usage: golden.py write FILE | golden.py compare OLD NEW"


def write(file: Path) -> None:
    """Run all cases, the command line beside the others, and write the entries in the order of their names."""
    import torch
    from golden_cases import methods, models, objectives, operations
    from golden_commands import commands
    from golden_hosts import hosts
    from golden_record import Golden

    import multimix

    started = time.perf_counter()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    golden, outside = Golden(), Golden()
    with tempfile.TemporaryDirectory() as folder:
        beside = threading.Thread(target=commands, args=(outside, Path(folder)))
        beside.start()
        for room in (methods, objectives, models, operations, hosts):
            room(golden)
            print(
                f"{room.__name__}: {len(golden.entries)} entries after {time.perf_counter() - started:.0f} s",
                flush=True,
            )
        beside.join()
    entries = golden.entries | outside.entries
    file.write_text("".join(json.dumps(entries[name]) + "\n" for name in sorted(entries)), encoding="utf-8")
    print(f"{len(entries)} entries of {multimix.__file__} in {time.perf_counter() - started:.0f} s")


def compare(old: Path, new: Path) -> bool:
    """Print how many entries are equal and every one that is not; return whether all are."""
    before, after = _read(old), _read(new)
    both = before.keys() & after.keys()
    differing = sorted(name for name in both if before[name]["sha256"] != after[name]["sha256"])
    for name in differing:
        print(f"differs: {name}: {_shown(before[name], after[name])}")
    for title, names in (("gone", before.keys() - after.keys()), ("new", after.keys() - before.keys())):
        for name in sorted(names):
            print(f"{title}: {name}: {str((before | after)[name]['numbers'])[:300]}")
    same = len(both) - len(differing)
    gone, added = len(before) - len(both), len(after) - len(both)
    print(f"{same} of {len(before)} entries are equal, {len(differing)} differ, {gone} are gone, {added} are new")
    return same == len(before) == len(after)


def _read(file: Path) -> dict[str, dict[str, Any]]:
    entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {entry["name"]: entry for entry in entries}


def _shown(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return both values; of long lists, from where they part."""
    one, other = before["numbers"], after["numbers"]
    if isinstance(one, list) and isinstance(other, list):
        pairs = enumerate(zip(one, other, strict=False))
        start = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
        if start and max(len(one), len(other)) > start:
            return f"from {start} on, {one[start : start + 4]} was, {other[start : start + 4]} is"
    return f"{str(one)[:400]} was, {str(other)[:400]} is"


def main(arguments: list[str]) -> int:
    """Return the exit code of a command line."""
    match arguments:
        case ["write", file]:
            write(Path(file))
            return 0
        case ["compare", old, new]:
            return 0 if compare(Path(old), Path(new)) else 1
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
