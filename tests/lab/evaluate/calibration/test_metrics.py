"""Calibration errors and scores against loops in NumPy, torchmetrics, netcal and scikit-learn."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

import toy
from multimix.lab.evaluate.calibration import (
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)

CASES = [(200, 5, 1.0), (33, 2, 4.0), (257, 10, 0.1), (1, 3, 1.0), (5000, 3, 2.0)]


def predictions(examples: int, classes: int, sharpness: float) -> tuple[Tensor, Tensor]:
    """Random probabilities in float64 and labels that often agree with them."""
    logits, labels = toy.batch(examples, classes, classes=classes, seed=examples, dtype=torch.float64)
    labels[::2] = logits.argmax(1)[::2]
    return (logits * sharpness).softmax(1), labels


def gaps(values: np.ndarray, truth: np.ndarray, bins: int) -> list[tuple[float, float, float]]:
    """(share, mean truth, mean value) of every bin (i / bins, (i + 1) / bins] that is not empty, 0 in the first."""
    found = []
    for i in range(bins):
        inside = [j for j, v in enumerate(values) if i / bins < v <= (i + 1) / bins or (i == 0 and v == 0)]
        if inside:
            found.append((len(inside) / len(values), np.mean(truth[inside]), np.mean(values[inside])))
    return found


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("case", CASES[:4])
def test_the_binned_errors_are_their_definitions(case, bins):
    probabilities, labels = predictions(*case)
    p, y = probabilities.numpy(), labels.numpy()
    top = gaps(p.max(1), (p.argmax(1) == y).astype(float), bins)
    found = reliability(probabilities, labels, bins)
    assert found.expected_error() == pytest.approx(sum(s * abs(a - c) for s, a, c in top), abs=1e-12)
    assert found.maximum_error() == pytest.approx(max(abs(a - c) for _, a, c in top), abs=1e-12)
    assert found.root_mean_square_error() == pytest.approx(sum(s * (a - c) ** 2 for s, a, c in top) ** 0.5, abs=1e-12)
    assert found.overconfidence_error() == pytest.approx(sum(s * c * max(c - a, 0) for s, a, c in top), abs=1e-12)
    each = [sum(s * abs(a - c) for s, a, c in gaps(p[:, j], (y == j).astype(float), bins)) for j in range(p.shape[1])]
    assert classwise_calibration_error(probabilities, labels, bins) == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_they_are_what_torchmetrics_and_netcal_compute(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what netcal imports
        from netcal.metrics import ECE, MCE
    probabilities, labels = predictions(*case)
    found = reliability(probabilities, labels)

    def theirs(norm: str) -> float:
        k = probabilities.shape[1]
        return float(multiclass_calibration_error(probabilities, labels, num_classes=k, n_bins=15, norm=norm))

    # torchmetrics sums in float32.
    assert found.expected_error() == pytest.approx(theirs("l1"), abs=2e-6)
    assert found.maximum_error() == pytest.approx(theirs("max"), abs=2e-6)
    assert found.root_mean_square_error() == pytest.approx(theirs("l2"), abs=2e-6)
    confidence, right = probabilities.max(1).values.numpy(), (probabilities.argmax(1) == labels).numpy().astype(int)
    if len(set(right)) == 2:  # netcal wants both
        assert found.expected_error() == pytest.approx(ECE(15).measure(confidence, right), abs=1e-9)
        assert found.maximum_error() == pytest.approx(MCE(15).measure(confidence, right), abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_scores_are_scikit_learns(case):
    probabilities, labels = predictions(*case)
    k = probabilities.shape[1]
    assert negative_log_likelihood(probabilities.log(), labels) == pytest.approx(
        log_loss(labels, probabilities, labels=range(k)), rel=1e-12
    )
    truth = np.eye(k)[labels]
    assert brier_score(probabilities, labels) == pytest.approx(
        np.mean(((probabilities.numpy() - truth) ** 2).sum(1)), abs=1e-12
    )
    if k == 2:  # scikit-learn looks at one class: half of the sum over both
        theirs = brier_score_loss(labels, probabilities[:, 1])
        assert brier_score(probabilities, labels) == pytest.approx(2 * theirs, abs=1e-12)


@pytest.mark.parametrize("bins", [2, 3, 7, 10, 15, 20])
def test_no_bin_is_left_out_and_an_edge_belongs_to_the_bin_below(bins):
    """pytorch-ood's ECE never counts its last bin; each bin is given its share of the error here."""
    for i in range(bins):
        for confidence in ((i + 1) / bins, (i + 0.5) / bins):
            if confidence < 0.5:  # could not be the larger of two
                continue
            wrong = torch.tensor([[confidence, 1 - confidence]], dtype=torch.float64)
            found = reliability(wrong, torch.tensor([1]), bins)
            assert found.count.nonzero().tolist() == [[i]]
            assert found.expected_error() == found.maximum_error() == confidence
            assert found.overconfidence_error() == pytest.approx(confidence**2)


def test_right_at_an_edge_and_wrong_above_it_do_not_share_a_bin():
    """0.8 is the edge of two of 15 bins: shared, the gaps 0.2 and 0.82 would half cancel."""
    probabilities = torch.tensor([[0.8, 0.2], [0.82, 0.18]], dtype=torch.float64)
    assert expected_calibration_error(probabilities, torch.tensor([0, 1])) == pytest.approx((0.2 + 0.82) / 2)
    below = torch.tensor([[0.8, 0.2], [0.78, 0.22]], dtype=torch.float64)
    assert expected_calibration_error(below, torch.tensor([0, 1])) == pytest.approx(abs(0.5 - 0.79))


def test_probabilities_of_zero_and_one_count_in_the_first_and_last_bin_of_every_class():
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 1])
    # Class 0: of three with p = 1 one is right (gap 2/3), the one with p = 0 is right; class 1 is its mirror image.
    assert classwise_calibration_error(certain, labels) == pytest.approx(0.75 * 2 / 3)
    assert classwise_calibration_error(certain, torch.tensor([0, 1, 0, 0])) == 0.0


def test_the_figure_says_which_bins_are_empty():
    figure = reliability(torch.tensor([[0.95, 0.05], [0.99, 0.01]]), torch.tensor([0, 1])).figure()
    assert list(figure) == ["edges", "confidence", "accuracy", "count"]
    assert len(figure["edges"]) == 16
    assert (figure["edges"][0], figure["edges"][-1]) == (0.0, 1.0)
    assert figure["count"] == [0] * 14 + [2]
    assert figure["confidence"] == [None] * 14 + [pytest.approx(0.97)]
    assert figure["accuracy"] == [None] * 14 + [0.5]


def test_many_examples_are_counted_as_few_are():
    """Class by class the examples go through in parts."""
    probabilities, labels = predictions(5000, 3, 2.0)
    halves = [classwise_calibration_error(probabilities.repeat(2, 1), labels.repeat(2), 15)]
    assert halves[0] == pytest.approx(classwise_calibration_error(probabilities, labels), abs=1e-12)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("shape", "labels", "bins", "message"),
    [
        ((4, 3), 4, 0, "bins must be at least 1"),
        ((4, 3), 5, 15, r"labels \(n,\)"),
        ((0, 3), 0, 15, "n at least 1"),
        ((4,), 4, 15, r"must be \(n, k\)"),
    ],
)
def test_what_cannot_be_binned_is_refused(shape, labels, bins, message):
    for metric in (reliability, classwise_calibration_error, expected_calibration_error):
        with pytest.raises(ValueError, match=message):
            metric(torch.ones(shape), torch.zeros(labels, dtype=torch.long), bins)
