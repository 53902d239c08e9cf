"""Does MultiMix pay without images: tables by the scikit-learn estimator, sequences by a loop of one's own?

Writes the records of two studies, one with a table of rows for every data set that comes with scikit-learn, one with
digits read row by row as a sequence of 8 vectors by a small GRU. Seeds are stratified splits, and the same seed has the
same split and the same initial weights for all methods; nothing is tuned. Run, each a few minutes on a quiet core::

    python studies/vectors.py tabular --out studies/tabular.jsonl
    python studies/vectors.py sequence --out studies/sequence.jsonl
"""

import argparse
import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from torch import Generator, Tensor, nn

import multimix as mm
from comparison import first_candidate
from multimix.integrations.sklearn import MultiMixClassifier
from multimix.lab.evaluate.calibration import expected_calibration_error, negative_log_likelihood
from multimix.lab.evaluate.passes import predict
from multimix.lab.report import Record
from multimix.lab.runs.environment import describe
from multimix.lab.train import to_json
from multimix.methods import ERM
from multimix.protocols import Method, Network

TABLES: Mapping[str, Callable[..., Any]] = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits-table": load_digits,
}
METHODS = ("mixup", "manifold-mixup", "multimix", "multimix-balanced", "multimix-recommended")
SEQUENCE_METHODS = (*METHODS, "dense-multimix")
TABULAR: Mapping[str, Any] = {"hidden": (64, 64), "epochs": 60, "batch_size": 64, "learning_rate": 3e-3}
SEQUENCE: Mapping[str, Any] = {"hidden": 64, "epochs": 20, "batch_size": 64, "learning_rate": 1e-2}
HELD = 0.3
"""Share of the examples that each split tests on."""


class Split(NamedTuple):
    """Examples to train on and to test on, and their classes."""

    train: np.ndarray
    test: np.ndarray
    train_classes: np.ndarray
    test_classes: np.ndarray


def split(load: Callable[..., Any], seed: int) -> Split:
    """Return a stratified split of a data set of scikit-learn."""
    x, y = load(return_X_y=True)
    return Split(*train_test_split(x, y, test_size=HELD, stratify=y, random_state=seed))


def methods(names: tuple[str, ...]) -> dict[str, Method]:
    """Return plain training and the first candidate of each method, which the trials of other studies chose."""
    return {"erm": ERM(), **{name: first_candidate(name) for name in names}}


def tabular(seeds: int) -> Iterator[Record]:
    """Yield the records of every table, seed and method."""
    for data, load in TABLES.items():
        for seed in range(seeds):
            parts = split(load, seed)
            for label, method in methods(METHODS).items():
                classifier = MultiMixClassifier(**TABULAR, method=method, random_state=seed, device="cpu")
                classifier.fit(parts.train, parts.train_classes)
                logits = torch.from_numpy(np.log(classifier.predict_proba(parts.test).clip(1e-300)))
                about = {"data": data, "model": "mlp", "seed": seed, "label": label}
                yield from measured(logits, torch.from_numpy(parts.test_classes), about, method, TABULAR)


class Reader(nn.Module):
    """A GRU over rows of pixels, the mean over its outputs, and a linear head; it knows nothing of this library."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = nn.Linear(8, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the logits (b, 10) of sequences (b, 8, 8)."""
        outputs, _ = self.gru(self.rows(rows))
        return self.head(outputs.mean(1))


def sequence(seeds: int) -> Iterator[Record]:
    """Yield the records of every seed and method on digits as sequences."""
    for seed in range(seeds):
        parts = split(load_digits, seed)
        rows, test = (torch.from_numpy(part).float().reshape(-1, 8, 8) / 16 for part in (parts.train, parts.test))
        classes, truth = (torch.from_numpy(part) for part in (parts.train_classes, parts.test_classes))
        for label, method in methods(SEQUENCE_METHODS).items():
            torch.manual_seed(seed)
            network = mm.adapt(Reader(SEQUENCE["hidden"]), encoder="gru", head="head", stages=("rows",))
            learn(network, copy.deepcopy(method), rows, classes, seed)
            logits, _ = predict(network, [(test, truth)])
            about = {"data": "digits-rows", "model": "gru", "seed": seed, "label": label}
            yield from measured(logits, truth, about, method, SEQUENCE)


def learn(network: Network, method: Method, rows: Tensor, classes: Tensor, seed: int) -> None:
    """Train as somebody would who writes the loop by hand: AdamW, whose rate falls to 0 along half a cosine."""
    order, drawn = (Generator().manual_seed(seed) for _ in range(2))  # so that all methods see the same mini-batches
    epochs, size = SEQUENCE["epochs"], SEQUENCE["batch_size"]
    steps = epochs * math.ceil(len(rows) / size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=SEQUENCE["learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows), generator=order).split(size):
            losses = method(network, rows[batch], classes[batch], generator=drawn)
            losses.total.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()


@cache
def where() -> dict[str, Any]:
    """Return what a record says of its machine."""
    about = describe(torch.device("cpu"))
    return {name: about[name] for name in ("commit", "device", "torch")}


def measured(
    logits: Tensor, classes: Tensor, about: Mapping[str, Any], method: Method, settings: Mapping[str, Any]
) -> Iterator[Record]:
    """Yield one record a metric, in the form of the records of runs."""
    found = {
        "accuracy": float((logits.argmax(1) == classes).double().mean()),
        "nll": negative_log_likelihood(logits, classes),
        "ece": expected_calibration_error(logits.double().softmax(1), classes),
    }
    written = {"method": to_json(method), "held": HELD, **settings}
    for metric, value in found.items():
        yield {
            "metric": metric,
            "value": value,
            **about,
            "method": type(method).__name__,
            "epochs": settings["epochs"],
            "config": hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:10],
            **where(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "examples": len(classes),
            "suite": "accuracy",
            "settings": None,
        }


CASES: Mapping[str, Callable[[int], Iterator[Record]]] = {"tabular": tabular, "sequence": sequence}


def main(cases: Mapping[str, Callable[[int], Iterator[Record]]] = CASES) -> None:
    """Run a study and write its records."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=list(cases), help="which study")
    parser.add_argument("--out", type=Path, required=True, help="file of records (JSON lines) to write")
    parser.add_argument("--seeds", type=int, default=5, help="stratified splits, with seeds 0, 1, ... (default: 5)")
    given = parser.parse_args()
    torch.set_num_threads(1)  # rows this narrow are not worth two
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", encoding="utf-8", buffering=1) as file:  # line by line, so that a stop loses little
        for row in cases[given.case](given.seeds):
            file.write(json.dumps(row) + "\n")
    print(f"records: {given.out}")


if __name__ == "__main__":
    main()
