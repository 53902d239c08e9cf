"""Measure where the CPU time of a training step goes, part by part; ``make tables`` has the table.

One thread, steps of every case in turn, medians; images are noise but for those of the digits. Run::

    python scripts/step_parts.py --out benchmarks/step-parts-cpu.jsonl
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from multimix.distill import EMATeacher, SelfDistilled
from multimix.lab.bench.step import engine_step, random_images
from multimix.lab.recipes import recipe_named
from multimix.lab.runs.environment import describe
from multimix.lab.train import SGD, Engine, TrainConfig
from multimix.lab.train.network import load_data
from multimix.methods import ERM, DenseMultiMix, MultiMix, multimix

PARTS = (
    *("encoder, forward", "encoder, backward", "draw", "attention", "mixed loss", "loss, backward", "teacher's pass"),
    *("teacher's update", "optimiser", "mini-batch", "the rest"),
)
METHODS: dict[str, Callable[[], Any]] = {
    "erm": ERM,
    "multimix": MultiMix,
    "dense-multimix": DenseMultiMix,
    "distilled multimix": lambda: SelfDistilled(MultiMix()),
    "distilled dense-multimix": lambda: SelfDistilled(DenseMultiMix()),
}


class Stopwatch:
    """CPU time by part: of parts within each other, the inner one's time is not the outer one's."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._part, self._since = "mini-batch", time.process_time()

    def turn_to(self, part: str) -> str:
        """Count time for a part from now on, and return the one for which it was counted."""
        before, now = self._part, time.process_time()
        self.spent[before] += now - self._since
        self._part, self._since = part, now
        return before

    def around(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Return a call whose time is that of a part; where its features get their gradient, the encoder goes on."""

        def timed(*arguments: Any, **options: Any) -> Any:
            before = self.turn_to(part)
            try:
                result = call(*arguments, **options)
            finally:
                self.turn_to(before)
            if part == "encoder, forward":
                result.features.register_hook(lambda _: self.turn_to("encoder, backward") and None)
            return result

        return timed


@contextmanager
def watched(engine: Engine, watch: Stopwatch) -> Iterator[None]:
    """Have the parts of an engine's steps timed."""
    places = [
        *((average.network, "embed", "teacher's pass") for average in engine.averages()),
        (engine.network, "embed", "encoder, forward"),
        (engine.fabric, "backward", "loss, backward"),
        (engine.optimizer, "step", "optimiser"),
        (engine, "step", "the rest"),
        (EMATeacher, "update_", "teacher's update"),
        (multimix.TupleMethod, "draw_weights", "draw"),
        (DenseMultiMix, "attend", "attention"),
        (multimix, "mixed_losses", "mixed loss"),
    ]
    with ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(patch.object(owner, name, watch.around(getattr(owner, name), part)))
        yield


def step_parts(engine: Engine, step: Callable[[], object]) -> Mapping[str, float]:
    """Return the CPU seconds of each part of one step."""
    watch = Stopwatch()
    with watched(engine, watch):
        step()
        watch.turn_to("mini-batch")
    return watch.spent


def measured(base: TrainConfig, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a record a method: the median CPU seconds of each part of its steps and of all parts together."""
    splits = load_data(base) if base.data == "digits" else random_images(1024, 32, classes=100)
    engines = {name: Engine(replace(base, method=make()), splits) for name, make in METHODS.items()}
    steps = {name: engine_step(engine) for name, engine in engines.items()}
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in METHODS}
    for turn in range(rounds + 1):
        for name, engine in engines.items():
            parts = step_parts(engine, steps[name])
            if turn > 0:  # the first warms up
                found[name].append(parts)
    shape = {"model": base.model, "width": base.width, "b": base.batch_size, "px": splits.shape[1]}
    for name, taken in found.items():
        parts = {part: median(each.get(part, 0.0) for each in taken) for part in PARTS}
        total = median(sum(each.values()) for each in taken)
        yield {"case": name, "shape": shape, "rounds": rounds, "cpu_seconds": total, "parts": parts}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of records (JSON lines) to write")
    parser.add_argument("--rounds", type=int, default=7, help="steps at full width that count (default: 7)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    wide = TrainConfig(data="noise", width=64, optimizer=SGD(learning_rate=0.1), device="cpu")
    narrow = replace(recipe_named("digits"), device="cpu")
    where = describe(torch.device("cpu"))
    about = {key: where[key] for key in ("device_name", "torch", "multimix", "commit", "date")}
    found = [*measured(wide, given.rounds), *measured(narrow, 6 * given.rounds)]
    given.out.write_text("".join(json.dumps({**record, **about}) + "\n" for record in found), encoding="utf-8")


if __name__ == "__main__":
    main()
