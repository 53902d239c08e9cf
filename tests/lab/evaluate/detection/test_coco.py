"""COCO's average precision beside the challenge's own code."""

import importlib.util
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluate.detection.scenes import CLASSES, detections, objects, scenes
from multimix.lab.evaluate.detection import coco_metrics, require_coco

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
def test_it_is_the_challenges(seed, ignored, capsys):
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
    capsys.readouterr()


def test_areas_are_the_annotations_not_the_boxes(capsys):
    """A thin object in a large box is small."""
    found = [detections([[0, 0, 100, 100]], [1], [0.9])]
    metrics, _ = coco_metrics(found, [objects([[0, 0, 100, 100]], [1], areas=[50.0])], CLASSES)
    assert metrics["small/ap"] == pytest.approx(1)
    assert "large/ap" not in metrics
    capsys.readouterr()


def test_more_than_a_hundred_detections_and_none_at_all(capsys):
    boxes = [[float(i), 0, float(i) + 10, 10] for i in range(150)]
    found = [detections(boxes, [1] * 150, [1 - i / 200 for i in range(150)]), detections([], [], [])]
    metrics, _ = coco_metrics(found, [objects([boxes[0]], [1]), objects([], [])], CLASSES)
    assert metrics["ap"] == pytest.approx(1)
    nothing, each = coco_metrics([detections([], [], [])], [objects([boxes[0]], [2])], CLASSES)
    assert nothing["ap"] == nothing["ar100"] == 0
    assert each == {"b": {"ap": 0.0, "ap50": 0.0}}
    capsys.readouterr()


@pytest.mark.bad_input
def test_nothing_to_find_is_said(capsys):
    with pytest.raises(ValueError, match="no object to be found that is not a crowd"):
        coco_metrics([detections([[0, 0, 9, 9]], [1], [0.9])], [objects([[0, 0, 9, 9]], [1], [True])], CLASSES)
    capsys.readouterr()


@pytest.mark.bad_input
def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("multimix.lab.evaluate.detection.find_spec", lambda name: None)
    assert importlib.util.find_spec("faster_coco_eval")
    with pytest.raises(ValueError, match=r"needs faster-coco-eval: pip install faster-coco-eval"):
        require_coco()
