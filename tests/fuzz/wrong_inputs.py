"""Some hundred wrong command lines, the same ones for the same seed, and what the command line makes of them."""

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from . import files, lines  # noqa: F401 (their families)
from .ground import Ground
from .wrong import FAMILIES, Wrong, outcome


def of_family(name: str, ground: Ground, *, seed: int = 0) -> list[Wrong]:
    """Return the wrong inputs of one kind, each once, in an order that the seed decides."""
    rng = Random(f"{name} {seed}")
    found = list({wrong.key: wrong for wrong in FAMILIES[name](rng, ground)}.values())
    rng.shuffle(found)
    return found


def cases(count: int, ground: Ground, *, seed: int = 0) -> list[Wrong]:
    """Return so many different wrong inputs, the kinds taking turns."""
    ranked = [(i, wrong) for name in FAMILIES for i, wrong in enumerate(of_family(name, ground, seed=seed))]
    ranked.sort(key=lambda pair: pair[0])
    return list({wrong.key: wrong for _, wrong in ranked}.values())[:count]


@contextlib.contextmanager
def grounds() -> Iterator[Ground]:
    """Make what wrong inputs are about, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="ground-") as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            ground = Ground(Path(folder))
        yield ground


def run(count: int = 300, seed: int = 0) -> dict[str, Any]:
    """Try so many wrong inputs and return a record of what came of them: ``faults`` are those that broke any law."""
    with grounds() as ground:
        tried = [(wrong, outcome(wrong)) for wrong in cases(count, ground, seed=seed)]
    faults = [f"{wrong}: {'; '.join(broken)}" for wrong, found in tried if (broken := found.faults(wrong))]
    return {
        "event": "fuzz",
        "seed": seed,
        "wrong_inputs": len(tried),
        "tracebacks": sum(found.is_traceback for _, found in tried),
        "faults": len(faults),
        "examples": faults[:10],
        "by_command": dict(sorted(Counter(wrong.command for wrong, _ in tried).items())),
        "by_exit_code": dict(sorted(Counter(str(found.code) for _, found in tried).items())),
    }
