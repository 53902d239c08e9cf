"""What is no score, embedding, label or box is refused by every function that takes one, in a line that names it."""

from dataclasses import replace
from math import inf, nan

import pytest
import torch
from torch import nn

from multimix.lab.data.boxes import Objects
from multimix.lab.detect.model import detect_boxes
from multimix.lab.evaluate.adversarial import autoattack
from multimix.lab.evaluate.calibration import brier_score, expected_calibration_error, fit_temperature
from multimix.lab.evaluate.detection import Detections, coco_metrics, voc_average_precision, voc_metrics
from multimix.lab.evaluate.embedding import (
    alignment,
    class_distances,
    effective_rank,
    in_plane,
    nearest,
    uniformity,
    vote,
)
from multimix.lab.evaluate.labels import label_metrics
from multimix.lab.evaluate.occlusion import hidden
from multimix.lab.evaluate.ood import scores
from multimix.lab.evaluate.passes import NonFiniteError, accuracy

pytestmark = pytest.mark.bad_input

POINTS, LABELS = torch.eye(4), torch.tensor([0, 0, 1, 1])
ROWS = POINTS.numpy()
BAD = POINTS.clone().index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(nan))


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: alignment(BAD, LABELS), "embeddings must be .* with 1 NaN or infinite"),
        (lambda: uniformity(BAD), "embeddings must be"),
        (lambda: class_distances(POINTS[0], LABELS), r"embeddings must be \(n, d\)"),
        (lambda: effective_rank(BAD / 0), "with 16 NaN or infinite"),
        (lambda: nearest(POINTS, BAD), "references must be"),
        (lambda: nearest(BAD, POINTS), "queries must be"),
        (lambda: alignment(POINTS, torch.arange(4)), "a class with at least two examples"),
        (lambda: class_distances(POINTS, LABELS * 0), "at least two classes"),
        (lambda: uniformity(POINTS[:1]), "at least two for uniformity, got 1"),
        (lambda: nearest(POINTS, POINTS, 4, apart=True), "between 1 and the 3 references"),
        (lambda: nearest(POINTS[:2], POINTS, apart=True), "the same examples to be apart, got 2 and 4"),
        (lambda: uniformity(POINTS * 100), "must be scaled to length 1"),
        (lambda: in_plane(BAD, "tsne", seed=0), "embeddings must be .* with 1 NaN"),
        (lambda: in_plane(POINTS, "pca", seed=0), "method must be one of tsne, umap"),
        (lambda: alignment(POINTS, LABELS[:3]), "labels must be 4 class indices"),
        (lambda: alignment(POINTS, LABELS - 1), "labels must be 4 class indices from 0, got -1 to 0"),
        (lambda: class_distances(POINTS, LABELS.float()), "labels must be 4 class indices, got torch.float32"),
        (lambda: vote(LABELS.view(2, 2), 1), "labels must be 4 class indices from 0 to 0, got 0 to 1"),
        (lambda: accuracy(POINTS, LABELS + 3), "labels must be 4 class indices from 0 to 3, got 3 to 4"),
        (lambda: hidden(1.5, 8, 8, grid=4, examples=[0]), "fraction must lie in"),
        (lambda: hidden(nan, 8, 8, grid=4, examples=[0]), "fraction must lie in"),
        (lambda: hidden(0.5, 8, 8, grid=0, examples=[0]), "grid must be at least 1"),
        (lambda: autoattack(nn.Identity(), [], epsilon=-1.0), "epsilon must be at least 0"),
        (lambda: autoattack(nn.Identity(), [], epsilon=0.1, norm="l1"), "norm must be one of linf, l2"),
        (lambda: scores.msp(POINTS, 0), "temperature must be above 0"),
        (lambda: scores.energy(POINTS, -1.0), "temperature must be above 0"),
        (lambda: scores.max_logit(POINTS[0]), r"must be \(b, k\), got shape \(4,\)"),
        (lambda: scores.KNN(POINTS, 0), "neighbours must be at least 1"),
        (lambda: scores.KNN(BAD, 1)(POINTS), "references must be"),
        (lambda: scores.Mahalanobis(POINTS, LABELS, shrinkage=2), "shrinkage must lie in"),
        (lambda: expected_calibration_error(ROWS, LABELS.numpy()), "probabilities must be a tensor, got ndarray"),
        (lambda: brier_score(POINTS, [0, 0, 1, 1]), "labels must be a tensor, got list"),
        (lambda: fit_temperature(ROWS, LABELS), "logits must be a tensor, got ndarray"),
        (lambda: brier_score(POINTS * 1j, LABELS), "probabilities must be real numbers, got complex ones"),
        (lambda: [*label_metrics(ROWS, POINTS)], "logits must be a tensor, got ndarray"),
        (lambda: accuracy(POINTS, [0, 0, 1, 1]), "labels must be a tensor, got list"),
        (lambda: uniformity(ROWS), "embeddings must be a tensor, got ndarray"),
        (lambda: scores.auroc([1.0, 2.0], [0.0]), "in_scores must be a tensor, got list"),
        (lambda: scores.energy(ROWS), "values must be a tensor, got ndarray"),
        (lambda: scores.histograms(BAD[2].double(), POINTS[0].double()), "in_scores must be finite, got 1"),
    ],
)
def test_embeddings_and_scores(compute, message):
    with pytest.raises((TypeError, ValueError), match=message):
        compute()


BOX = torch.tensor([[0.0, 0.0, 40.0, 40.0]])
SEEN = Detections(BOX, torch.tensor([0.9]), torch.tensor([1]))
THERE = Objects(BOX, torch.tensor([2]), torch.tensor([1600.0]), torch.tensor([False]))


@pytest.mark.parametrize("metrics", [coco_metrics, voc_metrics])
@pytest.mark.parametrize(
    ("seen", "there", "message"),
    [
        ([], [], "of the same images, at least one, got 0 and 0"),
        ([SEEN, SEEN], [THERE], "got 2 and 1"),
        ([SEEN], [replace(THERE, labels=torch.tensor([0]))], r"truths\[0\]: number 0 has no class"),
        ([SEEN], [replace(THERE, labels=torch.tensor([3]))], r"truths\[0\]: number 0 has no class"),
        ([replace(SEEN, labels=torch.tensor([0]))], [THERE], r"detections\[0\]: number 0 has no class"),
        ([replace(SEEN, scores=torch.tensor([nan]))], [THERE], r"detections\[0\]: number 0 has no score"),
        ([replace(SEEN, boxes=BOX.flip(1))], [THERE], r"detections\[0\]: number 0 has no box"),
        ([replace(SEEN, boxes=BOX + nan)], [THERE], r"detections\[0\]: number 0 has no box"),
        ([SEEN], [replace(THERE, boxes=BOX * 0)], r"truths\[0\]: number 0 has no box"),
        ([replace(SEEN, boxes=BOX[0])], [THERE], r"detections\[0\] must hold boxes \(n, 4\)"),
    ],
)
def test_boxes(metrics, seen, there, message):
    with pytest.raises(ValueError, match=message):
        metrics(seen, there, ("a", "b"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"form": "12_point"}, "form must be one of area, 11_point"),
        ({"overlap": 0}, "overlap must lie in"),
        ({"label": 0}, "label must be at least 1"),
    ],
)
def test_average_precision(wrong, message):
    with pytest.raises(ValueError, match=message):
        voc_average_precision([SEEN], [THERE], **{"label": 2, **wrong})


@pytest.mark.parametrize("value", [nan, inf])
def test_a_detector_that_diverged(value):
    detector = nn.Linear(2, 2)
    nn.init.constant_(detector.bias, value)
    with pytest.raises(NonFiniteError, match="the detector's weights are NaN or infinite, first in bias"):
        detect_boxes(detector, [])
