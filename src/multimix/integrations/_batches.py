"""What hosts make of mini-batches: their parts, weights of examples, and what clean inputs are judged by."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from multimix.methods._predict import begin, is_label_map, on_grid
from multimix.ops import (
    BinaryCrossEntropy,
    CrossEntropy,
    Objective,
    SampleWeighted,
    accurate,
    check_fit,
    no_autocast,
    objective_of,
)
from multimix.protocols import Network, encode, pool

WEIGHTS = "sample_weight"
"""What the weights of examples are called in a mini-batch that is a mapping."""


class Parts(NamedTuple):
    """What a mini-batch consists of."""

    inputs: Any
    targets: Any = None
    weights: Tensor | None = None
    """How much each example counts, (b,)."""


def parts_of(batch: Mapping[str, Any], label: str = "labels") -> Parts:
    """Return the parts of a mapping; inputs that are a single floating-point tensor come as that tensor."""
    inputs = {key: value for key, value in batch.items() if key not in (label, WEIGHTS)}
    first = next(iter(inputs.values()), None)
    alone = len(inputs) == 1 and isinstance(first, Tensor) and first.is_floating_point()
    return Parts(first if alone else inputs, batch.get(label), batch.get(WEIGHTS))


def weighted(own: Objective, targets: Tensor, weights: Tensor, outputs: int) -> tuple[Objective, Tensor]:
    """Return the objective of examples that have weights, and their rows; all weights may be 0."""
    objective = SampleWeighted(own)
    none = isinstance(weights, Tensor) and not weights.any()
    rows = objective.join(targets, torch.ones_like(weights) if none else weights, outputs)
    return objective, torch.zeros_like(rows) if none else rows


class Mean(NamedTuple):
    """A mean, and how much it is taken over: what it weighs in the mean over several mini-batches."""

    value: Tensor
    mass: Tensor


def judge(
    network: Network, inputs: Any, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, dict[str, Mean]]:
    """Return the outputs of clean inputs, and their loss and accuracy, each over what counts.

    Accuracy is that of classes, of examples or positions that have a label, or of every label of several.
    """
    targets = begin(network, targets, None, called=True)
    if is_label_map(targets):
        encoded = encode(network, inputs)
        outputs, grid = network.classify(pool(network, encoded)), encoded.grid
    else:
        outputs, grid = network(inputs), None
    objective, k = objective_of(network), outputs.shape[-1]
    targets = on_grid(grid, targets, outputs)
    rows = objective.targets(targets, k)
    check_fit(targets, rows, outputs)
    kind = objective
    if weights is not None:
        objective, rows = weighted(objective, targets, weights, k)
    values = accurate(outputs)
    with no_autocast(outputs.device.type):
        mass = torch.ones_like(values[..., 0]) if objective.is_plain else objective.terms(values, rows.to(values))[1]
    found = {"loss": Mean(objective(outputs, rows), mass.sum())}
    hits = _hits(kind, outputs, rows[..., -k:])
    if hits is not None:
        known = objective.known(rows)
        counted = torch.ones_like(hits) if known is None else known.to(hits)
        counted = counted if weights is None else counted * rows[..., 0].to(hits)
        found["accuracy"] = Mean((hits * counted).sum() / counted.sum().clamp_min(1e-30), counted.sum())
    return outputs, found


def _hits(objective: Objective, outputs: Tensor, wanted: Tensor) -> Tensor | None:
    """Return what share of each row is predicted right, in [0, 1]; None of values."""
    if isinstance(objective, CrossEntropy):
        return (outputs.argmax(-1) == wanted.argmax(-1)).float()
    if isinstance(objective, BinaryCrossEntropy):
        return ((outputs > 0) == (wanted > 0.5)).float().mean(-1)
    return None
