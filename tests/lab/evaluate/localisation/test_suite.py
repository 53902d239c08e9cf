"""The localisation suite on folders of bright rectangles, with a network that attends to brightness."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import toy
from listening import Kept
from multimix.lab.data import Files, Images, load
from multimix.lab.evaluate import Source
from multimix.lab.evaluate.localisation import Localisation, LocalisationSettings, box_above, overlap, score_maps
from multimix.methods import ERM

METRICS = [
    *(f"{way}/{words}localisation_accuracy" for words in ("", "iou30/", "iou70/") for way in ("fixed", "best")),
    "best/mean/localisation_accuracy",
    "whole/localisation_accuracy",
    "pointing_accuracy",
    "measured",
]


def bright() -> toy.Toy:
    return toy.Toy(nn.AvgPool2d(4), nn.ReLU(), width=3, classes=2)


def rectangle(folder: Path, name: str, box: tuple[int, int, int, int], side: int) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (side, side))
    picture.paste((255, 255, 255), box)
    picture.save(folder / name)


def tree(folder: Path, side: int = 32, n: int = 6) -> dict[str, tuple[int, int, int, int]]:
    """Write train/ and test/ of two classes; return the box of every test image."""
    boxes = {}
    patch = side // 8
    for part in ("train", "test"):
        for i in range(2 * n):
            name = f"{'ab'[i % 2]}/{part}{i}.png"
            x, y = i % 4 * patch, i % 3 * patch
            box = (x, y, x + (2 + i % 3) * patch, y + (2 + i % 2) * patch)
            rectangle(folder / part, name, box, side)
            if part == "test":
                boxes[Path(name).name] = box
    return boxes


def source(folder: Path, *, batch_size: int = 5, **how: Any) -> Source:
    splits = replace(load(f"folder:{folder}", validation=0, **how), mean=(0.0,) * 3, std=(1.0,) * 3)
    return Source(splits, ERM(), torch.device("cpu"), batch_size=batch_size)


def write(folder: Path, boxes: Any) -> LocalisationSettings:
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return LocalisationSettings(boxes=str(folder / "boxes.json"), threshold=0.5)


def test_boxes_of_bright_rectangles_are_found(tmp_path):
    settings = write(tmp_path, tree(tmp_path))
    monitor = Kept()
    found = dict(Localisation.of(source(tmp_path), settings)(bright(), monitor))
    assert list(found) == METRICS
    # At half of the largest value the box is the rectangle itself, whose patches are the network's.
    assert found["fixed/iou70/localisation_accuracy"] == found["best/mean/localisation_accuracy"] == 1
    assert found["pointing_accuracy"] == found["measured"] == 1
    assert found["whole/localisation_accuracy"] == 0
    figure = monitor.figures["localisation"]
    assert list(figure) == ["threshold", "accuracy", "iou", "examples", "fixed"]
    assert (figure["iou"], figure["examples"], figure["fixed"]) == (0.5, 12, 0.5)
    assert figure["threshold"] == pytest.approx([i / 20 for i in range(20)])
    assert figure["accuracy"][10] == 1
    assert figure["accuracy"][0] == 0  # the whole image


@pytest.mark.parametrize(
    ("side", "size", "kind"), [(64, 32, Images), (128, None, Files), (128, 112, Files), (128, 96, Images)]
)
def test_boxes_follow_images_that_are_scaled_and_cut(tmp_path, side, size, kind):
    """Of an image from a file the network sees the inner 7/8: what is left of each box is found there."""
    settings = write(tmp_path, tree(tmp_path, side))
    data = source(tmp_path, image_size=size)
    assert isinstance(data.splits.test, kind)
    found = dict(Localisation.of(data, settings)(bright()))
    assert found["fixed/iou70/localisation_accuracy"] > 0.9
    assert found["pointing_accuracy"] == 1


def test_wrong_boxes_are_not_found(tmp_path):
    """Each image has a box where the rectangle is not, but for two."""
    boxes = dict(tree(tmp_path))
    for name in list(boxes)[2:]:
        boxes[name] = (28, 28, 32, 32)
    found = dict(Localisation.of(source(tmp_path), write(tmp_path, boxes))(bright()))
    assert found["fixed/localisation_accuracy"] == pytest.approx(2 / 12)
    assert found["pointing_accuracy"] == pytest.approx(2 / 12)


def test_metrics_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(23, 3, 32, 32, generator=generator) ** 4
    corners = torch.rand(23, 2, 2, generator=generator, dtype=torch.float64).sort(1).values * 32
    boxes = tuple(corners.flatten(1)[:, None].numpy())
    settings = LocalisationSettings(threshold=0.33, thresholds=7)
    labels = torch.zeros(23, dtype=torch.int64)
    suites = [
        Localisation(list(zip(inputs.split(b), labels.split(b), strict=True)), boxes, 1, settings) for b in (1, 7, 23)
    ]
    first, *others = (dict(suite(bright())) for suite in suites)
    assert all(found == pytest.approx(first) for found in others)

    maps = score_maps(bright(), inputs, labels).numpy()
    levels = sorted([i / 7 for i in range(7)] + [0.33])
    right = {
        least: [
            np.mean([overlap(box_above(m, t), b) >= least for m, b in zip(maps, boxes, strict=True)]) for t in levels
        ]
        for least in (0.3, 0.5, 0.7)
    }
    assert first["best/localisation_accuracy"] == pytest.approx(max(right[0.5]))
    assert first["fixed/localisation_accuracy"] == pytest.approx(right[0.5][levels.index(0.33)])
    assert first["fixed/iou30/localisation_accuracy"] == pytest.approx(right[0.3][levels.index(0.33)])
    assert first["best/mean/localisation_accuracy"] == pytest.approx(np.mean([max(right[v]) for v in right]))
    areas = corners.diff(dim=1).prod(2).flatten() / 32**2
    assert first["whole/localisation_accuracy"] == pytest.approx(float((areas >= 0.5).double().mean()))
    peaks = [np.unravel_index(m.argmax(), m.shape) for m in maps]
    inside = [
        b[0, 0] <= x + 0.5 <= b[0, 2] and b[0, 1] <= y + 0.5 <= b[0, 3] for (y, x), b in zip(peaks, boxes, strict=True)
    ]
    assert first["pointing_accuracy"] == pytest.approx(np.mean(inside))


def test_only_images_with_a_box_are_measured(tmp_path):
    boxes = tree(tmp_path)
    some = {name: box for i, (name, box) in enumerate(boxes.items()) if i % 3 == 0}
    monitor = Kept()
    found = dict(Localisation.of(source(tmp_path), write(tmp_path, some))(bright(), monitor))
    assert found["measured"] == pytest.approx(4 / 12)
    assert found["fixed/localisation_accuracy"] == 1
    assert monitor.figures["localisation"]["examples"] == 4


def test_fewer_examples_are_those_of_the_other_suites(tmp_path):
    settings = replace(write(tmp_path, tree(tmp_path)), examples=4)
    data = source(tmp_path)
    suite = Localisation.of(data, settings)
    served = torch.cat([inputs for inputs, _ in suite.batches])
    assert torch.equal(served, torch.cat([inputs for inputs, _ in data.batches(data.test(4))]))
    assert dict(suite(bright()))["fixed/localisation_accuracy"] == 1


def test_tiny_imagenet_brings_its_boxes_in_its_own_layout(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    boxes = tree(root, side=64)
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for name, (x0, y0, x1, y1) in boxes.items():
        wnid = next(kind for kind in "ab" if (root / "test" / kind / name).is_file())
        (root / "test" / wnid / name).rename(root / "val" / "images" / name)
        lines.append(f"{name}\t{wnid}\t{x0}\t{y0}\t{x1 - 1}\t{y1 - 1}\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    splits = replace(load("tiny-imagenet", root=tmp_path, validation=0), mean=(0.0,) * 3, std=(1.0,) * 3)
    data = Source(splits, ERM(), torch.device("cpu"), root=str(tmp_path))
    found = dict(Localisation.of(data, LocalisationSettings(threshold=0.5))(bright()))
    assert found["fixed/iou70/localisation_accuracy"] == found["measured"] == 1


@pytest.mark.bad_input
def test_data_without_boxes_are_refused(tmp_path):
    settings = write(tmp_path, tree(tmp_path))
    data = source(tmp_path)
    with pytest.raises(ValueError, match=r"needs boxes, and folder:.* brings none: give boxes=FILE"):
        Localisation.of(data, LocalisationSettings())
    nameless = replace(data, splits=replace(data.splits, name="cifar10"))
    with pytest.raises(ValueError, match=r"tiny-imagenet, imagenet or folder:PATH have them, cifar10 has none"):
        Localisation.of(nameless, settings)
    with pytest.raises(ValueError, match=r"none of the 12 test images has a box .* names other.png"):
        Localisation.of(data, write(tmp_path, {"other.png": [0, 0, 1, 1]}))


@pytest.mark.bad_input
def test_files_that_have_changed_are_refused(tmp_path):
    settings = write(tmp_path, tree(tmp_path))
    data = source(tmp_path)
    rectangle(tmp_path / "test", "a/test0.png", (0, 0, 32, 32), 32)
    with pytest.raises(ValueError, match="are not the files found there now"):
        Localisation.of(data, settings)
    rectangle(tmp_path / "test", "a/zzz.png", (0, 0, 32, 32), 32)
    with pytest.raises(ValueError, match="are not the files found there now"):
        Localisation.of(data, settings)


@pytest.mark.bad_input
def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="query must be one of gap, cam, got 'max'"):
        LocalisationSettings(query="max")
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\], got 1.5"):
        LocalisationSettings(threshold=1.5)
    with pytest.raises(ValueError, match=r"thresholds must lie in \[1, 200\], got 0"):
        LocalisationSettings(thresholds=0)
