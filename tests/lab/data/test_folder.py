"""Folders as people keep them: how they are understood, what is left out and said, what is refused."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from data.trees import write_image
from multimix.lab.data import identity, load
from multimix.lab.data._pixels import UnreadableError


def names(part, root):
    return {os.path.relpath(path, root) for path in part.paths}


def split_of(root, **settings):
    return load(f"folder:{root}", image_size=200, validation=0, **settings)


def everything(splits):
    return {path for part in (splits.train, splits.validation, splits.test) if part is not None for path in part.paths}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("training", "validation", "testing"),
        ("TRAIN", "dev", "TEST"),
        ("seg_train", "seg-val", "Test_Set"),
    ],
)
def test_splits_are_known_by_their_usual_names(tree, train, validation, test):
    root = tree(train, validation, test)
    found = split_of(root)
    for part, name in ((found.train, train), (found.validation, validation), (found.test, test)):
        assert {Path(p).parts[len(root.parts)] for p in part.paths} == {name}
        assert len(part) == 18


def test_one_folder_inside_another_is_passed_through_and_said(tree):
    root = tree("set/train", "set/test/images")
    found = split_of(root)
    assert len(found.train) == len(found.test) == 18
    assert found.notes[:2] == (
        "read from set, the only folder there",
        "read from set/test/images, the only folder there",
    )
    alone = split_of(tree("train", name="alone"))
    assert len(alone.train) + len(alone.test) == 18


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "Training", "test"), "holds Training and train, which are both the train images"),
        (("val", "test"), "no folder named train"),
        ((".", "test"), "holds test, a name of a split, and no folder named train: ant, bee, cat, test"),
        ((".", "train"), "neither val nor test"),
    ],
)
@pytest.mark.bad_input
def test_splits_that_cannot_be_told_are_refused(tree, folders, message):
    with pytest.raises(ValueError, match=message):
        split_of(tree(*folders))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("train", "test"),
            "train must hold at least two class folders, got 0; 1 images lie in no class folder: a.png",
        ),
        (("train_images", "test_images"), "train_images must hold at least two class folders, got 0; 1 images lie in"),
        (("train",), "holds train, a name of a split, .* and there is no class folder in it"),
    ],
)
def test_splits_without_class_folders_are_no_classes(tmp_path, folders, message):
    for name in folders:
        write_image(tmp_path / name / "a.png", (9, 9), 0)
    with pytest.raises(ValueError, match=message):
        split_of(tmp_path)


def test_classes_may_have_a_word_of_a_split_in_their_names(tree):
    names = ("bee", "test tube", "train station")
    assert split_of(tree(classes=names)).classes == names


def test_names_may_be_in_any_spelling(tree):
    root = tree("train", "test", classes=("caf\u00e9", "b"))
    (root / "test" / "caf\u00e9").rename(root / "test" / "cafe\u0301")
    assert split_of(root).classes == ("b", "caf\u00e9")
    (root / "train" / "b").rename(root / "train" / "cafe\u0301")
    with pytest.raises(ValueError, match="two class folders of one name in different spellings of Unicode: caf\u00e9"):
        split_of(root)


def test_names_that_are_not_utf_8_are_read_and_shown(tree):
    root = tree(classes=("a", "b"))
    latin = os.fsdecode(b"caf\xe9")
    (root / "b").rename(root / latin)
    (root / latin / "0.png").rename(root / latin / f"{latin}.png")
    (root / latin / f"{latin}.txt").write_text("x")
    found = split_of(root)
    assert found.classes == ("a", r"caf\xe9")
    assert r"left out, no image by its name: 1: caf\xe9/caf\xe9.txt" in found.notes
    assert all(note.encode() for note in found.notes)
    assert identity(found)


def test_a_folder_that_may_not_be_read_is_no_empty_one(tree, monkeypatch):
    root, scandir = tree(), os.scandir
    (root / "ant" / "locked").mkdir()

    def guarded(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(PermissionError, match="ant/locked"):
        split_of(root)


def test_copies_are_said(tree):
    root = tree("train", "test")
    assert not any("byte for byte" in note for note in split_of(root).notes)
    for copy in ("train/cat/1 (1).png", "test/bee/copy.png"):
        shutil.copy(root / "train" / "ant" / "0.png", root / copy)
    [said] = [note for note in split_of(root).notes if "byte for byte" in note]
    pairs = "train/cat/1 (1).png = train/ant/0.png, test/bee/copy.png = train/ant/0.png"
    assert said.endswith(f"classes: 2: {pairs}")


def test_what_is_left_out_is_said(tree):
    root = tree()
    write_image(root / "ant" / ".ipynb_checkpoints" / "0.png", (9, 9), 0)
    write_image(root / "__MACOSX" / "ant" / "0.png", (9, 9), 0)
    write_image(root / "loose.png", (9, 9), 0)
    (root / "labels.csv").write_text("x")
    (root / "ant" / "notes.txt").write_text("x")
    (root / "ant" / "self").symlink_to(root / "ant")
    (root / "bee" / "up").symlink_to(root)
    (root / "cat" / "again.png").symlink_to(root / "cat" / "0.png")
    found = split_of(root)
    assert len(everything(found)) == 18
    assert set(found.notes) >= {
        "left out, hidden: 2: __MACOSX, ant/.ipynb_checkpoints",
        "left out, no image by its name: 1: ant/notes.txt",
        "left out, a link to a folder above it: 2: ant/self, bee/up",
        "left out, in no class folder: 2: labels.csv, loose.png",
        "left out, a link to an image that is read already: 1: cat/again.png",
    }
    assert any(
        "18 images (18 .png), the smallest 12 x 10 and the largest 12 x 10 pixels" in note for note in found.notes
    )


def test_links_elsewhere_are_followed(tree, tmp_path):
    root, other = tree(), tree(name="other")
    shutil.rmtree(root / "cat")
    (root / "cat").symlink_to(other / "cat")
    assert len(everything(split_of(root))) == 18


@pytest.mark.bad_input
def test_a_file_in_two_classes_or_two_splits_is_refused(tree):
    root = tree()
    (root / "ant" / "bees").symlink_to(root / "bee")
    with pytest.raises(ValueError, match="are one file, in the classes bee and ant"):
        split_of(root)
    root = tree("train", name="linked")
    (root / "test").symlink_to(root / "train")
    with pytest.raises(ValueError, match=r"of the test images and .* of the train images are one file"):
        split_of(root)


@pytest.mark.bad_input
def test_all_unreadable_files_are_listed_before_anything_else_or_left_out(tree):
    root = tree("train", "test")
    bad = [root / "train" / "ant" / "1.png", root / "test" / "cat" / "2.png"]
    bad[0].write_text("no image")
    bad[1].write_bytes(bad[1].read_bytes()[:100])
    bad.append(root / "test" / "cat" / "gone.png")
    bad[2].symlink_to(root / "nowhere.png")
    with pytest.raises(UnreadableError, match=r"3 of 37 files cannot be read .*--skip-unreadable") as caught:
        split_of(root)
    assert all(str(path) in str(caught.value) for path in bad)
    found = split_of(root, skip_unreadable=True)
    assert len(everything(found)) == 34
    assert "left out, cannot be read: 3: train/ant/1.png, test/cat/2.png, test/cat/gone.png" in found.notes
    for path in (root / "train" / "ant").iterdir():
        path.write_text("no image")
    with pytest.raises(ValueError, match="train images that can be read has none for the class: ant"):
        split_of(root, skip_unreadable=True)


@pytest.mark.bad_input
def test_a_class_without_images_says_what_it_holds(tree):
    root = tree("train", "test")
    for path in list((root / "test" / "bee").iterdir()):
        path.rename(path.with_suffix(".dat"))
    with pytest.raises(ValueError, match=r"no image of a kind that can be read for the class bee: test/bee/0\.dat, "):
        split_of(root)


def test_a_file_that_comes_moves_no_other_between_the_splits(tree):
    root = tree(each=40)
    before = load(f"folder:{root}", image_size=200, split_seed=3)
    write_image(root / "ant" / "00.png", (12, 10), 5)
    write_image(root / "aa" / "x.png", (12, 10), 5)
    write_image(root / "aa" / "y.png", (12, 10), 6)
    after = load(f"folder:{root}", image_size=200, split_seed=3)
    for name in ("train", "validation", "test"):
        assert names(getattr(before, name), root) <= names(getattr(after, name), root)
    moved = root.rename(root.with_name("moved"))
    there = load(f"folder:{moved}", image_size=200, split_seed=3)
    assert names(there.test, moved) == names(after.test, root)


def test_shares_are_right_on_average_and_every_class_has_images_on_both_sides(tree):
    root = tree(each=30)
    counts = [[len(part) for part in (s.train, s.test)] for s in (split_of(root, split_seed=i) for i in range(40))]
    share = torch.tensor(counts).double()[:, 1].mean() / 90
    assert abs(share - 0.2) < 5 * (0.2 * 0.8 / 90 / 40) ** 0.5
    for seed in range(10):
        tiny = split_of(root.parent / tree(each=2, name=f"tiny{seed}").name, split_seed=seed)
        assert tiny.train.labels.tolist() == tiny.test.labels.tolist() == [0, 1, 2]
