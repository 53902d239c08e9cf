"""Average precision beside the COCO challenge's own code, and a plain loop over the VOC development kit's pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from multimix.lab.data.boxes import Objects
from multimix.lab.evaluate.detection import (
    Detections,
    coco_metrics,
    require_coco,
    voc_average_precision,
    voc_metrics,
)

CLASSES = ("a", "b", "c", "d")


def objects(boxes, labels, ignored=None, areas=None) -> Objects:
    """Objects from lists."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    sizes = (corners[:, 2:] - corners[:, :2]).prod(1) if areas is None else torch.tensor(areas)
    flags = torch.zeros(len(corners)) if ignored is None else torch.tensor(ignored)
    return Objects(corners, torch.tensor(labels, dtype=torch.int64), sizes, flags.bool())


def detections(boxes, labels, scores) -> Detections:
    """Detections from lists."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Detections(corners, torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))


def scenes(
    seed: int, *, images: int = 12, classes: int = 3, ignored: float = 0.2, ties: bool = False
) -> tuple[list[Detections], list[Objects]]:
    """Random detections and objects of 200 x 200 images, some of them without either."""
    generator = torch.Generator().manual_seed(seed)
    found, truths = [], []
    for _ in range(images):
        truth = _truth(generator, classes, ignored)
        found.append(_found(generator, truth, classes, ties=ties))
        truths.append(truth)
    return found, truths


def _truth(generator: torch.Generator, classes: int, ignored: float) -> Objects:
    count = int(torch.randint(0, 7, (), generator=generator))
    corner = torch.rand(count, 2, generator=generator) * 120
    size = 5 + torch.rand(count, 2, generator=generator) ** 2 * 75
    labels = torch.randint(1, classes + 1, (count,), generator=generator)
    flags = torch.rand(count, generator=generator) < ignored
    return Objects(torch.cat([corner, corner + size], 1), labels, size.prod(1), flags)


def _found(generator: torch.Generator, truth: Objects, classes: int, *, ties: bool) -> Detections:
    copies = truth.boxes.repeat(2, 1)
    size = (copies[:, 2:] - copies[:, :2]).repeat(1, 2)
    near = copies + size * 0.07 * torch.randn(copies.shape, generator=generator)
    corner = torch.rand(3, 2, generator=generator) * 120
    stray = torch.cat([corner, corner + 40], 1)
    boxes = torch.cat([near, stray])
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = torch.cat([truth.labels.repeat(2), torch.randint(1, classes + 1, (3,), generator=generator)])
    other = torch.rand(len(labels), generator=generator) < 0.15
    labels[other] = torch.randint(1, classes + 1, (int(other.sum()),), generator=generator)
    kept = torch.rand(len(labels), generator=generator) < 0.8
    scores = torch.rand(len(labels), generator=generator)
    scores = (scores * 4).round() / 4 if ties else scores
    return Detections(boxes[kept], scores[kept], labels[kept])


NAMES = (
    *("ap", "ap50", "ap75", "small/ap", "medium/ap", "large/ap"),
    *("ar1", "ar10", "ar100", "small/ar100", "medium/ar100", "large/ar100"),
)


def official(found, truths) -> COCOeval:
    """Return the challenge's evaluation of detections."""
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i} for i in range(len(truths))],
        "categories": [{"id": i} for i in range(1, len(CLASSES) + 1)],
        "annotations": list(annotations(truths)),
    }
    truth.createIndex()
    results = np.array(
        [
            [image, *xywh(box), float(score), int(label)]
            for image, f in enumerate(found)
            for box, score, label in zip(f.boxes, f.scores, f.labels, strict=True)
        ]
    )
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def annotations(truths) -> Any:
    number = 0
    for image, truth in enumerate(truths):
        for box, label, area, crowd in zip(truth.boxes, truth.labels, truth.areas, truth.ignored, strict=True):
            number += 1
            yield {
                "id": number,
                "image_id": image,
                "category_id": int(label),
                "bbox": xywh(box),
                "area": float(area),
            } | {"iscrowd": int(crowd)}


def xywh(box) -> list[float]:
    left, top, right, bottom = box.double().tolist()
    return [left, top, right - left, bottom - top]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_it_is_the_challenges(seed, ignored):
    found, truths = scenes(seed, images=20, ignored=ignored)
    metrics, each = coco_metrics(found, truths, CLASSES)
    theirs = official(found, truths)
    assert tuple(metrics) == NAMES[: len(metrics)] or set(metrics) <= set(NAMES)
    for name, value in zip(NAMES, theirs.stats, strict=True):
        if value >= 0:
            assert metrics[name] == pytest.approx(value, abs=1e-6), name
        else:
            assert name not in metrics
    assert 0.1 < metrics["ap"] < 0.9
    precision = theirs.eval["precision"][:, :, :, 0, -1]
    assert list(each) == ["a", "b", "c"]  # there is no d
    for label, name in enumerate("abc"):
        assert each[name]["ap"] == pytest.approx(precision[:, :, label].mean(), abs=1e-6)
        assert each[name]["ap50"] == pytest.approx(precision[0, :, label].mean(), abs=1e-6)
    assert metrics["ap"] == pytest.approx(sum(values["ap"] for values in each.values()) / 3, abs=1e-6)


def test_areas_are_the_annotations_not_the_boxes():
    """A thin object in a large box is small."""
    found = [detections([[0, 0, 100, 100]], [1], [0.9])]
    metrics, _ = coco_metrics(found, [objects([[0, 0, 100, 100]], [1], areas=[50.0])], CLASSES)
    assert metrics["small/ap"] == pytest.approx(1)
    assert "large/ap" not in metrics


def test_more_than_a_hundred_detections_and_none_at_all():
    boxes = [[float(i), 0, float(i) + 10, 10] for i in range(150)]
    found = [detections(boxes, [1] * 150, [1 - i / 200 for i in range(150)]), detections([], [], [])]
    metrics, _ = coco_metrics(found, [objects([boxes[0]], [1]), objects([], [])], CLASSES)
    assert metrics["ap"] == pytest.approx(1)
    nothing, each = coco_metrics([detections([], [], [])], [objects([boxes[0]], [2])], CLASSES)
    assert nothing["ap"] == nothing["ar100"] == 0
    assert each == {"b": {"ap": 0.0, "ap50": 0.0}}


@pytest.mark.bad_input
def test_nothing_to_find_is_said():
    with pytest.raises(ValueError, match="no object to be found that is not a crowd"):
        coco_metrics([detections([[0, 0, 9, 9]], [1], [0.9])], [objects([[0, 0, 9, 9]], [1], [True])], CLASSES)


@pytest.mark.bad_input
def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("multimix.lab.evaluate.detection.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs faster-coco-eval: pip install faster-coco-eval"):
        require_coco()


def reference(found: Sequence[Detections], truths: Sequence[Objects], label: int, overlap: float, form: str) -> float:
    """The kit's procedure: detections one after another, boxes that hold their last pixel, recalls in tenths."""
    rows = [
        (float(score), image, box.double().tolist())
        for image, f in enumerate(found)
        for box, score, kind in zip(f.boxes, f.scores, f.labels, strict=True)
        if kind == label
    ]
    rows.sort(key=lambda row: -row[0])
    wanted = sum(int(k == label) and not bool(i) for t in truths for k, i in zip(t.labels, t.ignored, strict=True))
    taken: set[tuple[int, int]] = set()
    hits: list[int] = []
    for _, image, box in rows:
        best, which = -1.0, -1
        for j, (other, kind) in enumerate(zip(truths[image].boxes, truths[image].labels, strict=True)):
            share = kit_overlap(inclusive(box), inclusive(other.double().tolist()))
            if kind == label and share > best:
                best, which = share, j
        if best >= overlap:
            if truths[image].ignored[which]:
                continue
            hits.append(int((image, which) not in taken))
            taken.add((image, which))
        else:
            hits.append(0)
    recall = [sum(hits[: i + 1]) / wanted for i in range(len(hits))]
    precision = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
    if form == "11_point":
        best_at = [
            max((p for p, r in zip(precision, recall, strict=True) if r >= t / 10), default=0) for t in range(11)
        ]
        return sum(best_at) / 11
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


def inclusive(box: list[float]) -> list[float]:
    """Count pixels from 1, the last one inside, as VOC does."""
    return [box[0] + 1, box[1] + 1, box[2], box[3]]


def kit_overlap(one: list[float], two: list[float]) -> float:
    width = min(one[2], two[2]) - max(one[0], two[0]) + 1
    height = min(one[3], two[3]) - max(one[1], two[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (one, two)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("form", ["area", "11_point"])
@pytest.mark.parametrize("overlap", [0.5, 0.75])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_kits(seed, ties, overlap, form):
    found, truths = scenes(seed, ties=ties)
    for label in (1, 2, 3):
        ours = voc_average_precision(found, truths, label=label, overlap=overlap, form=form)
        assert ours == pytest.approx(reference(found, truths, label, overlap, form), abs=1e-12)
        assert 0 < ours < 1


def test_means_over_classes_and_overlaps():
    found, truths = scenes(9)
    metrics, each = voc_metrics(found, truths, CLASSES)
    assert list(each) == ["a", "b", "c"]  # there is no d
    for label, name in enumerate("abc", 1):
        at = {percent: reference(found, truths, label, percent / 100, "area") for percent in range(50, 100, 5)}
        assert each[name]["ap50"] == pytest.approx(at[50], abs=1e-12)
        assert each[name]["ap75"] == pytest.approx(at[75], abs=1e-12)
        assert each[name]["ap"] == pytest.approx(sum(at.values()) / 10, abs=1e-12)
        assert each[name]["11_point/ap50"] == pytest.approx(reference(found, truths, label, 0.5, "11_point"), abs=1e-12)
    assert set(metrics) == {"ap", "ap50", "ap75", "11_point/ap50"}
    for name, value in metrics.items():
        assert value == pytest.approx(sum(found_[name] for found_ in each.values()) / 3)


HIT = [10.0, 10, 20, 20]
MISS = [50.0, 50, 60, 60]


def of_one(boxes, scores, truth, ignored=None, *, form="area", labels=None):
    found = [detections(boxes, labels or [1] * len(boxes), scores)]
    return voc_average_precision(found, [objects(truth, [1] * len(truth), ignored)], label=1, form=form)


@pytest.mark.parametrize("form", ["area", "11_point"])
def test_all_or_nothing(form):
    assert of_one([HIT], [0.9], [HIT], form=form) == 1
    assert of_one([MISS], [0.9], [HIT], form=form) == 0
    assert of_one([], [], [HIT], form=form) == 0
    assert of_one([HIT], [0.9], [HIT], labels=[2], form=form) == 0
    assert of_one([HIT], [0.9], [], form=form) is None
    assert of_one([HIT], [0.9], [HIT], [True], form=form) is None


def test_an_overlap_of_exactly_a_half_is_enough():
    assert of_one([[10.0, 10, 20, 15]], [0.9], [HIT]) == 1
    assert of_one([[10.0, 10, 20, 14.99]], [0.9], [HIT]) == 0


def test_recalls_of_eleven_points_are_exact():
    """Three of ten objects are a recall of 0.3, which 3 * 0.1 is not."""
    truth = [[20.0 * i, 0, 20 * i + 10, 10] for i in range(10)]
    assert of_one(truth[:3], [0.9, 0.8, 0.7], truth, form="11_point") == pytest.approx(4 / 11, abs=1e-15)


@pytest.mark.bad_input
def test_nothing_to_find_is_said_by_voc_too():
    with pytest.raises(ValueError, match="no object to be found that is not difficult"):
        voc_metrics([detections([HIT], [1], [0.5])], [objects([HIT], [1], [True])], CLASSES)
