"""Accuracy, likelihood and calibration against scikit-learn, by hand, and a loop in NumPy."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor

import toy
from multimix.lab.evaluate import SUITES, Accuracy
from multimix.lab.evaluate.calibration import expected_calibration_error


def measured(logits: Tensor, labels: Tensor, *, batch: int = 7) -> dict[str, float]:
    """Measure a network whose inputs are its logits."""
    pairs = list(zip(logits.split(batch), labels.split(batch), strict=True))
    return dict(Accuracy(pairs)(toy.identity(logits.shape[1])))


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Guo et al., equation (5): bins (l/bins, (l + 1)/bins], each gap weighted by the share of its examples."""
    total = 0.0
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    for low in range(bins):
        inside = [i for i, c in enumerate(confidence) if low / bins < c <= (low + 1) / bins]
        if inside:
            right = np.mean([float(predicted[i] == labels[i]) for i in inside])
            total += len(inside) / len(labels) * abs(right - np.mean([confidence[i] for i in inside]))
    return total


@pytest.mark.parametrize(
    ("examples", "classes", "sharpness"), [(100, 5, 1.0), (33, 2, 4.0), (257, 10, 0.1), (1, 3, 1.0)]
)
def test_they_are_what_others_compute(examples, classes, sharpness):
    logits, labels = toy.batch(examples, classes, classes=classes, seed=examples)
    found = measured(logits * sharpness, labels)
    probabilities = (logits * sharpness).double().softmax(1).numpy()
    assert list(found) == ["accuracy", "nll", "ece"]
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert found["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(classes)), rel=1e-6)
    assert found["ece"] == pytest.approx(calibration_error(probabilities, labels.numpy()), abs=1e-6)


def test_three_examples_by_hand():
    """Confident and right, confident and wrong, undecided (the first class is taken) and right."""
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5]])
    found = measured(probabilities.log(), torch.tensor([0, 1, 0]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["nll"] == pytest.approx(-(math.log(0.9) + math.log(0.2) + math.log(0.5)) / 3, rel=1e-6)
    # Each lies in a bin of its own: gaps 0.1, 0.8 and 0.5.
    assert found["ece"] == pytest.approx((0.1 + 0.8 + 0.5) / 3, rel=1e-5)


def test_one_bin_of_two_examples_by_hand():
    """0.82 and 0.84 share the bin (0.8, 0.8667]: its accuracy is 1/2, its confidence 0.83."""
    probabilities = torch.tensor([[0.82, 0.18], [0.84, 0.16]])
    assert measured(probabilities.log(), torch.tensor([0, 1]))["ece"] == pytest.approx(0.33, rel=1e-5)


def test_certainty_counts_in_the_last_bin():
    certain = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert expected_calibration_error(certain, torch.tensor([0, 1, 1, 2])) == 0.0
    assert expected_calibration_error(certain, torch.tensor([0, 1, 2, 0])) == pytest.approx(0.5)
    assert expected_calibration_error(certain, torch.tensor([1, 0, 0, 0])) == pytest.approx(1.0)


def test_a_confidence_on_the_edge_of_two_bins_counts_once():
    """3/5 = 9/15 is such an edge; alone in either bin, its gap is the same."""
    edge = torch.tensor([[0.6, 0.4], [0.6, 0.4], [0.6, 0.4]])
    assert expected_calibration_error(edge, torch.tensor([0, 0, 1])) == pytest.approx(2 / 3 - 0.6, abs=1e-6)
    assert expected_calibration_error(edge, torch.tensor([1, 1, 1])) == pytest.approx(0.6, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 50, 64])
def test_the_size_of_the_batches_does_not_matter(batch):
    logits, labels = toy.batch(50, 4, classes=4)
    assert measured(logits, labels, batch=batch) == measured(logits, labels, batch=50)


def test_logits_so_large_that_float32_would_round_still_give_a_likelihood():
    found = measured(torch.tensor([[1000.0, 999.5], [-1000.0, 1000.0]]), torch.tensor([0, 0]))
    assert found["nll"] == pytest.approx((math.log1p(math.exp(-0.5)) + 2000.0) / 2, rel=1e-9)


def test_the_list_of_suites_starts_with_accuracy_and_has_no_name_twice():
    assert SUITES[0] is Accuracy
    assert len({suite.name for suite in SUITES}) == len(SUITES)
