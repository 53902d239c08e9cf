"""What the figures show is what was measured."""

import pytest
import torch
from sklearn.metrics import auc, roc_curve

from multimix.lab.evaluate.ood import auroc
from multimix.lab.evaluate.ood.curves import BINS, POINTS, histograms, roc
from multimix.lab.evaluate.ood.metrics import counts


def test_bins_hold_what_a_loop_counts():
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(500, generator=generator, dtype=torch.float64)
    outside = torch.randn(300, generator=generator, dtype=torch.float64) - 2
    found = histograms(inside, outside)
    edges = found["edges"]
    assert len(edges) == BINS + 1
    assert edges == sorted(edges)
    for name, scores in (("in", inside), ("out", outside)):
        wanted = [0] * BINS
        for score in scores.tolist():
            wanted[sum(score >= edge for edge in edges[1:-1])] += 1
        assert found[name] == pytest.approx([count / len(scores) for count in wanted], abs=1e-6)
        assert sum(found[name]) == pytest.approx(1, abs=1e-4)


def test_a_score_on_an_edge_is_in_the_bin_above():
    scores = torch.arange(51, dtype=torch.float64)
    found = histograms(scores, scores)
    assert found["edges"] == list(range(51))
    assert found["in"] == found["out"] == pytest.approx([1 / 51] * 49 + [2 / 51], rel=1e-5)


def test_a_few_far_scores_do_not_squeeze_the_others():
    inside = torch.cat([torch.linspace(0, 1, 999, dtype=torch.float64), torch.tensor([1e9], dtype=torch.float64)])
    found = histograms(inside, inside - 1)
    assert found["edges"][0] == pytest.approx(-1, abs=0.02)
    assert found["edges"][-1] == pytest.approx(1, abs=0.02)


def test_edges_stay_apart_where_scores_differ_in_late_digits_only():
    scores = torch.linspace(0.1000001, 0.1000002, 99, dtype=torch.float64)
    assert len(set(histograms(scores, scores)["edges"])) == BINS + 1


def test_equal_scores_have_bins_too():
    found = histograms(torch.ones(4, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    assert (found["edges"][0], found["edges"][-1]) == (0.5, 1.5)
    assert max(found["in"]) == max(found["out"]) == 1.0


def test_a_short_curve_is_scikit_learns_without_the_points_on_straight_lines():
    generator = torch.Generator().manual_seed(1)
    inside = torch.randint(8, (60,), generator=generator)
    outside = torch.randint(6, (50,), generator=generator)
    known = [1] * 60 + [0] * 50
    fpr, tpr, _ = roc_curve(known, torch.cat([inside, outside]), drop_intermediate=False)
    points = list(zip(fpr, tpr, strict=True))
    corners = [points[0], *(b for a, b, c in zip(points, points[1:], points[2:], strict=False) if bends(a, b, c))]
    assert len(corners) + 1 < len(points)
    found = roc(counts(inside, outside))
    assert found["fpr"] == pytest.approx([x for x, _ in [*corners, (1, 1)]], rel=1e-5)
    assert found["tpr"] == pytest.approx([y for _, y in [*corners, (1, 1)]], rel=1e-5)


def bends(a, b, c):
    return abs((b[0] - a[0]) * (c[1] - b[1]) - (c[0] - b[0]) * (b[1] - a[1])) > 1e-9


def test_a_long_curve_keeps_its_ends_its_corners_and_its_area():
    generator = torch.Generator().manual_seed(2)
    inside, outside = torch.randn(4000, generator=generator) + 1, torch.randn(4000, generator=generator)
    found = roc(counts(inside, outside))
    assert len(found["fpr"]) == len(found["tpr"])
    assert 100 < len(found["fpr"]) <= POINTS
    points = list(zip(found["fpr"], found["tpr"], strict=True))
    assert (points[0], points[-1]) == ((0, 0), (1, 1))
    fpr, tpr = counts(inside, outside).rates()
    exact = {(round(a, 5), round(b, 5)) for a, b in zip(fpr.tolist(), tpr.tolist(), strict=True)}
    assert all((round(a, 5), round(b, 5)) in exact for a, b in points)
    assert auc(found["fpr"], found["tpr"]) == pytest.approx(auroc(inside, outside), abs=1e-3)


def test_perfect_and_useless_scores_need_few_points():
    assert roc(counts(torch.ones(9), torch.zeros(9))) == {"fpr": [0, 0, 1], "tpr": [0, 1, 1]}
    assert roc(counts(torch.ones(9), torch.ones(9))) == {"fpr": [0, 1], "tpr": [0, 1]}
