"""Maps and boxes against loops and torchvision, files of boxes, and the suite on folders of bright rectangles."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.ops import box_iou

import toy
from evaluate.made import batches
from listening import Kept
from multimix.lab.data import Files, Images, load
from multimix.lab.data._files import EVALUATION_RATIO, fitted
from multimix.lab.evaluate import Localisation, LocalisationSettings, Source
from multimix.lab.evaluate.localisation import (
    boxes_above,
    fitted_boxes,
    grid_of,
    overlap,
    places_in,
    read_boxes,
    score_maps,
)
from multimix.lab.evaluate.passes import NonFiniteError
from multimix.methods import ERM


def bright(patch: int = 4) -> toy.Toy:
    """A network whose embedding of a patch is how bright it is in each channel: so is its attention."""
    return toy.Toy(nn.AvgPool2d(patch), nn.ReLU(), width=3, classes=2)


def walked(scores: np.ndarray, threshold: float) -> list[int]:
    """The box around the largest part of a map, the first of several, walked from pixel to pixel."""
    left, largest = {(int(y), int(x)) for y, x in np.argwhere(scores >= threshold)}, []
    for start in sorted(left):
        part = [start] if start in left else []
        left.discard(start)
        for y, x in part:  # which grows
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            part.extend(near)
        largest = max(largest, part, key=len)
    if not largest:
        return [0, 0, 0, 0]
    (top, first), (bottom, last) = np.min(largest, 0), np.max(largest, 0)
    return [first, top, last + 1, bottom + 1]


def test_boxes_by_hand():
    scores = np.zeros((4, 5))
    scores[1, 1] = scores[2, 2] = 1.0  # touch at a corner
    scores[0, 4] = 0.7
    boxes = [[1, 1, 3, 3], [0, 0, 0, 0], [1, 1, 3, 3], [0, 0, 5, 4]]
    assert boxes_above(scores, np.array([0.7, 1.1, 1.0, 0.0])).tolist() == boxes
    scores[2, 2] = 0  # of two parts of one pixel, the upper one
    assert boxes_above(scores, np.array([0.7])).tolist() == [[4, 0, 5, 1]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 5), (16, 16)])
def test_boxes_are_those_of_a_walk(shape):
    for seed in range(20):
        scores = np.random.default_rng(seed).random(shape)
        thresholds = np.linspace(0.1, 1, 10)
        assert boxes_above(scores, thresholds).tolist() == [walked(scores, threshold) for threshold in thresholds]


def test_overlap_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        corners = torch.rand(4, 2, 2, generator=generator, dtype=torch.float64).sort(1).values.flatten(1) * 10
        wanted = box_iou(corners[:1], corners[1:]).max()
        assert overlap(corners[0].numpy(), corners[1:].numpy()) == pytest.approx(float(wanted))
    assert overlap(np.zeros(4), np.array([[1.0, 1, 2, 2]])) == 0


def test_maps_are_attention_scaled_to_the_image():
    """A bright block of 2 x 3 patches in the dark: at half height the map's edge is the block's."""
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, 8:16, 4:16] = 0.7
    images[1, :, 20:28, 24:32] = 0.2
    maps = score_maps(bright(), images, torch.zeros(2, dtype=torch.int64))
    assert maps.amin((1, 2)).tolist() == [0, 0]
    assert maps.amax((1, 2)).tolist() == pytest.approx([1, 1])
    for scores, box in zip(maps.numpy(), ([4, 8, 16, 16], [24, 20, 32, 28]), strict=True):
        assert boxes_above(scores, np.array([0.5])).tolist() == [box]
    for flat in (0.0, 0.1):
        assert (score_maps(bright(), torch.full((1, 3, 8, 8), flat), torch.zeros(1).long()) == 1).all()


def test_the_class_query_asks_for_the_true_class():
    """Class 0 looks for red, class 1 for blue; red lies to the left and blue to the right."""
    network = bright()
    with torch.no_grad():
        network.classifier.weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]))
    image = torch.zeros(1, 3, 16, 16)
    image[:, 0, :, :4] = image[:, 2, :, 12:] = 1
    for label, (hot, cold) in enumerate(((0, 15), (15, 0))):
        maps = score_maps(network, image, torch.tensor([label]), "cam")
        assert maps[0, :, [hot, cold]].tolist() == [[1.0, 0.0]] * 16
    # The pooled embedding is red and blue alike.
    assert score_maps(network, image, torch.tensor([0]))[0, 0, [0, 15]].tolist() == [1, 1]


def test_tokens_before_the_map_are_left_out(monkeypatch):
    """A transformer's layout: two tokens that see everything come before those of the patches."""
    image, labels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    network = bright()
    wanted, embed = score_maps(network, image, labels), network.embed
    tokens = lambda x: embed(x).mean(1, keepdim=True) * torch.tensor([[[9.0], [-9.0]]])  # noqa: E731
    monkeypatch.setattr(network, "embed", lambda x: torch.cat([tokens(x), embed(x)], 1))
    torch.testing.assert_close(score_maps(network, image, labels), wanted)


def test_positions_are_a_map_of_the_images_proportions():
    assert grid_of(197, 224, 224) == (1, 14, 14)
    assert grid_of(24, 32, 32) == (8, 4, 4)
    assert grid_of(201, 224, 224) == (5, 14, 14)
    assert grid_of(9, 16, 32) == (1, 2, 4)


@pytest.mark.bad_input
def test_networks_without_a_map_are_refused():
    with pytest.raises(ValueError, match="embeds images of 8x8 at 1, which is no map"):
        score_maps(bright(8), torch.rand(1, 3, 8, 8), torch.tensor([0]))
    bent = toy.Toy(nn.AvgPool2d(4), width=3, classes=2, affine=False)
    with pytest.raises(ValueError, match="query=cam needs a network with an affine head"):
        score_maps(bent, torch.rand(1, 3, 8, 8), torch.tensor([0]), "cam")


def test_the_three_kinds_of_file_say_the_same(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps({"a.png": [0, 1, 2, 3], "c/b.png": [[1, 1, 4, 5], [0, 0, 1, 1]]}))
    (tmp_path / "b.csv").write_text("file,x0,y0,x1,y1\na.png,0,1,2,3\nc/b.png,1,1,4,5\nc/b.png,0,0,1,1\n\n")
    (tmp_path / "b.txt").write_text("\ufeffa.png\tn1\t0\t1\t1\t2\nc/b.png\tn2\t1\t1\t3\t4\nc/b.png\tn2\t0\t0\t0\t0\n")
    wanted = {"a.png": [(0, 1, 2, 3)], "c/b.png": [(1, 1, 4, 5), (0, 0, 1, 1)]}
    for kind in ("json", "csv", "txt"):
        assert read_boxes(str(tmp_path / f"b.{kind}")) == wanted


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("b.xml", "", r"ends in .json, .csv, .txt, got"),
        ("b.json", "[", "is not JSON"),
        ("b.json", "[]", "must hold an object with a box for each image, got list"),
        ("b.json", "{}", "there is no box in"),
        ("b.json", '{"a": [1, 2, 3]}', r"b.json, a must have x0, y0, x1, y1 .* got \[1, 2, 3\]"),
        ("b.json", '{"a": [3, 0, 2, 5]}', "0 <= x0 < x1"),
        ("b.json", '{"a": 7}', "got 7"),
        ("b.json", '{"a": "2299"}', "got 2299"),
        ("b.json", '{"a": [false, false, true, true]}', r"got \[False, False, True, True\]"),
        pytest.param("b.json", f'{{"a": [0, 0, 1{"0" * 400}, 1]}}', "b.json, a must have", id="huge"),
        ("b.json", '{"a": [0.1, 0.2, 0.8, 0.9]}', "must be in pixels, and none of them ends beyond 1"),
        pytest.param("b.json", "[" * 100_000, "b.json is damaged: ", id="deep"),
        pytest.param("b.csv", "file,x0,y0,x1,y1\n" + "a" * 200_000, "b.csv is damaged: field larger", id="long"),
        ("b.csv", b"file,x0,y0,x1,y1\n\xe4,1,2,3,4", "b.csv is damaged: 'utf-8' codec"),
        ("b.txt", b"\xe4\tn1\t5\t5\t6\t6\n", "b.txt is damaged: 'utf-8' codec"),
        ("b.csv", "name,x,y\n", "must begin with file,x0,y0,x1,y1, got name,x,y"),
        ("b.csv", "file,x0,y0,x1,y1\na,1,2,x,4\n", "b.csv, a must have"),
        ("b.txt", "a\tn1\t5\t5\n", "b.txt, a must have"),
        ("b.txt", "a\n", "b.txt, a must have"),
        ("b.json", '{"a": [0, 0, 1, 1], "a": [2, 2, 3, 3]}', "a comes twice"),
    ],
)
def test_what_is_no_file_of_boxes_is_refused(tmp_path, name, text, says):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=says):
        read_boxes(str(tmp_path / name))
    with pytest.raises(ValueError, match="there is no file"):
        read_boxes(str(tmp_path / "none.csv"))


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("width", "height", "box"),
    [(640, 480, (200, 100, 420, 300)), (300, 500, (100, 150, 200, 330)), (256, 256, (0, 0, 128, 256))],
)
def test_a_box_goes_where_its_pixels_go(width, height, box, in_memory):
    """A white rectangle on black, scaled and cut as the loader does it, has its edges at half of white."""
    drawing, size = Image.new("RGB", (width, height)), 112
    drawing.paste((255, 255, 255), box)
    seen = np.asarray(fitted(drawing, size, ratio=1.0 if in_memory else EVALUATION_RATIO))[..., 0] > 127
    rows, columns = seen.any(1).nonzero()[0], seen.any(0).nonzero()[0]
    wanted = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    given = torch.tensor([box], dtype=torch.float64)
    found = fitted_boxes(given, (height, width), size, in_memory=in_memory)[0].tolist()
    assert found == pytest.approx(wanted, abs=0.75)


def rectangle(path: Path, size: tuple[int, int], box: tuple[int, int, int, int] = (0, 0, 1, 1)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), box)
    picture.save(path)


def saved(folder: Path, names: list[str], size: tuple[int, int]) -> Files:
    for name in names:
        rectangle(folder / name, size)
    return Files(tuple(str(folder / name) for name in names), torch.zeros(len(names)).long(), ("a", "b"), 32)


def test_images_get_the_boxes_of_their_names(tmp_path):
    files = saved(tmp_path, ["a/1.png", "a/2.png", "b/3.png", "b/2.png"], (64, 64))
    test = Images(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), files.labels, files.classes)
    boxes = {"1.png": (0, 0, 1, 2), "b/2.png": (3, 3, 64, 64), "b/3.png": (1, 1, 2, 2), "3.png": (4, 4, 5, 5)}
    places = places_in(test, files, {name: [box] for name, box in boxes.items()})
    assert [place.tolist() for place in places] == [[[0, 0, 1, 2]], [], [[1, 1, 2, 2], [4, 4, 5, 5]], [[3, 3, 64, 64]]]
    # One that is cut away is none: of an image of 64 x 32 the middle is seen, at the size of 32 / (256 / 224).
    files = saved(tmp_path, ["a/1.png", "a/2.png"], (64, 32))
    places = places_in(files, files, {"1.png": [(0.0, 0, 10, 32)], "2.png": [(0.0, 0, 64, 32)]})
    assert len(places[0]) == 0
    assert places[1].tolist() == [[0, 0, 32, 32]]


@pytest.mark.bad_input
def test_boxes_that_do_not_fit_their_images_are_refused(tmp_path):
    files = saved(tmp_path, ["a/1.png", "b/1.png"], (20, 30))
    with pytest.raises(ValueError, match=r"1.png is the name of 2 test images; give it with its class, CLASS/1.png"):
        places_in(files, files, {"1.png": [(0.0, 0, 1, 1)]})
    with pytest.raises(ValueError, match=r"1.png is upright of 20x30 pixels, its box \(0.0, 0, 21, 1\) lies outside"):
        places_in(files, files, {"a/1.png": [(0.0, 0, 21, 1)]})


def test_boxes_of_a_turned_image_are_those_of_the_upright_one(tmp_path):
    turned, exif = Image.new("RGB", (20, 30)), Image.Exif()
    exif[274] = 6
    turned.save(tmp_path / "1.jpg", exif=exif)
    files = Files((str(tmp_path / "1.jpg"),), torch.tensor([0]), ("a", "b"))
    upright = Images(torch.zeros(1, 3, 20, 30, dtype=torch.uint8), files.labels, files.classes)
    assert places_in(upright, files, {"1.jpg": [(0.0, 0, 30, 20)]})[0].tolist() == [[0, 0, 30, 20]]
    with pytest.raises(ValueError, match="is upright of 30x20 pixels"):
        places_in(upright, files, {"1.jpg": [(0.0, 0, 20, 30)]})


@pytest.mark.bad_input
def test_images_without_boxes_or_boxes_without_images_are_refused():
    inputs, labels = torch.rand(3, 3, 8, 8), torch.zeros(3).long()
    box = np.array([[0.0, 0, 4, 4]])
    for boxes in ((box,) * 2, (box,) * 4, ()):
        with pytest.raises(ValueError, match="got"):
            dict(Localisation(batches(inputs, labels, 2), boxes)(bright()))
    with pytest.raises(NonFiniteError):
        dict(Localisation(batches(inputs * torch.nan, labels, 2), (box,) * 3)(bright()))


METRICS = [f"{way}/{words}localisation_accuracy" for words in ("", "iou30/", "iou70/") for way in ("fixed", "best")]
METRICS += ["best/mean/localisation_accuracy", "whole/localisation_accuracy", "pointing_accuracy", "measured"]


def tree(folder: Path, side: int = 32, n: int = 6) -> dict[str, tuple[int, int, int, int]]:
    """Write train/ and test/ of two classes; return the box of every test image."""
    boxes, patch = {}, side // 8
    for i in range(2 * n):
        x, y = i % 4 * patch, i % 3 * patch
        box = (x, y, x + (2 + i % 3) * patch, y + (2 + i % 2) * patch)
        for part in ("train", "test"):
            rectangle(folder / part / "ab"[i % 2] / f"{part}{i}.png", (side, side), box)
        boxes[f"test{i}.png"] = box
    return boxes


def source(folder: Path, *, batch_size: int = 5, **how: Any) -> Source:
    splits = replace(load(f"folder:{folder}", validation=0, **how), mean=(0.0,) * 3, std=(1.0,) * 3)
    return Source(splits, ERM(), torch.device("cpu"), batch_size=batch_size)


def write(folder: Path, boxes: Any) -> LocalisationSettings:
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return LocalisationSettings(boxes=str(folder / "boxes.json"), threshold=0.5)


def test_boxes_of_bright_rectangles_are_found(tmp_path):
    settings, monitor = write(tmp_path, tree(tmp_path)), Kept()
    found = dict(Localisation.of(source(tmp_path), settings)(bright(), monitor))
    assert list(found) == METRICS
    # At half of the largest value the box is the rectangle itself, whose patches are the network's.
    assert found["fixed/iou70/localisation_accuracy"] == found["best/mean/localisation_accuracy"] == 1
    assert found["pointing_accuracy"] == found["measured"] == 1
    assert found["whole/localisation_accuracy"] == 0
    figure = monitor.figures["localisation"]
    assert {key: figure.pop(key) for key in ("iou", "examples", "fixed")} == {"iou": 0.5, "examples": 12, "fixed": 0.5}
    assert figure.pop("threshold") == pytest.approx([i / 20 for i in range(20)])
    assert (figure["accuracy"][0], figure["accuracy"][10], *figure) == (0, 1, "accuracy")  # at 0: the whole image


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


def test_metrics_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.rand(23, 3, 32, 32, generator=generator) ** 4, torch.zeros(23).long()
    corners = torch.rand(23, 2, 2, generator=generator, dtype=torch.float64).sort(1).values * 32
    boxes = tuple(corners.flatten(1)[:, None].numpy())
    settings = LocalisationSettings(threshold=0.33, thresholds=7)
    first, other = (dict(Localisation(batches(inputs, labels, b), boxes, 1, settings)(bright())) for b in (23, 7))
    assert other == pytest.approx(first)
    maps = score_maps(bright(), inputs, labels).numpy()
    levels = sorted([i / 7 for i in range(7)] + [0.33])
    shared = np.array([[overlap(np.array(walked(m, t)), b) for t in levels] for m, b in zip(maps, boxes, strict=True)])
    right = {least: (shared >= least).mean(0) for least in (0.3, 0.5, 0.7)}
    for words, least in {"": 0.5, "iou30/": 0.3, "iou70/": 0.7}.items():
        assert first[f"best/{words}localisation_accuracy"] == pytest.approx(max(right[least]))
        assert first[f"fixed/{words}localisation_accuracy"] == pytest.approx(right[least][levels.index(0.33)])
    assert first["best/mean/localisation_accuracy"] == pytest.approx(np.mean([max(right[v]) for v in right]))
    areas = corners.diff(dim=1).prod(2).flatten() / 32**2
    assert first["whole/localisation_accuracy"] == pytest.approx(float((areas >= 0.5).double().mean()))
    inside = []
    for scores, ((x0, y0, x1, y1),) in zip(maps, boxes, strict=True):
        y, x = divmod(int(scores.argmax()), 32)
        inside.append(x0 <= x + 0.5 <= x1 and y0 <= y + 0.5 <= y1)
    assert first["pointing_accuracy"] == pytest.approx(np.mean(inside))


def test_only_images_with_a_box_are_measured(tmp_path):
    boxes, monitor = tree(tmp_path), Kept()
    some = dict(list(boxes.items())[::3])
    found = dict(Localisation.of(source(tmp_path), write(tmp_path, some))(bright(), monitor))
    assert found["measured"] == pytest.approx(4 / 12)
    assert found["fixed/localisation_accuracy"] == 1
    assert monitor.figures["localisation"]["examples"] == 4
    with pytest.warns(UserWarning, match="of 13 names in the file of boxes no test image has 1: c/no.png"):
        Localisation.of(source(tmp_path), replace(write(tmp_path, boxes | {"c/no.png": [0, 0, 1, 1]}), examples=4))
    data = source(tmp_path)
    suite = Localisation.of(data, replace(write(tmp_path, boxes), examples=4))  # those that other suites take
    served = torch.cat([inputs for inputs, _ in suite.batches])
    assert torch.equal(served, torch.cat([inputs for inputs, _ in data.batches(data.test(4))]))


def test_tiny_imagenet_brings_its_boxes_in_its_own_layout(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for i, (name, (x0, y0, x1, y1)) in enumerate(tree(root, side=64).items()):
        (root / "test" / "ab"[i % 2] / name).rename(root / "val" / "images" / name)
        lines.append(f"{name}\t{'ab'[i % 2]}\t{x0}\t{y0}\t{x1 - 1}\t{y1 - 1}\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    splits = replace(load("tiny-imagenet", root=tmp_path, validation=0), mean=(0.0,) * 3, std=(1.0,) * 3)
    data = Source(splits, ERM(), torch.device("cpu"), root=str(tmp_path))
    found = dict(Localisation.of(data, LocalisationSettings(threshold=0.5))(bright()))
    assert found["fixed/iou70/localisation_accuracy"] == found["measured"] == 1


@pytest.mark.bad_input
def test_data_without_boxes_are_refused(tmp_path):
    settings = write(tmp_path, tree(tmp_path))
    data = source(tmp_path)
    with pytest.raises(ValueError, match=r"boxes=FILE is needed, as folder:.* brings none"):
        Localisation.of(data, LocalisationSettings())
    nameless = replace(data, splits=replace(data.splits, name="cifar10"))
    with pytest.raises(ValueError, match=r"tiny-imagenet, imagenet or folder:PATH have them, cifar10 has none"):
        Localisation.of(nameless, settings)
    with pytest.raises(ValueError, match=r"none of the 12 test images has a box .* names other.png"):
        Localisation.of(data, write(tmp_path, {"other.png": [0, 0, 2, 2]}))
    for name in ("a/test0.png", "a/zzz.png"):  # the files have changed since
        rectangle(tmp_path / "test" / name, (32, 32), (0, 0, 32, 32))
        with pytest.raises(ValueError, match="are not the files found there now"):
            Localisation.of(data, settings)
