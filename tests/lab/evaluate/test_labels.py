"""Metrics of several labels an image, each against a loop that is written from its definition."""

import math

import pytest
import torch

from multimix.lab.evaluate import Accuracy
from multimix.lab.evaluate.labels import label_metrics


def average_precision(scores: list[float], truth: list[bool]) -> float:
    """Return the sum over thresholds, from high to low, of precision times gain in recall."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [t for s, t in zip(scores, truth, strict=True) if s >= threshold]
        recall = sum(chosen) / sum(truth)
        total += sum(chosen) / len(chosen) * (recall - before)
        before = recall
    return total


def f1(predicted: list[bool], truth: list[bool]) -> float:
    both = sum(p and t for p, t in zip(predicted, truth, strict=True))
    return 2 * both / (sum(predicted) + sum(truth))


def by_hand(logits, labels) -> dict[str, float]:
    rows = list(zip(logits.double().tolist(), (labels > 0).tolist(), strict=True))
    k = logits.shape[1]
    had = [j for j in range(k) if any(truth[j] for _, truth in rows)]
    columns = {j: ([row[j] for row, _ in rows], [truth[j] for _, truth in rows]) for j in had}
    costs = [math.log1p(math.exp(-x if t else x)) for row, truth in rows for x, t in zip(row, truth, strict=True)]
    return {
        "mean_average_precision": sum(average_precision(*columns[j]) for j in had) / len(had),
        "macro_f1": sum(f1([x > 0 for x in columns[j][0]], columns[j][1]) for j in had) / len(had),
        "exact_match": sum([x > 0 for x in row] == truth for row, truth in rows) / len(rows),
        "bce": sum(costs) / len(costs),
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [2, 5])
def test_metrics_are_those_of_their_definitions(ties, k):
    generator = torch.Generator().manual_seed(k)
    logits = torch.randn(40, k, generator=generator)
    logits = logits.round() if ties else logits
    labels = (torch.rand(40, k, generator=generator) < 0.4).float()
    labels[:, 1] *= labels[:, 0]
    labels[:, -1] = 0  # which no example has
    found = dict(label_metrics(logits, labels))
    assert found == pytest.approx(by_hand(logits, labels), rel=1e-12)
    assert all(type(value) is float for value in found.values())


def test_a_label_may_be_ruled_out():
    logits = torch.tensor([[-math.inf, 1.0], [2.0, -1.0]])
    found = dict(label_metrics(logits, torch.eye(2).flip(1)))
    assert found["mean_average_precision"] == found["exact_match"] == 1
    assert math.isfinite(found["bce"])
    assert dict(label_metrics(logits, torch.eye(2)))["bce"] == math.inf


def test_what_needs_a_label_is_left_out_where_there_is_none():
    found = dict(label_metrics(torch.tensor([[-1.0, 1.0], [-1.0, -1.0]]), torch.zeros(2, 2)))
    assert found.keys() == {"exact_match", "bce"}
    assert found["exact_match"] == 0.5


def test_accuracy_is_measured_of_whichever_labels_there_are():
    logits, labels = torch.randn(6, 3), torch.tensor([[1.0, 0, 1], [0, 1, 0]] * 3)
    batches = [(logits[:4], labels[:4]), (logits[4:], labels[4:])]
    assert dict(Accuracy(batches)(torch.nn.Identity())) == dict(label_metrics(logits, labels))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(4, 3), torch.ones(4, 2), r"labels must be 0 or 1 for each of logits \(4, 3\), got \(4, 2\)"),
        (torch.zeros(4, 3), torch.full((4, 3), 0.5), "labels must be 0 or 1 for each"),
        (torch.full((4, 3), math.nan), torch.ones(4, 3), r"logits must be \(n, k\) with n and k .* not NaN"),
        (torch.zeros(0, 3), torch.ones(0, 3), r"at least 1, and not NaN, got \(0, 3\)"),
    ],
)
def test_what_cannot_be_measured_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        dict(label_metrics(logits, labels))
