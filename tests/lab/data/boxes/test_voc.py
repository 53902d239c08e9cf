"""VOC-format folders, and what is wrong with them."""

import pytest

from data.boxes.folders import voc_folder, voc_xml
from multimix.lab.data.boxes import load_boxes

IMAGES = {
    "000012": [("dog", (1, 1, 40, 30), 0), ("cat", (5, 6, 5, 6), 1)],
    "000005": [("person", (2, 3, 10.5, 20), 0)],
}


def test_a_set_is_what_its_files_say(tmp_path):
    """VOC counts pixels from 1 and the box holds its last one."""
    boxes = load_boxes(f"voc:{voc_folder(tmp_path, IMAGES)}", "trainval")
    assert (boxes.rule, boxes.classes, boxes.notes) == ("voc", ("cat", "dog", "person"), ())
    assert [photo.name for photo in boxes.photos] == ["000012", "000005"]
    assert boxes.of(0).boxes.tolist() == [[0, 0, 40, 30], [4, 5, 5, 6]]  # the whole image, and a single pixel
    assert boxes.of(0).areas.tolist() == [1200, 1]
    assert boxes.of(0).labels.tolist() == [2, 1]
    assert boxes.of(0).ignored.tolist() == [False, True]
    assert boxes.of(1).boxes.tolist() == [[1, 2, 10.5, 20]]
    assert boxes.trainable().of(0).labels.tolist() == [2]


def test_two_years_are_joined(tmp_path):
    first = voc_folder(tmp_path / "VOC2007", IMAGES)
    second = voc_folder(tmp_path / "VOC2012", {"2008_000001": [("bird", (1, 1, 2, 2), 0)]})
    boxes = load_boxes(f"voc:{first},{second}", "trainval")
    assert [photo.name for photo in boxes.photos] == ["000012", "000005", "2008_000001"]
    assert boxes.classes == ("bird", "cat", "dog", "person")
    assert boxes.of(2).labels.tolist() == [1]
    assert boxes.photos[2].path == str(second / "JPEGImages" / "2008_000001.jpg")


def test_labels_are_those_of_given_classes(tmp_path):
    voc_folder(tmp_path, IMAGES)
    boxes = load_boxes(f"voc:{tmp_path}", "trainval", classes=("person", "cow", "dog", "cat"))
    assert boxes.of(0).labels.tolist() == [3, 4]
    with pytest.raises(ValueError, match=r"000012\.xml: object 1 \(dog\): class 'dog' is not among cat, person"):
        load_boxes(f"voc:{tmp_path}", "trainval", classes=("cat", "person"))


def test_a_box_one_pixel_outside_is_clipped(tmp_path):
    voc_folder(tmp_path, {"1": [("dog", (0, 1, 41, 30), 0)]})
    boxes = load_boxes(f"voc:{tmp_path}", "trainval")
    assert boxes.of(0).boxes.tolist() == [[0, 0, 40, 30]]
    assert len(boxes.notes) == 1


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>' + voc_xml([("&c;", (1, 1, 2, 2), 0)])
FILE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]>' + voc_xml([("&b;", (1, 1, 2, 2), 0)])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            voc_xml([("dog", (1, 1, 42, 30), 0)]),
            "object 1 (dog): (left, top, right, bottom) = (0, 0, 42, 30) is outside",
        ),
        (voc_xml([("dog", (-1, 1, 40, 30), 0)]), "is outside the image of 40 x 30 px"),
        (voc_xml([("dog", (9, 1, 4, 30), 0)]), "object 1 (dog): (left, top, right, bottom) = (8, 0, 4, 30) is no box"),
        (voc_xml([("dog", ("a", 1, 4, 30), 0)]), "object 1 (dog): bndbox/xmin must be a number, got 'a'"),
        (voc_xml([("dog", ("nan", 1, 4, 30), 0)]), "is no box"),
        (voc_xml([("dog", (1, 1, 4, 30), 7)]), "object 1 (dog): difficult must be 0 or 1, got '7'"),
        (voc_xml([(" ", (1, 1, 4, 30), 0)]), "object 1: a name was expected"),
        (voc_xml([], size=(0, 40)), "size/height must be a whole number of at least 1, got 0"),
        ("<annotation></annotation>", "size/height must be a number, got None"),
        ("<annotation>", "is damaged: no element found"),
        ("", "is damaged: no element found"),
        (voc_xml([("&b;", (1, 1, 2, 2), 0)]), "is damaged: undefined entity"),
        (BOMB, "is damaged: an annotation needs no document type, and this one has one"),
        (BOMB.encode("utf-16"), "needs no document type"),
        (FILE, "needs no document type"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path, text, said):
    voc_folder(tmp_path, {"1": []})
    (tmp_path / "Annotations/1.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"1\.xml") as caught:
        load_boxes(f"voc:{tmp_path}", "trainval")
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
    ],
)
def test_a_wrong_list_is_named(tmp_path, text, said):
    voc_folder(tmp_path, IMAGES)
    (tmp_path / "ImageSets/Main/trainval.txt").write_text(text)
    with pytest.raises(ValueError, match=r"trainval\.txt") as caught:
        load_boxes(f"voc:{tmp_path}", "trainval")
    assert said in str(caught.value)


@pytest.mark.bad_input
def test_what_is_not_there_is_named(tmp_path):
    voc_folder(tmp_path / "VOC2007", IMAGES)
    spec = f"voc:{tmp_path}/VOC2007"
    with pytest.raises(FileNotFoundError, match=r"no file .*test\.txt"):
        load_boxes(spec, "test")
    with pytest.raises(FileNotFoundError, match=r"no folder .*VOC2012/JPEGImages"):
        load_boxes(f"{spec},{tmp_path}/VOC2012", "trainval")
    (tmp_path / "VOC2007/JPEGImages/000005.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"000005\.xml: there is no image .*000005\.jpg"):
        load_boxes(spec, "trainval")
    (tmp_path / "VOC2007/Annotations/000012.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*000012\.xml"):
        load_boxes(spec, "trainval")
