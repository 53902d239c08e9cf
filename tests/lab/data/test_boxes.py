"""COCO-format and VOC-format folders, what is wrong with them, and batches of images with boxes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from data.trees import coco_content, coco_folder, voc_folder, voc_xml, write_image
from multimix.lab.data.boxes import BoxBatches, Objects, load_boxes

IMAGES = {
    "000012": [("dog", (1, 1, 40, 30), 0), ("cat", (5, 6, 5, 6), 1)],
    "000005": [("person", (2, 3, 10.5, 20), 0)],
}


def coco(folder: Path):
    return load_boxes(f"coco:{folder}", "train")


def voc(folder: Path, split: str = "trainval", **settings: Any):
    return load_boxes(f"voc:{folder}", split, **settings)


def test_coco_is_what_its_file_says(tmp_path):
    boxes = coco(coco_folder(tmp_path))
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


def test_coco_is_what_pycocotools_reads(tmp_path, capsys):
    boxes = coco(coco_folder(tmp_path))
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
    boxes = coco(coco_folder(tmp_path)).trainable()
    assert [photo.name for photo in boxes.photos] == ["7"]
    assert boxes.of(0).labels.tolist() == [2, 1]
    assert boxes.notes == (f"coco:{tmp_path} train: 2 images without an object to train on left out",)


@pytest.mark.parametrize("place", ["train", "images/train", "images", "."])
def test_coco_images_are_found_in_any_of_the_usual_places(tmp_path, place):
    target = coco_folder(tmp_path) / place
    target.mkdir(parents=True, exist_ok=True)
    for file in (tmp_path / "train").glob("*.png"):
        file.rename(target / file.name)
    if place != "train":
        (tmp_path / "train").rmdir()
    assert Path(coco(tmp_path).photos[0].path) == target / "7.png"


def first(**values: Any) -> Any:
    """Change the first annotation."""
    return lambda content: content["annotations"][0].update(values)


def test_boxes_at_the_edge_are_clipped_and_those_without_an_area_left_out(tmp_path):
    content = coco_content()
    content["annotations"][0]["bbox"] = [-0.75, 2, 41.5, 28.9]
    content["annotations"][2]["bbox"] = [9.98, 18, 15.5, 0.001]
    boxes = coco(coco_folder(tmp_path, content))
    assert boxes.of(0).boxes.tolist() == [[0, 2, 40, 30]]
    assert boxes.notes == (
        f"coco:{tmp_path} train: 1 boxes without an area left out",
        f"coco:{tmp_path} train: 1 boxes that left their image by at most 1 px clipped",
    )


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (first(bbox=[31, 2, 11, 20]), "annotation 1 of image 7: (left, top, right, bottom) = (31, 2, 42, 22) is out"),
        (first(bbox=[-2, 2, 10, 20]), "is outside the image of 40 x 30 px"),
        (first(bbox=[1, 12, 10, 20]), "(1, 12, 11, 32) is outside the image of 40 x 30 px"),
        (first(bbox=[1, 2, -3, 20]), "annotation 1 of image 7: (left, top, right, bottom) = (1, 2, -2, 22) is no box"),
        (first(bbox=[1, 2, 3, -20]), "(1, 2, 4, -18) is no box"),
        (first(bbox=[1, 2, float("nan"), 20]), "is no box"),
        (first(bbox=[1, 2, 3]), "annotations[0]: bbox must hold 4 values, got [1, 2, 3]"),
        (first(bbox=[1, 2, 3, "4"]), "annotations[0]: bbox must be a tuple of numbers, got [1, 2, 3, '4']"),
        (first(bbox=[1, 10**400, 3, 4]), "annotation 1 of image 7: int too large to convert to float"),
        (first(area=-1), "annotations[0]: area must be at least 0 and finite, got -1"),
        (first(area=float("inf")), "annotations[0]: area must be at least 0 and finite, got inf"),
        (lambda c: c["images"][2].update(file_name="7.png"), "image 12: file_name: 7.png is that of image 7 too"),
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
        (
            lambda c: [entry.update(bbox=[0.1, 0.2, 0.8, 0.8]) for entry in c["annotations"]],
            "must have boxes in pixels, and none of its 3 ends beyond 1",
        ),
    ],
)
def test_a_wrong_entry_of_coco_is_named(tmp_path, change, said):
    content = coco_content()
    change(content)
    coco_folder(tmp_path, content)
    with pytest.raises(ValueError, match=r"instances_train\.json|has no image|in pixels") as caught:
        coco(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input
def test_all_that_is_wrong_is_said_at_once(tmp_path):
    content = coco_content()
    content["annotations"][0]["bbox"], content["annotations"][1]["bbox"] = [1, 2, -3, 4], [0, 0, 99, 9]
    folder = coco_folder(tmp_path, content)
    with pytest.raises(
        ValueError, match=r"annotation 1 of image 7: .* is no box; annotation \d+ of image \d+: .*outside"
    ):
        coco(folder)
    coco_folder(tmp_path)
    for name in ("7.png", "12.png"):
        (folder / "train" / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"image 7: there is no file .*; image 12: there is no file"):
        coco(folder)


def test_images_that_no_annotation_names_are_said(tmp_path):
    folder = coco_folder(tmp_path)
    for name in ("8.png", "9.PNG", "notes.txt"):
        (folder / "train" / name).touch()
    said = f"coco:{tmp_path} train: no entry names 2 images in {folder / 'train'}, which are left out: 8.png, 9.PNG"
    assert coco(folder).notes == (said,)


@pytest.mark.bad_input
@pytest.mark.parametrize("text", ["", json.dumps(coco_content())[:-30], "[1]", "\x00", "[" * 100_000])
def test_a_damaged_file_is_named(tmp_path, text):
    coco_folder(tmp_path, text)
    with pytest.raises(ValueError, match=r"instances_train\.json"):
        coco(tmp_path)


@pytest.mark.bad_input
def test_other_classes_and_other_kinds_are_refused(tmp_path):
    coco_folder(tmp_path)
    with pytest.raises(ValueError, match=r"has 2 classes \(cat, dog\), but 1 classes \(cat\) in the same order"):
        load_boxes(f"coco:{tmp_path}", "train", classes=("cat",))
    for spec in ("coco", "coco:", "yolo:x"):
        with pytest.raises(ValueError, match="data must be coco:PATH or voc:PATH"):
            load_boxes(spec, "train")


def test_voc_is_what_its_files_say(tmp_path):
    """VOC counts pixels from 1 and the box holds its last one."""
    boxes = voc(voc_folder(tmp_path, IMAGES))
    assert (boxes.rule, boxes.classes, boxes.notes) == ("voc", ("cat", "dog", "person"), ())
    assert [photo.name for photo in boxes.photos] == ["000012", "000005"]
    assert boxes.of(0).boxes.tolist() == [[0, 0, 40, 30], [4, 5, 5, 6]]  # the whole image, and a single pixel
    assert boxes.of(0).areas.tolist() == [1200, 1]
    assert boxes.of(0).labels.tolist() == [2, 1]
    assert boxes.of(0).ignored.tolist() == [False, True]
    assert boxes.of(1).boxes.tolist() == [[1, 2, 10.5, 20]]
    assert boxes.trainable().of(0).labels.tolist() == [2]


def test_two_years_of_voc_are_joined(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    one = voc_folder(tmp_path / "VOC2007", IMAGES)
    other = voc_folder(tmp_path / "VOC2012", {"2008_000001": [("bird", (0, 1, 41, 30), 0)]})
    boxes = load_boxes(f"voc:{one},~/VOC2012", "trainval")
    assert [photo.name for photo in boxes.photos] == ["000012", "000005", "2008_000001"]
    assert boxes.classes == ("bird", "cat", "dog", "person")
    assert boxes.of(2).labels.tolist() == [1]
    assert boxes.of(2).boxes.tolist() == [[0, 0, 40, 30]]  # one pixel outside, which is clipped
    assert len(boxes.notes) == 1
    assert boxes.photos[2].path == str(other / "JPEGImages" / "2008_000001.jpg")


def test_labels_of_voc_are_those_of_given_classes(tmp_path):
    voc_folder(tmp_path, IMAGES)
    assert voc(tmp_path, classes=("person", "cow", "dog", "cat")).of(0).labels.tolist() == [3, 4]
    with pytest.raises(ValueError, match=r"000012\.xml: object 1 \(dog\): class 'dog' is not among cat, person"):
        voc(tmp_path, classes=("cat", "person"))


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>' + voc_xml([("&c;", (1, 1, 2, 2), 0)])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (voc_xml([("dog", (1, 1, 42, 30), 0)]), "object 1 (dog): (left, top, right, bottom) = (0, 0, 42, 30) is out"),
        (voc_xml([("dog", (-1, 1, 40, 30), 0)]), "is outside the image of 40 x 30 px"),
        (voc_xml([("dog", ("a", 1, 4, 30), 0)]), "object 1 (dog): bndbox/xmin must be a number, got 'a'"),
        (voc_xml([("dog", (1, 1, 4, 30), 7)]), "object 1 (dog): difficult must be 0 or 1, got '7'"),
        (voc_xml([(" ", (1, 1, 4, 30), 0)]), "object 1: a name was expected"),
        (voc_xml([], size=(0, 40)), "size/height must be a whole number of at least 1, got 0"),
        ("<annotation></annotation>", "size/height must be a number, got None"),
        ("", "is damaged: no element found"),
        (voc_xml([("&b;", (1, 1, 2, 2), 0)]), "is damaged: undefined entity"),
        (BOMB, "is damaged: an annotation needs no document type, and this one has one"),
        (BOMB.encode("utf-16"), "needs no document type"),
        ('<?xml version="1.0" encoding="foo"?><annotation/>', "is damaged: unknown encoding: foo"),
    ],
)
def test_a_wrong_annotation_of_voc_is_named(tmp_path, text, said):
    voc_folder(tmp_path, {"1": []})
    (tmp_path / "Annotations/1.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"1\.xml") as caught:
        voc(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("000012\n000012\n", "line 2: image 000012 comes twice"),
        ("000012 -1\n", "line 1: the name of one image was expected, got '000012 -1'"),
        ("../x\n", "line 1: the name of a file in its folder was expected, got '../x'"),
        ("\n \n", "names no image"),
        (b"\xe4\n", "trainval.txt: 'utf-8' codec can't decode"),
        ("\ufeff000012\n000012\n", "line 2: image 000012 comes twice"),
    ],
)
def test_a_wrong_list_of_voc_is_named(tmp_path, text, said):
    voc_folder(tmp_path, IMAGES)
    (tmp_path / "ImageSets/Main/trainval.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"trainval\.txt") as caught:
        voc(tmp_path)
    assert said in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("coco/train/12.png", r"image 12: there is no file .*12\.png"),
        ("coco/annotations/instances_train.json", r"no file .*instances_train\.json"),
        ("voc/ImageSets/Main/trainval.txt", r"no file .*trainval\.txt"),
        ("voc/JPEGImages", r"no folder .*voc/JPEGImages"),
        ("voc/JPEGImages/000005.jpg", r"000005\.xml: there is no image .*000005\.jpg"),
        ("voc/Annotations/000012.xml", r"no file .*000012\.xml"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, gone, said):
    folder = coco_folder(tmp_path / "coco") if gone.startswith("coco") else voc_folder(tmp_path / "voc", IMAGES)
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=said):
        (coco if folder.name == "coco" else voc)(folder)


SHUFFLED = {"shuffle": True, "flip": True}


@pytest.fixture
def boxes(tmp_path):
    """Twelve images; the box of each tells which it is."""
    numbers = range(1, 13)
    content = {
        **coco_content(),
        "images": [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in numbers],
        "annotations": [{"id": i, "image_id": i, "category_id": 5, "bbox": [i, 2, 3, 4]} for i in numbers],
    }
    coco_folder(tmp_path, content)
    for i in numbers:
        write_image(tmp_path / "train" / f"{i}.png", seed=i)
    return load_boxes(f"coco:{tmp_path}", "train")


def served(batches, epoch=0, start=0):
    return [(batch.images, [o.boxes for o in batch.objects]) for batch in batches.epoch(epoch, start)]


def lefts(batches, epoch=0):
    """Return the left edges of all boxes of an epoch."""
    return [float(box[0, 0]) for _, part in served(batches, epoch) for box in part]


def same(first, second):
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[0] + one[1], other[0] + other[1], strict=True))


def test_in_order_images_and_boxes_are_as_they_are(boxes):
    batches = BoxBatches(boxes, batch_size=5)
    assert len(batches) == 3
    images = [image for part, _ in served(batches) for image in part]
    for image, photo in zip(images, boxes.photos, strict=True):
        pixels = np.asarray(Image.open(photo.path), dtype=np.float32).transpose(2, 0, 1) / 255
        assert torch.equal(image, torch.from_numpy(pixels))
    assert lefts(batches) == list(range(1, 13))


def test_a_mirrored_image_has_mirrored_boxes(boxes):
    """What is inside a box stays inside."""
    mirrored = 0
    batches = BoxBatches(boxes, batch_size=12, seed=1, **SHUFFLED)
    for images, parts in (served(batches, epoch)[0] for epoch in range(3)):
        for image, box in zip(images, parts, strict=True):
            left, top, right, bottom = box[0].int().tolist()
            flipped = right > 20
            number = 40 - right if flipped else left
            mirrored += flipped
            original = torch.from_numpy(np.array(Image.open(boxes.photos[number - 1].path))).permute(2, 0, 1)
            patch = original[:, 2:6, number : number + 3].float() / 255
            assert torch.equal(image[:, top:bottom, left:right], patch.flip(-1) if flipped else patch)
    assert 8 < mirrored < 28  # of 36
    objects = Objects(torch.tensor([[1.0, 2, 5, 9]]), torch.tensor([1]), torch.tensor([28.0]), torch.tensor([False]))
    assert objects.flipped(11).boxes.tolist() == [[6, 2, 10, 9]]


def test_an_epoch_can_be_had_again_from_any_batch_and_by_any_workers(boxes):
    batches = BoxBatches(boxes, batch_size=5, seed=3, **SHUFFLED)
    whole = served(batches, 2)
    before = torch.manual_seed(99).get_state()
    same(served(batches, 2, start=1), whole[1:])
    same(served(BoxBatches(boxes, batch_size=5, seed=3, workers=1, **SHUFFLED), 2), whole)
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(len(part) for part, _ in whole) == [2, 5, 5]


def test_order_and_mirroring_change_with_epoch_and_seed(boxes):
    batches = [BoxBatches(boxes, batch_size=12, seed=seed, **SHUFFLED) for seed in (0, 1)]
    assert len({tuple(lefts(one, epoch)) for one in batches for epoch in (0, 1)}) == 4
    assert sorted(lefts(BoxBatches(boxes, batch_size=12, shuffle=True))) == list(range(1, 13))


def test_grey_images_for_networks_of_one_channel(boxes):
    (image, *_), _ = served(BoxBatches(boxes, batch_size=2, channels=1))[0]
    grey = np.asarray(Image.open(boxes.photos[0].path).convert("L"), dtype=np.float32) / 255
    assert torch.equal(image, torch.from_numpy(grey)[None])
    with pytest.raises(ValueError, match="1 or 3 channels, but the backbone was trained on images of 4"):
        BoxBatches(boxes, batch_size=2, channels=4)


def test_images_that_do_not_fit_are_all_named_up_front(boxes, tmp_path):
    assert boxes.looked_at() == boxes
    write_image(tmp_path / "train" / "2.png", (31, 40))
    write_image(tmp_path / "train" / "3.png", (40, 30))  # not turned by any data of its own
    (tmp_path / "train" / "9.png").write_text("no image")
    said = r"3 of 12 files .*2\.png is 40 x 31 px, its .* say 40 x 30; .*3\.png is 30 x 40 px, .*; .*9\.png: "
    with pytest.raises(ValueError, match=said):
        boxes.looked_at()


@pytest.mark.parametrize(
    ("stored", "orientation", "says"),
    [((40, 30), 3, "as they are stored"), ((30, 40), 6, "once they are upright"), ((40, 30), 1, None)],
)
def test_it_is_said_whose_boxes_those_of_turned_images_are(boxes, stored, orientation, says):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", stored).save(boxes.photos[0].path, exif=exif)
    notes = boxes.looked_at().notes
    assert [
        f"1 images lie turned by their EXIF data; boxes are those of the images {says}" in note for note in notes
    ] == ([True] if says else [])
    assert served(BoxBatches(boxes, batch_size=1))[0][0][0].shape == (3, 30, 40)


@pytest.mark.bad_input
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_none_or_of_another_size_is_named(boxes, tmp_path, workers):
    batches = BoxBatches(boxes, batch_size=2, workers=workers)
    write_image(tmp_path / "train" / "2.png", (31, 40))
    with pytest.raises(ValueError, match=r"2\.png is 40 x 31 px, its annotations say 40 x 30"):
        served(batches)
    (tmp_path / "train" / "2.png").write_text("no image")
    with pytest.raises(ValueError, match=r"2\.png cannot be read as an image"):
        served(batches)
