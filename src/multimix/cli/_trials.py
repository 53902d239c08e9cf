"""Trials: which candidate of each arm of a study validation prefers."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from multimix.recipes import Study
from multimix.recipes.study import TRIAL_SEED
from multimix.train import TrainConfig, to_json
from multimix.train.folder import RunFolder
from multimix.train.many import run_all
from multimix.train.state import replacing


def choose(study: Study, out: Path, *, jobs: int, quiet: bool) -> dict[str, int]:
    """Run the trials of a study, write ``trials.jsonl`` and return the number of the best candidate by label.

    A trial never sees the test set; the candidate with the highest validation accuracy after its last epoch, the mean
    over its trials, is chosen, the first of several that are equally good.

    Raises:
        ValueError: If there is nothing to choose by: ``validation`` is 0.
    """
    trials = study.trials()
    if not trials:
        return {}
    if any(config.validation == 0 for config in trials.values()):
        raise ValueError("validation must be above 0 where candidates are chosen by it, got 0")
    folders = {key: out / "trials" / _folder(config) for key, config in trials.items()}
    run_all({folders[key]: config for key, config in trials.items()}, jobs=jobs, quiet=quiet)
    last = {key: _last(folder) for key, folder in folders.items()}
    best = _best({key: score["validation_accuracy"] for key, score in last.items()})
    lines = [
        {
            "label": label,
            "candidate": number,
            "method": to_json(trials[label, number, seed].method),
            "weight_decay": trials[label, number, seed].optimizer.weight_decay,
            "epochs": trials[label, number, seed].epochs,
            "seed": seed,
            "validation_accuracy": score["validation_accuracy"],
            "validation_nll": score["validation_nll"],
            "chosen": best[label] == number,
            **_environment(folders[label, number, seed]),
        }
        for (label, number, seed), score in sorted(last.items(), key=lambda item: _place(study, item[0]))
    ]
    with replacing(out / "trials.jsonl") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
    return best


def _best(scores: Mapping[tuple[str, int, int], float]) -> dict[str, int]:
    """Return the candidate with the best mean by label, given scores by label, number and seed."""
    means: dict[tuple[str, int], list[float]] = {}
    for (label, number, _), score in scores.items():
        means.setdefault((label, number), []).append(score)
    best: dict[str, int] = {}
    for label, number in means:
        rival = best.setdefault(label, number)
        if fmean(means[label, number]) > fmean(means[label, rival]):
            best[label] = number
    return best


def _folder(config: TrainConfig) -> str:
    return config.label if config.seed == TRIAL_SEED else f"{config.label}-seed{config.seed}"


def _place(study: Study, key: tuple[str, int, int]) -> tuple[int, int, int]:
    return list(study.arms).index(key[0]), *key[1:]


def _last(folder: Path) -> dict[str, Any]:
    return [event for event in RunFolder(folder).metrics.read() if event["event"] == "epoch"][-1]


def _environment(folder: Path) -> dict[str, Any]:
    there = json.loads(RunFolder(folder).environment_file.read_text(encoding="utf-8"))
    return {name: there.get(name) for name in ("device", "torch", "commit")}
