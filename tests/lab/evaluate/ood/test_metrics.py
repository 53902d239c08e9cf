"""The metrics against loops over all thresholds and pairs, scikit-learn and pytorch-ood, with and without ties."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from multimix.lab.evaluate.ood import METRICS, aupr_in, aupr_out, auroc, detection_accuracy, fpr95
from multimix.lab.evaluate.ood.metrics import all_metrics, counts

FUNCTIONS = (auroc, aupr_in, aupr_out, fpr95, detection_accuracy)


def measured(inside: Tensor, outside: Tensor) -> dict[str, float]:
    return {function.__name__: function(inside, outside) for function in FUNCTIONS}


def looped(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """Straight from the definitions, in fractions: every pair, every threshold."""
    good, bad = inside.tolist(), outside.tolist()
    pairs = sum(Fraction(2 * (a > b) + (a == b), 2) for a in good for b in bad)
    points = [(Fraction(0), Fraction(0))]  # FPR, TPR
    for threshold in sorted(set(good + bad), reverse=True):
        taken = [sum(score >= threshold for score in scores) for scores in (bad, good)]
        points.append((Fraction(taken[0], len(bad)), Fraction(taken[1], len(good))))
    return {
        "auroc": float(pairs / (len(good) * len(bad))),
        "aupr_in": precision_looped(good, bad),
        "aupr_out": precision_looped([-score for score in bad], [-score for score in good]),
        "fpr95": float(min(fpr for fpr, tpr in points if tpr >= Fraction(95, 100))),
        "detection_accuracy": float(max((tpr + 1 - fpr) / 2 for fpr, tpr in points)),
    }


def precision_looped(positive: list[float], negative: list[float]) -> float:
    total, recall = Fraction(0), Fraction(0)
    for threshold in sorted(set(positive), reverse=True):
        right, wrong = (sum(score >= threshold for score in scores) for scores in (positive, negative))
        total += (Fraction(right, len(positive)) - recall) * Fraction(right, right + wrong)
        recall = Fraction(right, len(positive))
    return float(total)


def drawn(n: int, m: int, levels: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Scores that overlap, of so many different values at most."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.randn(n, generator=generator, dtype=torch.float64) + 0.7
    outside = torch.randn(m, generator=generator, dtype=torch.float64) * 1.3
    if levels is None:
        return inside, outside
    return (inside * levels / 6).round(), (outside * levels / 6).round()


SIZES = [(40, 40, None), (40, 23, 4), (1, 1, None), (1, 30, 3), (30, 1, 3), (57, 101, 2), (20, 20, 1), (100, 60, 12)]


@pytest.mark.parametrize(("n", "m", "levels"), SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_they_are_what_loops_find(n, m, levels, seed):
    scores = drawn(n, m, levels, seed)
    assert measured(*scores) == pytest.approx(looped(*scores), rel=1e-13)


@pytest.mark.parametrize(("n", "m", "levels"), [*SIZES, (3000, 2000, None), (3000, 5000, 20)])
def test_they_are_what_scikit_learn_finds(n, m, levels):
    inside, outside = drawn(n, m, levels, 3)
    found = measured(inside, outside)
    scores, known = torch.cat([inside, outside]).numpy(), np.r_[np.ones(n), np.zeros(m)]
    fpr, tpr, _ = roc_curve(known, scores, drop_intermediate=False)
    assert found["auroc"] == pytest.approx(roc_auc_score(known, scores), rel=1e-12)
    assert found["aupr_in"] == pytest.approx(average_precision_score(known, scores), rel=1e-12)
    assert found["aupr_out"] == pytest.approx(average_precision_score(1 - known, -scores), rel=1e-12)
    assert found["fpr95"] == fpr[tpr >= 0.95].min()
    assert found["detection_accuracy"] == pytest.approx(((tpr + 1 - fpr) / 2).max(), rel=1e-12)


@pytest.mark.parametrize(("n", "m", "levels"), SIZES)
def test_they_are_what_pytorch_ood_finds(n, m, levels):
    """Its positive images are those outside; as it sees FPR95 and AUPR, the two sets change places.

    Its AUPR is made of trapezoids, so that of its curve only the points are taken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_ood.metrics import functional

    inside, outside = drawn(n, m, levels, 5)
    found = measured(inside, outside)
    scores, sign = torch.cat([inside, outside]), torch.cat([torch.ones(n), -torch.ones(m)]).long()
    assert found["auroc"] == pytest.approx(float(functional.auroc(-scores, sign)), rel=1e-12)
    assert found["fpr95"] == float(functional.fpr_at_tpr(scores, -sign, 0.95))
    for name, positive in (("aupr_in", "id"), ("aupr_out", "ood")):
        precision, recall, _ = functional.pr_curve(-scores, sign, positive)
        assert found[name] == pytest.approx(float(-(recall.diff() * precision[:-1]).sum()), rel=1e-12)
    fpr, tpr, _ = functional.roc_curve(scores, -sign)
    assert found["detection_accuracy"] == pytest.approx(float(((tpr + 1 - fpr) / 2).max()), rel=1e-12)


def test_four_images_by_hand():
    """Taken in from the top: 4 in, 3 out, then 2 in and 2 out together."""
    found = measured(torch.tensor([4.0, 2.0]), torch.tensor([3.0, 2.0]))
    assert found == {
        "auroc": (1 + 1 + 0 + 0.5) / 4,
        "aupr_in": 0.5 * 1 + 0.5 * 2 / 4,
        "aupr_out": 0.5 * 1 / 2 + 0.5 * 2 / 3,
        "fpr95": 1.0,
        "detection_accuracy": 0.75,
    }


def test_perfect_useless_and_wrong_scores():
    high, low = torch.arange(100.0) + 1000, torch.arange(50.0)
    assert measured(high, low) == dict(zip(METRICS, (1, 1, 1, 0, 1), strict=True))
    same = torch.ones(100)
    assert measured(same, same[:50]) == pytest.approx(dict(zip(METRICS, (0.5, 2 / 3, 1 / 3, 1, 0.5), strict=True)))
    wrong = measured(low, high)
    assert (wrong["auroc"], wrong["fpr95"], wrong["detection_accuracy"]) == (0, 1, 0.5)


def test_95_of_100_is_enough_and_94_is_not():
    """19/20 has no exact binary fraction: the comparison is of whole numbers."""
    inside = torch.arange(100, 0, -1.0)  # the k-th highest is 101 - k
    assert fpr95(inside, torch.tensor([5.5, 0.0])) == 0.0  # taken with the 96th highest, 5
    assert fpr95(inside, torch.tensor([6.0, 0.0])) == 0.5  # taken with the 95th
    assert fpr95(inside[:20], torch.tensor([82.0, 0.0])) == 0.5
    assert fpr95(inside[:20], torch.tensor([81.5, 0.0])) == 0.0


def test_all_metrics_are_the_single_ones_in_order():
    scores = drawn(50, 40, 9, 0)
    together = all_metrics(counts(*scores))
    assert together == measured(*scores)
    assert tuple(together) == METRICS


def test_only_the_order_of_the_scores_matters():
    inside, outside = drawn(80, 70, 30, 2)
    assert measured(inside.exp(), outside.exp()) == measured(inside, outside)
    assert measured(inside.flip(0).float(), outside.long()) == measured(inside, outside)


def test_scores_that_float32_cannot_tell_apart_differ():
    inside, outside = torch.tensor([1.0], dtype=torch.float64), torch.tensor([1 - 1e-12], dtype=torch.float64)
    assert auroc(inside, outside) == 1.0


def test_many_images_do_not_overflow():
    big = torch.zeros(200_000)
    assert auroc(big, big) == 0.5


@pytest.mark.bad_input
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(function, value):
    with pytest.raises(ValueError, match="in_scores must be finite, got 1 NaN or infinite"):
        function(torch.tensor([0.0, value]), torch.zeros(3))
    with pytest.raises(ValueError, match="out_scores must be finite, got 2 NaN or infinite"):
        function(torch.zeros(3), torch.tensor([value, value]))


@pytest.mark.bad_input
def test_what_is_no_vector_of_scores_is_refused():
    with pytest.raises(ValueError, match=r"out_scores must be a vector of at least one score, got shape \(0,\)"):
        auroc(torch.zeros(3), torch.zeros(0))
    with pytest.raises(ValueError, match=r"in_scores must be a vector of at least one score, got shape \(3, 1\)"):
        auroc(torch.zeros(3, 1), torch.zeros(3))
