"""Average precision beside the COCO challenge's own code, and a plain loop over the VOC development kit's pixels."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from multimix.lab.data.boxes import Objects
from multimix.lab.evaluate.detection import Detections, coco_metrics, require_coco, voc_average_precision, voc_metrics

CLASSES = ("a", "b", "c", "d")


def objects(boxes, labels, ignored=None, areas=None) -> Objects:
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    sizes = (corners[:, 2:] - corners[:, :2]).prod(1) if areas is None else torch.tensor(areas)
    flags = torch.zeros(len(corners)) if ignored is None else torch.tensor(ignored)
    return Objects(corners, torch.tensor(labels, dtype=torch.int64), sizes, flags.bool())


def detections(boxes, labels, scores) -> Detections:
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Detections(corners, torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))


def scenes(
    seed: int, *, images: int = 12, ignored: float = 0.2, ties: bool = False
) -> tuple[list[Detections], list[Objects]]:
    """Random objects of three classes in 200 x 200 images, and detections near each of them and elsewhere."""
    generator, found, truths = torch.Generator().manual_seed(seed), [], []

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    for _ in range(images):
        count = int(draw() * 7)
        corner, size = draw(count, 2) * 120, 5 + draw(count, 2) ** 2 * 75
        boxes, labels = torch.cat([corner, corner + size], 1), (draw(count) * 3).long() + 1
        truths.append(Objects(boxes, labels, size.prod(1), draw(count) < ignored))
        near = boxes.repeat(2, 1) + size.repeat(2, 2) * 0.16 * (draw(2 * count, 4) + draw(2 * count, 4) - 1)
        stray = draw(3, 2) * 120
        seen = torch.cat([near, torch.cat([stray, stray + 40], 1)])
        kinds = torch.cat([labels.repeat(2), torch.tensor([1, 2, 3])])
        kinds = torch.where(draw(len(kinds)) < 0.15, kinds % 3 + 1, kinds)
        kept, scores = draw(len(kinds)) < 0.8, draw(len(kinds))
        found.append(Detections(seen[kept], ((scores * 4).round() / 4 if ties else scores)[kept], kinds[kept]))
    return found, truths


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
        "annotations": [
            {"image_id": image, "category_id": int(t.labels[i]), "bbox": xywh(t.boxes[i]), "area": float(t.areas[i])}
            | {"iscrowd": int(t.ignored[i]), "id": 1 + 100 * image + i}
            for image, t in enumerate(truths)
            for i in range(len(t))
        ],
    }
    truth.createIndex()
    results = [
        [image, *xywh(box), float(score), int(label)]
        for image, f in enumerate(found)
        for box, score, label in zip(f.boxes, f.scores, f.labels, strict=True)
    ]
    evaluation = COCOeval(truth, truth.loadRes(np.array(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def xywh(box) -> list[float]:
    left, top, right, bottom = box.double().tolist()
    return [left, top, right - left, bottom - top]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_it_is_the_challenges(seed, ignored):
    found, truths = scenes(seed, images=20, ignored=ignored)
    metrics, each = coco_metrics(found, truths, CLASSES)
    theirs = official(found, truths)
    wanted = {name: value for name, value in zip(NAMES, theirs.stats, strict=True) if value >= 0}
    assert metrics == pytest.approx(wanted, abs=1e-6)
    assert 0.1 < metrics["ap"] < 0.9
    precision = theirs.eval["precision"][:, :, :, 0, -1]
    assert list(each) == ["a", "b", "c"]  # there is no d
    for label, name in enumerate("abc"):
        wanted = {"ap": precision[:, :, label].mean(), "ap50": precision[0, :, label].mean()}
        assert each[name] == pytest.approx(wanted, abs=1e-6)
    assert metrics["ap"] == pytest.approx(sum(values["ap"] for values in each.values()) / 3, abs=1e-6)


def test_areas_are_the_annotations_a_hundred_detections_count_and_none_is_no_trouble():
    thin = [detections([[0, 0, 100, 100]], [1], [0.9])], [objects([[0, 0, 100, 100]], [1], areas=[50.0])]
    metrics, _ = coco_metrics(*thin, CLASSES)
    assert metrics["small/ap"] == pytest.approx(1)
    assert "large/ap" not in metrics
    boxes = [[float(i), 0, float(i) + 10, 10] for i in range(150)]
    found = [detections(boxes, [1] * 150, [1 - i / 200 for i in range(150)]), detections([], [], [])]
    metrics, _ = coco_metrics(found, [objects([boxes[0]], [1]), objects([], [])], CLASSES)
    assert metrics["ap"] == pytest.approx(1)
    nothing, each = coco_metrics([detections([], [], [])], [objects([boxes[0]], [2])], CLASSES)
    assert nothing["ap"] == nothing["ar100"] == 0
    assert each == {"b": {"ap": 0.0, "ap50": 0.0}}


@pytest.mark.bad_input
def test_nothing_to_find_and_a_missing_package_are_said(monkeypatch):
    ignored = [detections([[0, 0, 9, 9]], [1], [0.9])], [objects([[0, 0, 9, 9]], [1], [True])]
    with pytest.raises(ValueError, match="no object to be found that is not a crowd"):
        coco_metrics(*ignored, CLASSES)
    with pytest.raises(ValueError, match="no object to be found that is not difficult"):
        voc_metrics(*ignored, CLASSES)
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
            share = kit_overlap(box, other.double().tolist())
            if kind == label and share > best:
                best, which = share, j
        near = best >= overlap
        if near and truths[image].ignored[which]:
            continue
        hits.append(int(near and (image, which) not in taken))
        taken |= {(image, which)} if near else set()
    recall = [sum(hits[: i + 1]) / wanted for i in range(len(hits))]
    precision = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
    if form == "11_point":
        at = [[p for p, r in zip(precision, recall, strict=True) if r >= t / 10] for t in range(11)]
        return sum(max(each, default=0) for each in at) / 11
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


def kit_overlap(one: list[float], two: list[float]) -> float:
    """Boxes hold their last pixel, and pixels count from 1."""
    one, two = ([box[0] + 1, box[1] + 1, box[2], box[3]] for box in (one, two))
    width = min(one[2], two[2]) - max(one[0], two[0]) + 1
    height = min(one[3], two[3]) - max(one[1], two[1]) + 1
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (one, two)]
    return width * height / (sum(areas) - width * height) if width > 0 and height > 0 else 0.0


@pytest.mark.parametrize("form", ["area", "11_point"])
@pytest.mark.parametrize("overlap", [0.5, 0.75])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
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
        old = reference(found, truths, label, 0.5, "11_point")
        wanted = {"ap": sum(at.values()) / 10, "ap50": at[50], "ap75": at[75], "11_point/ap50": old}
        assert each[name] == pytest.approx(wanted, abs=1e-12)
    assert set(metrics) == {"ap", "ap50", "ap75", "11_point/ap50"}
    assert metrics == pytest.approx({name: sum(values[name] for values in each.values()) / 3 for name in metrics})


HIT, MISS = [10.0, 10, 20, 20], [50.0, 50, 60, 60]


def of_one(boxes, truth, ignored=None, *, form="area", label=1):
    found = [detections(boxes, [label] * len(boxes), [1 - i / 9 for i in range(len(boxes))])]
    return voc_average_precision(found, [objects(truth, [1] * len(truth), ignored)], label=1, form=form)


@pytest.mark.parametrize("form", ["area", "11_point"])
def test_all_or_nothing(form):
    assert of_one([HIT], [HIT], form=form) == of_one([[10.0, 10, 20, 15]], [HIT], form=form) == 1
    assert of_one([MISS], [HIT], form=form) == of_one([[10.0, 10, 20, 14.99]], [HIT], form=form) == 0
    assert of_one([], [HIT], form=form) == of_one([HIT], [HIT], label=2, form=form) == 0
    assert of_one([HIT], [], form=form) is of_one([HIT], [HIT], [True], form=form) is None


def test_recalls_of_eleven_points_are_exact():
    """Three of ten objects are a recall of 0.3, which 3 * 0.1 is not."""
    truth = [[20.0 * i, 0, 20 * i + 10, 10] for i in range(10)]
    assert of_one(truth[:3], truth, form="11_point") == pytest.approx(4 / 11, abs=1e-15)
