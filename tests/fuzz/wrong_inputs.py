"""Some hundred wrong command lines, the same ones for the same seed, and what the command line makes of them."""

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from .ground import Ground
from .lines import LINES
from .runs import RUNS
from .sets import SETS
from .wrong import Wrong, outcome

FAMILIES: dict[str, Callable[[Random, Ground], Iterator[Wrong]]] = {
    **{make.__name__: (lambda rng, _, make=make: make(rng)) for make in LINES},
    **{make.__name__: make for make in (*RUNS, *SETS)},
}
"""Every kind of wrong input by its name."""


def of_family(name: str, ground: Ground, *, seed: int = 0) -> Iterator[Wrong]:
    """Yield the wrong inputs of one kind, each once, in an order that the seed decides."""
    seen: set[tuple[str, ...]] = set()
    for wrong in FAMILIES[name](Random(f"{name} {seed}"), ground):
        if wrong.key not in seen:
            seen.add(wrong.key)
            yield wrong


def cases(count: int, ground: Ground, *, seed: int = 0) -> list[Wrong]:
    """Return so many different wrong inputs, the kinds taking turns.

    Raises:
        ValueError: If there are not so many.
    """
    found: dict[tuple[str, ...], Wrong] = {}
    turns = {name: of_family(name, ground, seed=seed) for name in FAMILIES}
    while len(found) < count and turns:
        for name, family in list(turns.items()):
            wrong = next(family, None)
            if wrong is None:
                del turns[name]
            elif len(found) < count:
                found.setdefault(wrong.key, wrong)
    if len(found) < count:
        raise ValueError(f"count must be at most {len(found)}, got {count}")
    return list(found.values())


@contextlib.contextmanager
def grounds() -> Iterator[Ground]:
    """Make what wrong inputs are about, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="ground-") as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            ground = Ground(Path(folder))
        yield ground


def run(count: int = 300, seed: int = 0) -> dict[str, Any]:
    """Try so many wrong inputs and return a record of what came of them.

    The record has ``wrong_inputs`` (how many), ``tracebacks`` (inputs that ended in a traceback, or in an error that
    the command line has no words for), ``faults`` (inputs that broke any law, tracebacks included) with the first of
    them in words under ``examples``, and inputs ``by_command`` and by exit code.
    """
    commands: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    tracebacks, faults = 0, []
    with grounds() as ground:
        for wrong in cases(count, ground, seed=seed):
            found = outcome(wrong)
            commands[wrong.command] += 1
            codes[str(found.code)] += 1
            tracebacks += found.is_traceback
            if broken := found.faults(wrong):
                faults.append(f"{wrong}: {'; '.join(broken)}")
    return {
        "event": "fuzz",
        "seed": seed,
        "wrong_inputs": sum(commands.values()),
        "tracebacks": tracebacks,
        "faults": len(faults),
        "examples": faults[:10],
        "by_command": dict(sorted(commands.items())),
        "by_exit_code": dict(sorted(codes.items())),
    }


def faults_of(name: str, count: int, ground: Ground, *, seed: int = 0) -> tuple[int, list[str]]:
    """Return how many inputs of one kind were tried, at most ``count``, and in what they broke the law."""
    tried, faults = 0, []
    for wrong in islice(of_family(name, ground, seed=seed), count):
        tried += 1
        faults += [f"{wrong}: {fault}" for fault in outcome(wrong).faults(wrong)]
    return tried, faults
