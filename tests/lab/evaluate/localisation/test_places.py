"""Files of boxes, and boxes that follow their images through scaling and cutting."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimix.lab.data import Files, Images
from multimix.lab.data._images import EVALUATION_RATIO, fitted
from multimix.lab.evaluate.localisation import read_boxes
from multimix.lab.evaluate.localisation import fitted_boxes, places_in


def test_the_three_kinds_of_file_say_the_same(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps({"a.png": [0, 1, 2, 3], "c/b.png": [[1, 1, 4, 5], [0, 0, 1, 1]]}))
    (tmp_path / "b.csv").write_text("file,x0,y0,x1,y1\na.png,0,1,2,3\nc/b.png,1,1,4,5\nc/b.png,0,0,1,1\n\n")
    (tmp_path / "b.txt").write_text("a.png\tn1\t0\t1\t1\t2\nc/b.png\tn2\t1\t1\t3\t4\nc/b.png\tn2\t0\t0\t0\t0\n")
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
        ("b.csv", "name,x,y\n", "must begin with file,x0,y0,x1,y1, got name,x,y"),
        ("b.csv", "file,x0,y0,x1,y1\na,1,2,x,4\n", "b.csv, a must have"),
        ("b.txt", "a\tn1\t5\t5\n", "b.txt, a must have"),
    ],
)
def test_what_is_no_file_of_boxes_is_refused(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        read_boxes(str(tmp_path / name))


@pytest.mark.bad_input
def test_a_missing_file_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        read_boxes(str(tmp_path / "b.json"))


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("width", "height", "box"),
    [(640, 480, (200, 100, 420, 300)), (300, 500, (100, 150, 200, 330)), (256, 256, (0, 0, 128, 256))],
)
def test_a_box_goes_where_its_pixels_go(width, height, box, in_memory):
    """A white rectangle on black, scaled and cut as the loader does it, has its edges at half of white."""
    picture = Image.new("RGB", (width, height))
    picture.paste((255, 255, 255), box)
    size = 112
    seen = np.asarray(fitted(picture, size, ratio=1.0 if in_memory else EVALUATION_RATIO))[..., 0] > 127
    rows, columns = seen.any(1).nonzero()[0], seen.any(0).nonzero()[0]
    wanted = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    given = torch.tensor([box], dtype=torch.float64)
    found = fitted_boxes(given, (height, width), size, in_memory=in_memory)[0].tolist()
    assert found == pytest.approx(wanted, abs=0.75)


def saved(folder: Path, names: list[str], size: tuple[int, int]) -> Files:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size).save(folder / name)
    return Files(
        tuple(str(folder / name) for name in names), torch.zeros(len(names), dtype=torch.int64), ("a", "b"), 32
    )


def test_images_get_the_boxes_of_their_names(tmp_path):
    files = saved(tmp_path, ["a/1.png", "a/2.png", "b/3.png", "b/2.png"], (64, 64))
    test = Images(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), files.labels, files.classes)
    boxes = {
        "1.png": [(0.0, 0, 1, 2)],
        "b/2.png": [(3.0, 3, 64, 64)],
        "b/3.png": [(1.0, 1, 2, 2)],
        "3.png": [(4.0, 4, 5, 5)],
    }
    places = places_in(test, files, boxes)
    assert [place.tolist() for place in places] == [[[0, 0, 1, 2]], [], [[1, 1, 2, 2], [4, 4, 5, 5]], [[3, 3, 64, 64]]]


def test_a_box_that_is_cut_away_is_none(tmp_path):
    """Of an image of 64 x 32 the middle is seen, at the size of 32 / (256 / 224)."""
    files = saved(tmp_path, ["a/1.png", "a/2.png"], (64, 32))
    places = places_in(files, files, {"1.png": [(0.0, 0, 10, 32)], "2.png": [(0.0, 0, 64, 32)]})
    assert len(places[0]) == 0
    assert places[1].tolist() == [[0, 0, 32, 32]]


@pytest.mark.bad_input
def test_boxes_that_do_not_fit_their_images_are_refused(tmp_path):
    files = saved(tmp_path, ["a/1.png", "b/1.png"], (20, 30))
    with pytest.raises(ValueError, match=r"1.png is the name of 2 test images; give it with its class, CLASS/1.png"):
        places_in(files, files, {"1.png": [(0.0, 0, 1, 1)]})
    with pytest.raises(ValueError, match=r"1.png is of 20x30 pixels, its box \(0.0, 0, 21, 1\) lies outside"):
        places_in(files, files, {"a/1.png": [(0.0, 0, 21, 1)]})
