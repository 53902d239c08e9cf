"""Trials: which candidate of each arm of a study validation prefers."""

import json
from pathlib import Path
from typing import Any

from multimix.lab.recipes import Study
from multimix.lab.train import to_json
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.launch import Launch
from multimix.lab.train.many import run_all
from multimix.lab.train.state import replacing


def choose(study: Study, out: Path, launch: Launch) -> dict[str, int]:
    """Run the trials of a study, write ``trials.jsonl`` and return the number of the best candidate by label.

    A trial never sees the test set; the candidate with the highest validation accuracy after its last epoch is chosen,
    the first of several that are equally good.

    Raises:
        ValueError: If there is nothing to choose by: ``validation`` is 0.
        FailedRunsError: If a trial failed.
    """
    trials = study.trials()
    if not trials:
        return {}
    if any(config.validation == 0 for config in trials.values()):
        raise ValueError("validation must be above 0 where candidates are chosen by it, got 0")
    folders = {key: out / "trials" / config.label for key, config in trials.items()}
    run_all({folders[key]: config for key, config in trials.items()}, launch)
    last = {key: _last(folder) for key, folder in folders.items()}
    best: dict[str, int] = {}
    for label, number in last:
        rival = best.setdefault(label, number)
        if last[label, number]["validation_accuracy"] > last[label, rival]["validation_accuracy"]:
            best[label] = number
    lines = [
        {
            "label": label,
            "candidate": number,
            "method": to_json(trials[label, number].method),
            "weight_decay": trials[label, number].optimizer.weight_decay,
            "epochs": trials[label, number].epochs,
            "seed": trials[label, number].seed,
            "validation_accuracy": score["validation_accuracy"],
            "validation_nll": score["validation_nll"],
            "chosen": best[label] == number,
            **_environment(folders[label, number]),
        }
        for (label, number), score in last.items()
    ]
    with replacing(out / "trials.jsonl") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
    return best


def _last(folder: Path) -> dict[str, Any]:
    return [event for event in RunFolder(folder).metrics.read() if event["event"] == "epoch"][-1]


def _environment(folder: Path) -> dict[str, Any]:
    there = json.loads(RunFolder(folder).environment_file.read_text(encoding="utf-8"))
    return {name: there.get(name) for name in ("device", "torch", "commit")}
