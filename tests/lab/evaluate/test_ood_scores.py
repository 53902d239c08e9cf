"""Scores and metrics against loops from their definitions and pytorch-ood, and what the figures show."""

import warnings

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import auc, roc_curve
from torch import Tensor

import toy
from multimix.lab.evaluate import embedding
from multimix.lab.evaluate.ood import METRICS, auroc, fpr95
from multimix.lab.evaluate.ood.scores import KNN, Mahalanobis, energy, histograms, max_logit, msp, nudged, roc

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_ood import detector
    from pytorch_ood.metrics import functional


def measured(inside: Tensor, outside: Tensor) -> dict[str, float]:
    return {name: function(inside, outside) for name, function in METRICS.items()}


def doubles(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SIZES = [(40, 40, None), (40, 23, 4), (1, 1, None), (1, 30, 3), (30, 1, 3), (57, 101, 2), (20, 20, 1), (100, 60, 12)]


@pytest.mark.parametrize(("n", "m", "levels"), SIZES)
def test_they_are_what_pytorch_ood_finds(n, m, levels):
    """Its positives are those outside; of its curves, whose AUPR is of trapezoids, the points are taken."""
    inside, outside = doubles(n, 5) + 0.7, doubles(m, 6) * 1.3
    if levels is not None:  # so many different values at most
        inside, outside = (inside * levels / 6).round(), (outside * levels / 6).round()
    found = measured(inside, outside)
    scores, sign = torch.cat([inside, outside]), torch.cat([torch.ones(n), -torch.ones(m)]).long()
    assert found["auroc"] == pytest.approx(float(functional.auroc(-scores, sign)), rel=1e-12)
    assert found["fpr95"] == float(functional.fpr_at_tpr(scores, -sign, 0.95))
    for name, positive in (("aupr_in", "id"), ("aupr_out", "ood")):
        precision, recall, _ = functional.pr_curve(-scores, sign, positive)
        assert found[name] == pytest.approx(float(-(recall.diff() * precision[:-1]).sum()), rel=1e-12)
    fpr, tpr, _ = functional.roc_curve(scores, -sign)
    assert found["detection_accuracy"] == pytest.approx(float(((tpr + 1 - fpr) / 2).max()), rel=1e-12)


@pytest.mark.parametrize(("images", "first", "wanted"), [(100, 5.5, 0), (100, 6, 0.5), (20, 82, 0.5), (20, 81.5, 0)])
def test_95_of_100_is_enough_and_94_is_not(images, first, wanted):
    """19/20 has no exact binary fraction; the k-th highest score is 101 - k."""
    assert fpr95(torch.arange(100, 0, -1.0)[:images], torch.tensor([first, 0.0])) == wanted


def test_a_share_is_at_most_one():
    """Nine steps of precision 1 add up to a little more."""
    high, low = torch.arange(9) + 10.0, torch.arange(2.0)
    assert METRICS["aupr_in"](high, low) == METRICS["aupr_out"](-low, -high) == 1


def test_scores_that_float32_cannot_tell_apart_differ():
    assert auroc(torch.tensor([1.0]).double(), torch.tensor([1.0]).double() - 1e-12) == 1.0


@pytest.mark.bad_input
@pytest.mark.parametrize("function", [*METRICS.values(), roc])
def test_what_are_no_scores_is_refused(function):
    nan, inf = float("nan"), float("inf")
    for inside, outside, message in (
        (torch.tensor([0.0, nan]), torch.zeros(3), "in_scores must be finite, got 1 NaN or infinite"),
        (torch.zeros(3), torch.tensor([inf, -inf]), "out_scores must be finite, got 2 NaN or infinite"),
        (torch.zeros(3), torch.zeros(0), r"out_scores must be a vector of at least one score, got shape \(0,\)"),
        (torch.zeros(3, 1), torch.zeros(3), r"in_scores must be a vector of at least one score, got shape \(3, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            function(inside, outside)


def test_bins_hold_what_a_loop_counts():
    inside, outside = doubles(500), doubles(300, 1) - 2
    found = histograms(inside, outside)
    edges = found["edges"]
    assert len(edges) == 51
    for name, scores in (("in", inside), ("out", outside)):
        wanted = [0] * 50
        for score in scores.tolist():
            wanted[sum(score >= edge for edge in edges[1:-1])] += 1
        assert found[name] == pytest.approx([count / len(scores) for count in wanted], abs=1e-6)
    scores = torch.arange(51.0).double()  # on an edge a score is in the bin above
    found = histograms(scores, scores)
    assert found["edges"] == list(range(51))
    assert found["in"] == found["out"] == pytest.approx([1 / 51] * 49 + [2 / 51], rel=1e-5)


def test_edges_are_not_moved_by_far_scores_and_stay_apart_where_scores_hardly_differ():
    inside = torch.cat([torch.linspace(0, 1, 999), torch.tensor([1e9])]).double()
    edges = histograms(inside, inside - 1)["edges"]
    assert (edges[0], edges[-1]) == (pytest.approx(-1, abs=0.02), pytest.approx(1, abs=0.02))
    scores = torch.linspace(0.1000001, 0.1000002, 99, dtype=torch.float64)
    assert len(set(histograms(scores, scores)["edges"])) == 51
    for scores in (torch.full((4,), 1e17), 1 + torch.arange(4.0) * 1e-13):
        found = histograms(scores.double(), scores.double())
        assert len(set(found["edges"])) == 51
        assert sum(found["in"]) == pytest.approx(1)
    found = histograms(torch.ones(4, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    assert (found["edges"][0], found["edges"][-1], max(found["in"]), max(found["out"])) == (0.5, 1.5, 1.0, 1.0)


def test_a_short_curve_is_scikit_learns_without_the_points_on_straight_lines():
    inside, outside = (doubles(60, 1) * 2).round(), (doubles(50, 2) * 2).round()
    fpr, tpr, _ = roc_curve([1] * 60 + [0] * 50, torch.cat([inside, outside]), drop_intermediate=False)
    points = list(zip(fpr, tpr, strict=True))
    corners = [points[0], *(b for a, b, c in zip(points, points[1:], points[2:], strict=False) if bends(a, b, c))]
    assert len(corners) + 1 < len(points)
    found = np.transpose(list(roc(inside, outside).values()))
    np.testing.assert_allclose(found, [*corners, (1, 1)], rtol=1e-5)


def bends(a, b, c):
    return abs((b[0] - a[0]) * (c[1] - b[1]) - (c[0] - b[0]) * (b[1] - a[1])) > 1e-9


def test_a_long_curve_keeps_its_ends_its_corners_and_its_area():
    inside, outside = doubles(4000, 2) + 1, doubles(4000, 3)
    found = roc(inside, outside)
    assert 100 < len(found["fpr"]) <= 200
    points = list(zip(found["fpr"], found["tpr"], strict=True))
    assert (points[0], points[-1]) == ((0, 0), (1, 1))
    fpr, tpr, _ = roc_curve([1] * 4000 + [0] * 4000, torch.cat([inside, outside]), drop_intermediate=False)
    exact = {(round(a, 5), round(b, 5)) for a, b in zip(fpr.tolist(), tpr.tolist(), strict=True)}
    assert all((round(a, 5), round(b, 5)) in exact for a, b in points)
    assert auc(found["fpr"], found["tpr"]) == pytest.approx(auroc(inside, outside), abs=1e-3)


def embeddings(n: int, d: int = 6, *, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated clouds around a mean for each class, each class with an example."""
    labels = torch.arange(n) % classes
    spread, means = doubles(d * d, 9).view(d, d), 3 * doubles(classes * d, 8).view(classes, d)
    return doubles(n * d, seed).view(n, d) @ spread + means[labels], labels


def test_scores_of_logits_are_what_pytorch_ood_finds():
    logits, _ = toy.batch(20, 7)
    logits *= 4
    for temperature in (1.0, 2.5):
        for ours, theirs in ((msp, detector.MaxSoftmax), (energy, detector.EnergyBased)):
            wanted = -theirs.score(logits.double(), temperature)
            torch.testing.assert_close(ours(logits, temperature), wanted, rtol=1e-13, atol=0)
    assert msp(torch.tensor([[20.0, 0.0]])) < msp(torch.tensor([[25.0, 0.0]])) < 1  # in float32 both are 1
    assert torch.equal(max_logit(logits), -detector.MaxLogit.score(logits).double())


def odin(network, inputs, *, step, temperature=1000.0) -> Tensor:
    """ODIN's score of inputs, as the suite makes it of a pass that other scores need too."""
    leaf = inputs.detach().clone().requires_grad_()
    moved = nudged(leaf, network(leaf), step=step, temperature=temperature)
    with torch.no_grad():
        return msp(network(moved), temperature)


@pytest.mark.parametrize(("temperature", "step"), [(1000.0, 0.0014), (2.0, 0.3), (1000.0, 0.0)])
def test_odin_of_a_linear_network_is_what_a_loop_finds(temperature, step):
    """Equations (1) and (2): there the gradient of log S_y(x; T) is (W_y - sum_c S_c W_c) / T."""
    network = toy.identity(5).double()
    torch.nn.init.normal_(network.classifier.weight)
    weight, bias = (value.detach().numpy() for value in (network.classifier.weight, network.classifier.bias))
    inputs, _ = toy.batch(9, 5, dtype=torch.float64)
    wanted = []
    for x in inputs.numpy():
        shares = softmax((weight @ x + bias) / temperature)
        moved = x + step * np.sign(weight[shares.argmax()] - shares @ weight)
        wanted.append(softmax((weight @ moved + bias) / temperature).max())
    found = odin(network, inputs, step=step, temperature=temperature)
    assert found.tolist() == pytest.approx(wanted, rel=1e-13)


def test_odin_is_pytorch_oods_with_the_step_in_pixels(device):
    network = toy.images().double().eval().to(device)
    inputs, _ = toy.batch(8, 3, 8, 8, dtype=torch.float64, device=device)
    std = [0.2, 0.3, 0.25]
    step = 0.01 / torch.tensor(std, dtype=torch.float64, device=device).view(3, 1, 1)
    theirs = detector.ODIN(network, eps=0.01, temperature=1000.0, norm_std=std).predict(inputs)
    found = odin(network, inputs, step=step)
    torch.testing.assert_close(found, -theirs, rtol=1e-14, atol=0)
    assert not torch.allclose(found, odin(network, inputs, step=0.0), rtol=1e-9)


@pytest.mark.parametrize("neighbours", [1, 3, 20])
@pytest.mark.parametrize("chunk", [1, 100])
def test_knn_is_what_pytorch_ood_finds(monkeypatch, neighbours, chunk, device):
    monkeypatch.setattr(embedding, "_BLOCK", chunk)
    (train, labels), (queries, _) = embeddings(20), embeddings(11, seed=1)
    train, queries = train.float().to(device), queries.float().to(device)
    found = KNN(train, neighbours)(queries).cpu()
    theirs = detector.KNN(None, k=neighbours).fit_features(train.cpu(), labels).predict_features(queries.cpu())
    torch.testing.assert_close(found, -theirs, rtol=1e-5, atol=0)
    assert KNN(train, neighbours)(torch.zeros(1, 6).to(device)).item() == pytest.approx(-1)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_mahalanobis_is_what_a_loop_finds(shrinkage, device):
    (train, labels), (queries, _) = embeddings(60), embeddings(11, seed=1)
    found = Mahalanobis(train.to(device), labels.to(device), shrinkage=shrinkage)(queries.to(device))
    z, y = train.numpy(), labels.numpy()
    means = np.stack([z[y == c].mean(0) for c in range(3)])
    covariance = sum(np.outer(a - means[c], a - means[c]) for a, c in zip(z, y, strict=True)) / len(z)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 6 * np.eye(6)
    inverse = np.linalg.inv(covariance)
    wanted = [-min((q - m) @ inverse @ (q - m) for m in means) for q in queries.numpy()]
    assert found.tolist() == pytest.approx(wanted, rel=1e-10)


def test_directions_without_variance_are_left_out():
    """A unit that is dead, or one that repeats another, gives no infinite distance."""
    (train, labels), (queries, _) = embeddings(60), embeddings(11, seed=1)
    wanted = Mahalanobis(train, labels)(queries)

    def widened(values: Tensor) -> Tensor:
        return torch.cat([values, torch.zeros(len(values), 2), values[:, :1] + values[:, 1:2]], dim=1)

    fitted = Mahalanobis(widened(train).float(), labels)
    torch.testing.assert_close(fitted(widened(queries).float()), wanted, rtol=1e-4, atol=0)
    assert fitted.whitening.shape == (9, 6)


@pytest.mark.bad_input
def test_embeddings_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="embeddings must vary within their classes"):
        Mahalanobis(embeddings(6)[0], torch.arange(6))
