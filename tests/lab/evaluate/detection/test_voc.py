"""VOC's average precision against a plain loop over the development kit's pixels, by hand and beside torchmetrics."""

import warnings
from collections.abc import Sequence

import pytest
import torch

from evaluate.detection.scenes import CLASSES, detections, objects, scenes
from multimix.lab.data.boxes import Objects
from multimix.lab.evaluate.detection import Detections, voc_average_precision, voc_metrics


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


def test_by_hand():
    # surest is wrong, then one of two objects: precision 1/2 up to recall 1/2, nothing beyond
    assert of_one([MISS, HIT], [0.9, 0.8], [HIT, [30.0, 30, 40, 40]]) == 0.25
    assert of_one([MISS, HIT], [0.9, 0.8], [HIT, [30.0, 30, 40, 40]], form="11_point") == pytest.approx(6 / 11 / 2)
    # found twice: the second is wrong, but comes too late to matter; the other way round it does not
    assert of_one([HIT, HIT, [30.0, 30, 40, 40]], [0.9, 0.8, 0.7], [HIT, [30.0, 30, 40, 40]]) == pytest.approx(
        0.5 + 0.5 * 2 / 3
    )


def test_an_overlap_of_exactly_a_half_is_enough():
    assert of_one([[10.0, 10, 20, 15]], [0.9], [HIT]) == 1
    assert of_one([[10.0, 10, 20, 14.99]], [0.9], [HIT]) == 0


def test_the_nearest_object_is_the_one_even_if_it_is_taken():
    """Not the next best: VOC, unlike COCO, does not give a second detection another object."""
    beside = [10.0, 12, 20, 22]  # overlaps HIT by 2/3
    assert of_one([HIT, [10.0, 10.5, 20, 20.5]], [0.9, 0.8], [HIT, beside]) == 0.5


def test_difficult_objects_neither_help_nor_hurt():
    other = [30.0, 30, 40, 40]
    assert of_one([other, HIT], [0.9, 0.8], [HIT, other], [False, True]) == 1
    assert of_one([other, other, HIT], [0.9, 0.85, 0.8], [HIT, other], [False, True]) == 1
    assert of_one([MISS, HIT], [0.9, 0.8], [HIT, other], [False, True]) == 0.5


def test_recalls_of_eleven_points_are_exact():
    """Three of ten objects are a recall of 0.3, which 3 * 0.1 is not."""
    truth = [[20.0 * i, 0, 20 * i + 10, 10] for i in range(10)]
    assert of_one(truth[:3], [0.9, 0.8, 0.7], truth, form="11_point") == pytest.approx(4 / 11, abs=1e-15)


def test_it_is_torchmetrics_where_the_definitions_agree():
    """One object and one detection an image: then the two match alike."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.detection import MeanAveragePrecision
    generator = torch.Generator().manual_seed(0)
    truths = [objects([HIT], [1]) for _ in range(100)]
    found = []
    for _ in range(100):
        shift = float(torch.randn((), generator=generator)) * 4
        box = [HIT[0] + shift, HIT[1], HIT[2] + shift, HIT[3]]
        found.append(detections([box], [1], [float(torch.rand((), generator=generator))]))
    metric = MeanAveragePrecision(backend="faster_coco_eval", iou_thresholds=[0.5])
    metric.update(
        [{"boxes": f.boxes, "scores": f.scores, "labels": f.labels} for f in found],
        [{"boxes": t.boxes, "labels": t.labels} for t in truths],
    )
    theirs = float(metric.compute()["map"])
    ours = voc_average_precision(found, truths, label=1)
    assert 0.2 < ours < 0.9
    assert ours == pytest.approx(theirs, abs=0.01)  # 101 recalls instead of the area


@pytest.mark.bad_input
def test_nothing_to_find_is_said():
    with pytest.raises(ValueError, match="no object to be found that is not difficult"):
        voc_metrics([detections([HIT], [1], [0.5])], [objects([HIT], [1], [True])], CLASSES)
