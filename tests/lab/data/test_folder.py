"""folder:PATH in every layout it takes, and those it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from data.trees import Tree, write_picture
from multimix.lab.data import Files, Images, load
from multimix.lab.data import _folder as folder
from multimix.lab.data._folder import class_tree


def paths(part: object) -> set[str]:
    assert isinstance(part, Files)
    return set(part.paths)


def pixels(part: object) -> set[bytes]:
    assert isinstance(part, Images)
    return {image.numpy().tobytes() for image in part.images}


def test_the_listing_is_imagefolders(tree: Tree) -> None:
    root = tree(classes=("b", "A", "c10", "c9"), each=11)
    write_picture(root / "A" / "deeper" / "x.PNG", (4, 4), 1)
    (root / "A" / "notes.txt").write_text("not an image")
    truth, found = ImageFolder(root), class_tree(root)
    assert found.classes == tuple(truth.classes)
    assert list(zip(found.paths, found.labels.tolist(), strict=True)) == truth.samples


def test_hidden_folders_and_files_are_passed_over(tree: Tree) -> None:
    root = tree()
    write_picture(root / ".cache" / "0.png", (4, 4), 1)
    (root / "ant" / "._0.png").write_bytes(b"left by another system")
    found = class_tree(root)
    assert (found.classes, len(found)) == (("ant", "bee", "cat"), 18)


def test_small_images_of_one_size_live_in_memory(tree: Tree) -> None:
    root = tree("train", "val")
    splits = load(f"folder:{root}", validation=0.0)
    assert isinstance(splits.train, Images)
    assert (splits.shape, splits.classes, len(splits.test)) == ((3, 10, 12), ("ant", "bee", "cat"), 18)
    for image, label, (path, truth) in zip(
        splits.train.images, splits.train.labels, ImageFolder(root / "train").samples, strict=True
    ):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))
        assert label == truth


def test_val_is_the_test_set_where_there_is_no_other(tree: Tree) -> None:
    root = tree("train", "val")
    splits = load(f"folder:{root}", validation=0.5)
    assert pixels(splits.test) == pixels(load(f"folder:{root / 'val'}", validation=0.0).train) | pixels(
        load(f"folder:{root / 'val'}", validation=0.0).test
    )
    assert splits.validation is not None
    assert (len(splits.train), len(splits.validation)) == (9, 9)


def test_with_both_val_is_the_validation_set(tree: Tree) -> None:
    root = tree("train", "val", "test")
    splits = load(f"folder:{root}", validation=0.5, image_size=200)
    assert paths(splits.train) == set(class_tree(root / "train").paths)
    assert paths(splits.validation) == set(class_tree(root / "val").paths)
    assert paths(splits.test) == set(class_tree(root / "test").paths)


def test_one_tree_is_split_by_seed_and_class(tree: Tree) -> None:
    root = tree(each=10, size=(100, 90))
    splits, again, other = (load(f"folder:{root}", validation=0.25, split_seed=seed) for seed in (0, 0, 1))
    assert isinstance(splits.train, Files)
    assert splits.train.shape == (3, 224, 224)
    parts = [paths(splits.train), paths(splits.validation), paths(splits.test)]
    assert [len(part) for part in parts] == [18, 6, 6]
    assert len(set.union(*parts)) == 30
    assert torch.bincount(splits.test.labels).tolist() == [2, 2, 2]
    assert paths(again.test) == parts[2] != paths(other.test)


@pytest.mark.parametrize("part", ["train", "val"])
def test_one_image_of_another_size_keeps_all_on_the_disk(tree: Tree, part: str) -> None:
    root = tree("train", "val")
    write_picture(root / part / "cat" / "9.png", (10, 13), 0)
    splits = load(f"folder:{root}", validation=0.0)
    assert isinstance(splits.train, Files)
    assert isinstance(splits.test, Files)
    assert splits.mean == (0.485, 0.456, 0.406)


def test_image_size_brings_small_sets_into_memory(tree: Tree) -> None:
    root = tree("train", "val", size=(40, 60))
    splits = load(f"folder:{root}", validation=0.0, image_size=20)
    assert isinstance(splits.train, Images)
    assert splits.shape == (3, 20, 20)
    picture = Image.open(root / "train" / "ant" / "0.png").resize((30, 20), Image.Resampling.BILINEAR)
    truth = np.asarray(picture.crop((5, 0, 25, 20)))
    assert np.array_equal(splits.train.images[0].permute(1, 2, 0).numpy(), truth)


def test_a_set_too_large_for_memory_stays_on_the_disk(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("train", "val")
    monkeypatch.setattr(folder, "MEMORY_LIMIT", 18 * 3 * 10 * 12 - 1)
    assert isinstance(load(f"folder:{root}", validation=0.0).train, Files)
    monkeypatch.setattr(folder, "MEMORY_LIMIT", 18 * 3 * 10 * 12)
    assert isinstance(load(f"folder:{root}", validation=0.0).train, Images)


def test_only_images_that_are_kept_are_decoded(tree: Tree) -> None:
    root = tree("train", "val", each=10)
    kept = load(f"folder:{root}", validation=0.2, train_size=6, image_size=100)
    for path in set(class_tree(root / "train").paths) - paths(kept.train) - paths(kept.validation):
        Path(path).write_bytes(b"never looked at")
    assert len(load(f"folder:{root}", validation=0.2, train_size=6).train) == 6


def remove(path: Path) -> None:
    shutil.rmtree(path)


@pytest.mark.bad_input
def test_missing_folders_are_named(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder:.*nowhere is not a folder"):
        load(f"folder:{tmp_path / 'nowhere'}")
    root = tree("train", "val")
    remove(root / "val")
    with pytest.raises(FileNotFoundError, match=r"pictures has train/ but neither val/ nor test/"):
        load(f"folder:{root}")


@pytest.mark.bad_input
def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold at least two class folders, got 0"):
        load(f"folder:{tmp_path}")


@pytest.mark.bad_input
def test_a_folder_of_one_class_is_refused(tree: Tree) -> None:
    with pytest.raises(ValueError, match=r"pictures must hold at least two class folders, got 1: ant"):
        load(f"folder:{tree(classes=('ant',))}")


@pytest.mark.bad_input
def test_a_class_without_an_image_is_named(tree: Tree) -> None:
    root = tree()
    (root / "dog").mkdir()
    (root / "dog" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"pictures has no readable kind of image for the class: dog"):
        load(f"folder:{root}")


@pytest.mark.bad_input
def test_class_folders_must_agree(tree: Tree) -> None:
    root = tree("train", "val")
    (root / "val" / "cat").rename(root / "val" / "dog")
    with pytest.raises(ValueError, match=r"val must have the class folders of the training set; .*: cat, dog"):
        load(f"folder:{root}")


@pytest.mark.bad_input
def test_too_few_images_to_split(tree: Tree) -> None:
    with pytest.raises(ValueError, match=r"pictures has too few images to split off a test set"):
        load(f"folder:{tree(each=1)}")


@pytest.mark.bad_input
@pytest.mark.parametrize("which", [0, 7])
def test_a_damaged_small_image_is_named_while_loading(tree: Tree, which: int) -> None:
    root = tree("train", "val")
    path = Path(class_tree(root / "train").paths[which])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        load(f"folder:{root}", validation=0.0)
    assert str(path) in str(caught.value)
