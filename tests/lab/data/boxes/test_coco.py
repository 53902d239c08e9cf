"""COCO-format folders, and what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from data.boxes.folders import coco_content, coco_folder
from multimix.lab.data.boxes import load_boxes


def load(folder: Path):
    return load_boxes(f"coco:{folder}", "train")


def test_a_set_is_what_its_file_says(tmp_path):
    boxes = load(coco_folder(tmp_path))
    assert (boxes.name, boxes.rule, boxes.notes) == (f"coco:{tmp_path} train", "coco", ())
    assert boxes.classes == ("cat", "dog")  # by category id, which begin at 5 and are not consecutive
    assert [photo.name for photo in boxes.photos] == ["7", "3", "12"]
    assert [(photo.height, photo.width) for photo in boxes.photos] == [(30, 40)] * 3
    assert [len(boxes.of(i)) for i in range(3)] == [2, 0, 1]
    assert boxes.of(0).boxes.tolist() == [[1, 2, 11, 22], [20, 10, 28, 14]]
    assert boxes.of(0).labels.tolist() == [2, 1]
    assert boxes.of(0).areas.tolist() == [55.5, 32]  # the outline's, or the box' where the file has none
    assert boxes.of(2).boxes.tolist() == [[0.5, 0, 40, 30]]
    assert [boxes.of(i).ignored.tolist() for i in range(3)] == [[False, False], [], [True]]


def test_it_is_what_pycocotools_reads(tmp_path, capsys):
    boxes = load(coco_folder(tmp_path))
    theirs = COCO(str(tmp_path / "annotations/instances_train.json"))
    ids = sorted(theirs.getCatIds())
    for index, photo in enumerate(boxes.photos):
        entries = theirs.loadAnns(theirs.getAnnIds(int(photo.name)))
        xywh = boxes.of(index).boxes.clone()
        xywh[:, 2:] -= xywh[:, :2]
        assert xywh.tolist() == [entry["bbox"] for entry in entries]
        assert [ids[label - 1] for label in boxes.of(index).labels.tolist()] == [e["category_id"] for e in entries]
    capsys.readouterr()


def test_crowds_and_images_without_an_object_are_not_trained_on(tmp_path):
    boxes = load(coco_folder(tmp_path)).trainable()
    assert [photo.name for photo in boxes.photos] == ["7"]
    assert boxes.of(0).labels.tolist() == [2, 1]
    assert boxes.notes == (f"coco:{tmp_path} train: 2 images without an object to train on left out",)


@pytest.mark.parametrize("place", ["train", "images/train", "images", "."])
def test_images_are_found_in_any_of_the_usual_places(tmp_path, place):
    folder = coco_folder(tmp_path)
    target = folder / place
    target.mkdir(parents=True, exist_ok=True)
    for file in (folder / "train").glob("*.png"):
        file.rename(target / file.name)
    if place != "train":
        (folder / "train").rmdir()
    assert Path(load(folder).photos[0].path) == target / "7.png"


def edited(change: Any) -> dict[str, Any]:
    content = coco_content()
    change(content)
    return content


def test_boxes_at_the_edge_are_clipped_and_those_without_an_area_left_out(tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = [-0.75, 2, 41.5, 28.9]
        content["annotations"][2]["bbox"] = [9.98, 18, 15.5, 0.001]

    boxes = load(coco_folder(tmp_path, edited(change)))
    assert boxes.of(0).boxes.tolist() == [[0, 2, 40, 30]]
    assert boxes.notes == (
        f"coco:{tmp_path} train: 1 boxes without an area left out",
        f"coco:{tmp_path} train: 1 boxes that left their image by at most 1 px clipped",
    )


def first(**values: Any) -> Any:
    """Change the first annotation."""
    return lambda content: content["annotations"][0].update(values)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            first(bbox=[31, 2, 11, 20]),
            "annotation 1 of image 7: (left, top, right, bottom) = (31, 2, 42, 22) is outside",
        ),
        (first(bbox=[-2, 2, 10, 20]), "is outside the image of 40 x 30 px"),
        (first(bbox=[1, 12, 10, 20]), "(1, 12, 11, 32) is outside the image of 40 x 30 px"),
        (first(bbox=[1, 2, -3, 20]), "annotation 1 of image 7: (left, top, right, bottom) = (1, 2, -2, 22) is no box"),
        (first(bbox=[1, 2, float("nan"), 20]), "is no box"),
        (first(bbox=[1, 2, 3]), "annotation 1 of image 7: bbox must be [x, y, width, height], got [1, 2, 3]"),
        (first(bbox=[1, 2, 3, "4"]), "bbox must be a tuple of numbers, got [1, 2, 3, '4']"),
        (first(area=-1), "annotations[0]: area must be at least 0, got -1"),
        (first(iscrowd=2), "annotation 1 of image 7: iscrowd must be 0 or 1, got 2"),
        (first(category_id=4), "annotation 1: there is no category_id 4"),
        (first(image_id=8), "annotation 1: there is no image_id 8"),
        (first(category_id="dog"), "annotations[0]: category_id must be an integer, got 'dog'"),
        (first(id=5), "id 5 comes twice among the annotations"),
        (lambda c: c["categories"][0].update(name="cat"), "two categories have the name 'cat'"),
        (lambda c: c["images"][0].update(width=0), "images[0]: width must be at least 1, got 0"),
        (lambda c: c["images"][0].update(file_name="../7.png"), "image 7: file_name: the name of a file in its folder"),
        (lambda c: c["images"][0].pop("height"), "images[0]: height must be an integer, got None"),
        (lambda c: c["categories"][1].pop("name"), "categories[1]: name must be a text, got None"),
        (lambda c: c.pop("categories"), "a list of objects was expected under 'categories'"),
        (lambda c: c.update(images=[], annotations=[]), "has no image"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, change, said):
    coco_folder(tmp_path, edited(change))
    with pytest.raises(ValueError, match=r"instances_train\.json|has no image") as caught:
        load(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize("text", ["", "{", json.dumps(coco_content())[:-30], "[1]", "\x00", "[" * 100_000])
def test_a_damaged_file_is_named(tmp_path, text):
    coco_folder(tmp_path, text)
    with pytest.raises(ValueError, match=r"instances_train\.json"):
        load(tmp_path)


@pytest.mark.bad_input
def test_what_is_not_there_is_named(tmp_path):
    folder = coco_folder(tmp_path / "coco")
    (folder / "train" / "12.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image 12: there is no file .*12\.png"):
        load(folder)
    with pytest.raises(FileNotFoundError, match=r"no file .*instances_val\.json"):
        load_boxes(f"coco:{folder}", "val")
    with pytest.raises(FileNotFoundError, match="annotations"):
        load(tmp_path)


@pytest.mark.bad_input
def test_other_classes_and_other_kinds_are_refused(tmp_path):
    coco_folder(tmp_path)
    with pytest.raises(ValueError, match=r"has 2 classes \(cat, dog\), but 1 classes \(cat\) in the same order"):
        load_boxes(f"coco:{tmp_path}", "train", classes=("cat",))
    for spec in ("coco", "coco:", "yolo:x", "x"):
        with pytest.raises(ValueError, match="data must be coco:PATH or voc:PATH"):
            load_boxes(spec, "train")
