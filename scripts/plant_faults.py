"""Plant faults in the source, one at a time in a copy, and say which of them no test notices.

    python scripts/plant_faults.py --faults 60 --seed 1 --out faults.jsonl

A fault is a small change: a comparison at its edge, a sign, a constant, a lost check or call, swapped arguments. The
tests of the room that the changed file belongs to run against it, those of neighbours behind them.
"""

import argparse
import ast
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("src/multimix")
TESTS = {
    "lab/runs": ["tests/lab/runs", "tests/lab/train", "tests/lab/detect", "tests/parallel"],
    "lab/train": ["tests/lab/train", "tests/lab/cli", "tests/parallel"],
    "lab/detect": ["tests/lab/detect", "tests/lab/cli"],
    "lab/evaluate": ["tests/lab/evaluate", "tests/fuzz/test_config.py", "tests/lab/report", "tests/lab/cli"],
    "lab/report": ["tests/lab/report", "tests/lab/cli"],
    "lab/data": ["tests/lab/data", "tests/lab/train", "tests/lab/cli"],
    "lab/bench": ["tests/lab/bench", "tests/lab/cli"],
    "lab/recipes": ["tests/lab/recipes", "tests/lab/cli", "tests/studies"],
    "lab": ["tests/lab/cli", "tests/lab"],
    "ops": ["tests/ops", "tests/fuzz", "tests/methods", "tests/parallel"],
    "methods": ["tests/methods", "tests/distill", "tests/fuzz"],
    "distill": ["tests/distill", "tests/methods"],
    "models": ["tests/models", "tests/methods", "tests/integrations"],
    "integrations": ["tests/integrations", "tests/fuzz"],
    "": ["tests/methods", "tests/ops", "tests/models", "tests/integrations", "tests/fuzz"],
}
"""Where a room's faults should be found: the longest beginning of a file's path that is named here counts."""
EDGES = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
OPPOSITES = {**EDGES, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}
SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


@dataclass(frozen=True)
class Fault:
    """One change of one expression or statement."""

    file: str
    line: int
    kind: str
    before: str
    after: str
    start: int
    end: int


def main() -> int:
    """Plant faults and print what became of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", default="2", help="processes of pytest")
    parser.add_argument("--room", default="", help="plant in this part of the package only")
    parser.add_argument("--out", type=Path, help="append records to this file")
    given = parser.parse_args()
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        subprocess.run(["git", "clone", "-q", ROOT, copy], check=True)
        for i, fault in enumerate(chosen(copy, given.faults, given.seed, given.room), 1):
            began = time.monotonic()
            found_by = tried(copy, fault, given.workers)
            survived += found_by is None
            record = {**asdict(fault), "found_by": found_by, "seconds": round(time.monotonic() - began)}
            print(
                f"{i:3} {fault.file}:{fault.line} {fault.kind}: {fault.before!r} -> {fault.after!r}: {found_by}",
                flush=True,
            )
            if given.out:
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
    print(f"{survived} of {given.faults} faults were not noticed")
    return 0


def chosen(copy: Path, count: int, seed: int, room: str) -> list[Fault]:
    """Return so many faults, each in a place drawn over all of the package's lines."""
    draw = random.Random(seed)
    files = sorted(f for f in (copy / PACKAGE / room).rglob("*.py") if f.stem != "__init__")
    weights = [len(f.read_text(encoding="utf-8").splitlines()) for f in files]
    faults: dict[tuple[str, int], Fault] = {}
    while len(faults) < count:
        file = draw.choices(files, weights)[0]
        by_kind: dict[str, list[Fault]] = {}
        for fault in candidates(file, copy):
            by_kind.setdefault(fault.kind, []).append(fault)
        if by_kind:
            fault = draw.choice(by_kind[draw.choice(sorted(by_kind))])
            faults[fault.file, fault.start] = fault
    return list(faults.values())


def candidates(file: Path, copy: Path) -> Iterator[Fault]:
    """Yield every fault that this script knows of a file."""
    source = file.read_text(encoding="utf-8")
    lines = [0, *(i + 1 for i, letter in enumerate(source) if letter == "\n")]
    name = str(file.relative_to(copy))

    def place(line: int, column: int) -> int:
        begin = lines[line - 1]
        return begin + len(source[begin:].encode()[:column].decode())

    for node in meant(ast.parse(source)):
        for kind, after in changes(node):
            start, end = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
            yield Fault(name, node.lineno, kind, source[start:end], after, start, end)


def meant(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that say what the program does: no annotations, texts, imports or assignments of ``__all__``."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, (ast.Import, ast.ImportFrom, ast.JoinedStr)) or not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "__all__":
                continue
            yield child
            if not isinstance(child, ast.Raise):  # words of messages are not looked at
                yield from meant(child)


def changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield what could be wrong with one node: the kind of fault and the code in its place."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPPOSITES:
        wrong = ast.Compare(node.left, [OPPOSITES[type(node.ops[0])]()], node.comparators)
        yield "comparison", ast.unparse(wrong)
    elif (
        isinstance(node, ast.BinOp)
        and type(node.op) in SIGNS
        and not isinstance(node.left, (ast.JoinedStr, ast.Constant))
    ):
        yield "sign", ast.unparse(ast.BinOp(node.left, SIGNS[type(node.op)](), node.right))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield "negation", f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.BoolOp):
        yield "and/or", ast.unparse(ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", repr(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "constant", repr(node.value + 1 if isinstance(node.value, int) else node.value * 1.5 + 0.1)
    elif isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise) and not node.orelse:
        yield "lost check", "pass"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "lost call", "pass"
    elif isinstance(node, ast.Call) and len(node.args) == 2 and all(isinstance(a, ast.Name) for a in node.args):
        yield "swapped arguments", ast.unparse(ast.Call(node.func, node.args[::-1], node.keywords))


def tried(copy: Path, fault: Fault, workers: str) -> str | None:
    """Return the first test that notices a fault; None if all pass."""
    file = copy / fault.file
    source = file.read_text(encoding="utf-8")
    file.write_text(source[: fault.start] + fault.after + source[fault.end :], encoding="utf-8")
    try:
        inner = Path(fault.file).relative_to(PACKAGE).as_posix()
        room = max((name for name in TESTS if inner.startswith(name)), key=len)
        for tests in TESTS[room]:
            if (copy / tests).is_dir() and (found := failing(copy, tests, workers)):
                return found
        return None
    finally:
        file.write_text(source, encoding="utf-8")


def failing(copy: Path, tests: str, workers: str) -> str | None:
    """Return the first failing test of a folder, or what stopped them all."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-n",
        workers,
        "--dist",
        "loadfile",
        "-m",
        "not sweep",
        tests,
    ]
    where = {**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(command, cwd=copy, env=where, capture_output=True, text=True, timeout=900, check=False)
    except subprocess.TimeoutExpired:
        return f"{tests} did not end"
    if run.returncode == 0:
        return None
    said = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return said[0][:160] if said else (run.stdout + run.stderr).strip().splitlines()[-1][:160]


if __name__ == "__main__":
    sys.exit(main())
