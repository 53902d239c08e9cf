"""Accuracy and calibration against loops in NumPy, scikit-learn and SciPy, and the suites."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor

import toy
from evaluate.made import batches, images, normalised, source
from listening import Kept
from multimix.lab.evaluate.calibration import (
    Accuracy,
    Calibration,
    CalibrationSettings,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)

CASES = [(200, 5, 1.0), (33, 2, 4.0), (257, 10, 0.1), (1, 3, 1.0), (5000, 3, 2.0)]


def sharp(examples: int, seed: int, classes: int = 4, sharpness: float = 5.0) -> tuple[Tensor, Tensor]:
    """Logits, of an over-confident network, and labels that often agree with them."""
    logits, labels = toy.batch(examples, classes, classes=classes, seed=seed)
    labels[::2] = logits.argmax(1)[::2]
    return logits * sharpness, labels


def predictions(examples: int, classes: int, sharpness: float) -> tuple[Tensor, Tensor]:
    """Probabilities in float64 and labels."""
    logits, labels = sharp(examples, examples, classes, sharpness)
    return logits.double().softmax(1), labels


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
    wanted = {
        "ece": sum(s * abs(a - c) for s, a, c in top),
        "mce": max(abs(a - c) for _, a, c in top),
        "rms_calibration_error": sum(s * (a - c) ** 2 for s, a, c in top) ** 0.5,
        "overconfidence_error": sum(s * c * max(c - a, 0) for s, a, c in top),
    }
    assert reliability(probabilities, labels, bins).errors() == pytest.approx(wanted, abs=1e-12)
    each = [sum(s * abs(a - c) for s, a, c in gaps(p[:, j], (y == j).astype(float), bins)) for j in range(p.shape[1])]
    assert classwise_calibration_error(probabilities, labels, bins) == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_scores_are_scikit_learns(case):
    probabilities, labels = predictions(*case)
    k = probabilities.shape[1]
    wanted = log_loss(labels, probabilities, labels=range(k))
    assert negative_log_likelihood(probabilities.log(), labels) == pytest.approx(wanted, rel=1e-12)
    squares = (probabilities.numpy() - np.eye(k)[labels]) ** 2
    assert brier_score(probabilities, labels) == pytest.approx(squares.sum(1).mean(), abs=1e-12)


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
            assert found.errors()["ece"] == confidence


def test_probabilities_of_zero_and_one_count_in_the_first_and_last_bin_of_every_class():
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 1])
    # Class 0: of three with p = 1 one is right (gap 2/3), the one with p = 0 is right; class 1 is its mirror image.
    assert classwise_calibration_error(certain, labels) == pytest.approx(0.75 * 2 / 3)
    assert classwise_calibration_error(certain, torch.tensor([0, 1, 0, 0])) == 0.0


def test_the_figure_says_which_bins_are_empty():
    assert reliability(torch.tensor([[0.95, 0.05], [0.99, 0.01]]), torch.tensor([0, 1])).figure() == {
        "edges": pytest.approx([i / 15 for i in range(16)]),
        "confidence": [None] * 14 + [pytest.approx(0.97)],
        "accuracy": [None] * 14 + [0.5],
        "count": [0] * 14 + [2],
    }


BINNED = (reliability, expected_calibration_error, classwise_calibration_error)
OF_LOGITS = (negative_log_likelihood, fit_temperature)
EVEN = torch.full((4, 2), 0.5)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (torch.ones(4, 3), torch.zeros(5).long(), r"labels \(n,\)"),
        (torch.ones(0, 3), torch.zeros(0).long(), "n and k at least 1"),
        (torch.ones(4), torch.zeros(4).long(), r"must be \(n, k\)"),
        (EVEN, torch.tensor([0, 1, 2, 0]), "labels must be 4 class indices from 0 to 1, got 0 to 2"),
        (EVEN, torch.tensor([0, 1, -100, 0]), "labels must be 4 class indices from 0 to 1, got -100 to 1"),
        (EVEN, torch.zeros(4), "labels must be 4 class indices, got torch.float32"),
        (EVEN, torch.zeros(4).bool(), "labels must be 4 class indices, got torch.bool"),
        (EVEN.index_fill(0, torch.tensor([2]), torch.nan), torch.zeros(4).long(), r"1 of 4 rows .* \[nan, nan\]"),
    ],
)
def test_what_cannot_be_scored_is_refused(values, labels, message):
    for metric in (*BINNED, brier_score, *OF_LOGITS):
        with pytest.raises(ValueError, match=message):
            metric(values, labels)
    with pytest.raises(ValueError, match="bins must be at least 1"):
        reliability(EVEN, torch.zeros(4).long(), 0)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "row", [[3.0, -2.0], [0.5, 0.502], [0.6, 0.3], [1.5, -0.5], [math.inf, 0.0], [-math.inf, 1.0], [0.0, 0.0]]
)
def test_what_is_no_probability_is_refused(row):
    values = torch.cat([EVEN, torch.tensor([row])])
    for metric in (*BINNED, brier_score):
        with pytest.raises(ValueError, match=r"probabilities must be .* sum to 1 within 0\.001; 1 of 5 rows are not"):
            metric(values, torch.zeros(5).long())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_probabilities_that_were_rounded_are_not_refused(dtype):
    probabilities, labels = predictions(500, 100, 1.0)
    wanted = ((probabilities.numpy() - np.eye(100)[labels]) ** 2).sum(1).mean()
    assert brier_score(probabilities.to(dtype), labels.to(torch.uint8)) == pytest.approx(wanted, abs=0.01)


@pytest.mark.bad_input
def test_logits_that_are_infinite_or_rule_out_everything_are_refused():
    for row in ([math.inf, 0.0], [-math.inf, -math.inf]):
        for metric in OF_LOGITS:
            with pytest.raises(ValueError, match=r"logits must be finite, or minus infinity .* 1 of 5 rows"):
                metric(torch.cat([EVEN, torch.tensor([row])]), torch.zeros(5).long())
    without = torch.tensor([[0.0, -math.inf], [1.0, 2.0]])
    assert negative_log_likelihood(without, torch.tensor([1, 0])) == math.inf
    with pytest.raises(ValueError, match="rule out an example's own class, got minus infinity for 1"):
        fit_temperature(without, torch.tensor([1, 0]))


def test_accuracy_is_scikit_learns():
    logits, labels = toy.batch(100, 5, seed=1)
    probabilities = logits.double().softmax(1)
    assert dict(Accuracy(batches(logits, labels, 7))(toy.identity(5))) == {
        "accuracy": pytest.approx(accuracy_score(labels, logits.argmax(1))),
        "nll": pytest.approx(log_loss(labels, probabilities), rel=1e-6),
        "ece": pytest.approx(expected_calibration_error(probabilities, labels), abs=1e-6),
    }
    # Of classes that are equally likely the first is predicted.
    assert dict(Accuracy([(torch.zeros(2, 3), torch.tensor([0, 1]))])(toy.identity(3)))["accuracy"] == 0.5


def test_logits_so_large_that_float32_would_round_still_give_a_likelihood():
    found = negative_log_likelihood(torch.tensor([[1000.0, 999.5], [-1000.0, 1000.0]]), torch.tensor([0, 0]))
    assert found == pytest.approx((math.log1p(math.exp(-0.5)) + 2000.0) / 2, rel=1e-9)


def noisy(examples: int, classes: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels drawn from their softmax at a third of the scale: the best temperature is about 3."""
    generator = torch.Generator().manual_seed(examples)
    logits = torch.randn(examples, classes, generator=generator, dtype=torch.float64) * scale
    return logits, torch.multinomial((logits / 3).softmax(1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize(("examples", "classes", "scale"), [(50, 2, 3.0), (5000, 10, 1.0), (400, 100, 30.0)])
def test_it_is_the_minimum(examples, classes, scale):
    logits, labels = noisy(examples, classes, scale)
    found = fit_temperature(logits, labels)

    def loss(log_temperature: float) -> float:
        z = logits.numpy() / np.exp(log_temperature)
        return float(np.mean(logsumexp(z, axis=1) - z[np.arange(len(z)), labels]))

    best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    assert found == pytest.approx(np.exp(best.x), rel=1e-5)  # a minimum is flat: this is what its value can tell
    assert abs(loss(math.log(found) + 1e-4) - loss(math.log(found) - 1e-4)) < 2e-10


def test_it_undoes_a_scale_and_a_constant_or_a_class_ruled_out_does_no_harm():
    logits, labels = noisy(2000, 5, 4.0)
    one = fit_temperature(logits, labels)
    for factor in (0.03, 20.0):
        assert fit_temperature(logits * factor, labels) == pytest.approx(one * factor, rel=1e-9)
    assert fit_temperature(logits + 1e6, labels) == pytest.approx(one, rel=1e-6)
    ruled_out = torch.cat([logits, torch.full((2000, 1), -torch.inf)], 1)
    assert fit_temperature(ruled_out, labels) == pytest.approx(one, rel=1e-12)


def test_without_a_minimum_it_is_the_limit():
    logits = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == 0.01
    assert fit_temperature(logits, torch.tensor([1, 0])) == 100
    assert fit_temperature(torch.zeros(3, 2), torch.tensor([0, 1, 1])) == 100
    assert fit_temperature(torch.tensor([[1e6, 0.0], [0.0, 5.0]]), torch.tensor([1, 1])) == 100


METRICS = ["nll", "brier", "ece", "mce", "classwise_ece", "rms_calibration_error", "overconfidence_error"]


def test_it_measures_before_and_after_scaling():
    test, validation, monitor = sharp(60, 0), sharp(40, 1), Kept()
    found = dict(Calibration(batches(*test, 7), batches(*validation, 7))(toy.identity(4), monitor))
    assert list(found) == ["accuracy", *METRICS, "temperature", *(f"scaled/{name}" for name in METRICS)]
    assert monitor.passes == ["test", "validation"]
    assert list(monitor.figures) == ["reliability", "reliability_scaled"]
    assert found["temperature"] == fit_temperature(*validation)
    for prefix, temperature in (("", 1.0), ("scaled/", found["temperature"])):
        probabilities = (test[0].double() / temperature).softmax(1)
        assert found[f"{prefix}ece"] == expected_calibration_error(probabilities, test[1])


@pytest.mark.parametrize(("wrong", "said", "wanted"), [(0, "all predicted rightly", 0.01), (1, "by chance", 100)])
def test_a_temperature_at_its_limit_is_noted(wrong, said, wanted):
    held_out = batches(5 * torch.eye(3), torch.arange(3).roll(wrong))
    with pytest.warns(UserWarning, match=f"at its limit: 3 validation images are .*{said}"):
        found = dict(Calibration(held_out, held_out)(toy.identity(3)))
    assert found["temperature"] == wanted


def test_of_a_run_it_takes_the_validation_split():
    run = source(30, validation=images(10, seed=2))
    suite = Calibration.of(run, CalibrationSettings(examples=15, validation_examples=5))
    assert sum(len(labels) for _, labels in suite.batches) == 15
    assert sum(len(labels) for _, labels in suite.validation) == 5
    everything = Calibration.of(run, CalibrationSettings())
    inputs = torch.cat([inputs for inputs, _ in everything.validation])
    torch.testing.assert_close(inputs, normalised(run.splits.validation.images / 255))
    assert "temperature" in dict(everything(toy.images()))
    with pytest.raises(ValueError, match="validation_examples=11 does not fit"):
        Calibration.of(run, CalibrationSettings(validation_examples=11))


def test_a_run_without_validation_split_or_wish_is_not_scaled():
    for run, scaling in ((source(), True), (source(validation=images(10)), False)):
        said = pytest.warns(UserWarning, match="no temperature is fitted") if scaling else nullcontext()
        with said:
            monitor, suite = Kept(), Calibration.of(run, CalibrationSettings(scaling=scaling, bins=4))
        assert list(dict(suite(toy.images(), monitor))) == ["accuracy", *METRICS]
        assert list(monitor.figures) == ["reliability"]
        counts = monitor.figures["reliability"]["count"]
        assert (len(counts), sum(counts)) == (4, 40)
