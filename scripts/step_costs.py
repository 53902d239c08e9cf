"""Measure what a step of every arm of the studies at equal seconds costs, in steps of plain training.

Makes the records behind ``COSTS`` in ``studies/seconds.py``: one thread, which is what a run of a study
on a CPU has, rounds of one step of every arm in turn. Images of CIFAR-10 are noise of its shape. Run::

    python scripts/step_costs.py --out benchmarks/step-recipes-cpu.jsonl
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from multimix.lab.bench import Case, Comparison, measure, rates
from multimix.lab.bench.step import engine_step, random_images
from multimix.lab.cli.bench import show, write
from multimix.lab.data import Splits
from multimix.lab.recipes import Study
from multimix.lab.train import Engine, TrainConfig
from multimix.lab.train.network import load_data

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "studies"))

from seconds import cifar10_small_seconds, digits_seconds


def comparison(study: Study, rounds: int) -> Comparison:
    """Return the comparison of a study's arms, each with its own network."""
    plans = {label: replace(found[0], device="cpu") for label, found in study.arms.items()}
    base = plans[study.against]
    splits = data_of(base)
    cases = {label: Case(label, engine_step(Engine(plan, splits))) for label, plan in plans.items()}
    shape = {"recipe": base.recipe, "width": base.width, "b": base.batch_size, "px": splits.shape[1]}
    return Comparison("training step of a recipe", shape, cases.pop(study.against), tuple(cases.values()), rounds)


def data_of(config: TrainConfig) -> Splits:
    """Return the data of a recipe if they come with the installation, else noise of their shape."""
    return load_data(config) if config.data == "digits" else random_images(1024, 32, classes=10)


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of records (JSON lines) to write")
    parser.add_argument("--rounds", type=int, default=41, help="steps of each arm that are timed (default: 41)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    machine = rates(device)
    results = []
    for study in (digits_seconds(), cifar10_small_seconds()):
        asked = comparison(study, given.rounds)
        found = measure(asked, device)
        show(asked, found)
        results += found
        write(given.out, results, device, {1: machine})


if __name__ == "__main__":
    main()
