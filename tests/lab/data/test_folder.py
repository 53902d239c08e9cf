"""folder:PATH in every layout it takes, and those it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from data.trees import write_picture
from multimix.lab.data import Files, Images, load
from multimix.lab.data import _files as files
from multimix.lab.data._files import class_tree


def paths(part):
    assert isinstance(part, Files)
    return set(part.paths)


def test_the_listing_is_imagefolders_without_what_is_hidden(tree):
    root = tree(classes=("b", "A", "c10", "c9"), each=11)
    write_picture(root / "A" / "deeper" / "x.PNG", (4, 4), 1)
    (root / "A" / "notes.txt").write_text("not an image")
    truth = ImageFolder(root)
    write_picture(root / ".cache" / "0.png", (4, 4), 1)
    (root / "A" / "._0.png").write_bytes(b"left by another system")
    found = class_tree(root)
    assert found.classes == tuple(truth.classes)
    assert list(zip(found.paths, found.labels.tolist(), strict=True)) == truth.samples


def test_small_images_of_one_size_live_in_memory(tree):
    root = tree("train", "val")
    splits = load(f"folder:{root}", validation=0.0)
    assert (splits.shape, splits.classes, len(splits.test)) == ((3, 10, 12), ("ant", "bee", "cat"), 18)
    for part, name in ((splits.train, "train"), (splits.test, "val")):  # val/ is the test set where there is no other
        for image, label, (path, truth) in zip(part.images, part.labels, ImageFolder(root / name).samples, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))
            assert label == truth


def test_with_both_val_is_the_validation_set(tree):
    root = tree("train", "val", "test")
    splits = load(f"folder:{root}", validation=0.5, image_size=200)
    for part, name in ((splits.train, "train"), (splits.validation, "val"), (splits.test, "test")):
        assert paths(part) == set(class_tree(root / name).paths)


def test_one_tree_is_split_by_seed_and_class(tree):
    root = tree(each=10, size=(100, 90))
    splits, again, other = (load(f"folder:{root}", validation=0.25, split_seed=seed) for seed in (0, 0, 1))
    assert splits.train.shape == (3, 224, 224)
    parts = [paths(splits.train), paths(splits.validation), paths(splits.test)]
    assert [len(part) for part in parts] == [18, 6, 6]
    assert len(set.union(*parts)) == 30
    assert torch.bincount(splits.test.labels).tolist() == [2, 2, 2]
    assert paths(again.test) == parts[2] != paths(other.test)


@pytest.mark.parametrize("part", ["train", "val"])
def test_one_image_of_another_size_keeps_all_on_the_disk(tree, part):
    root = tree("train", "val")
    write_picture(root / part / "cat" / "9.png", (10, 13), 0)
    splits = load(f"folder:{root}", validation=0.0)
    assert isinstance(splits.train, Files)
    assert isinstance(splits.test, Files)
    assert splits.mean == (0.485, 0.456, 0.406)


def test_image_size_brings_small_sets_into_memory(tree):
    root = tree("train", "val", size=(40, 60))
    splits = load(f"folder:{root}", validation=0.0, image_size=20)
    assert splits.shape == (3, 20, 20)
    image = Image.open(root / "train" / "ant" / "0.png").resize((30, 20), Image.Resampling.BILINEAR)
    truth = np.asarray(image.crop((5, 0, 25, 20)))
    assert np.array_equal(splits.train.images[0].permute(1, 2, 0).numpy(), truth)


@pytest.mark.parametrize(("limit", "value"), [("MEMORY_LIMIT", 18 * 3 * 10 * 12), ("SMALL_SIDE", 12)])
def test_a_set_too_large_for_memory_stays_on_the_disk(tree, monkeypatch, limit, value):
    root = tree("train", "val")
    monkeypatch.setattr(files, limit, value - 1)
    assert isinstance(load(f"folder:{root}", validation=0.0).train, Files)
    monkeypatch.setattr(files, limit, value)
    assert isinstance(load(f"folder:{root}", validation=0.0).train, Images)


def test_only_images_that_are_kept_are_decoded(tree):
    root = tree("train", "val", each=10)
    kept = load(f"folder:{root}", validation=0.2, train_size=6, image_size=100)
    for path in set(class_tree(root / "train").paths) - paths(kept.train) - paths(kept.validation):
        Path(path).write_bytes(b"never looked at")
    assert len(load(f"folder:{root}", validation=0.2, train_size=6).train) == 6


@pytest.mark.bad_input
def test_missing_folders_are_named(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder:.*nowhere is not a folder"):
        load(f"folder:{tmp_path / 'nowhere'}")
    root = tree("train", "val")
    shutil.rmtree(root / "val")
    with pytest.raises(FileNotFoundError, match=r"pictures has train/ but neither val/ nor test/"):
        load(f"folder:{root}")


@pytest.mark.bad_input
def test_unfit_trees_are_named(tree, tmp_path):
    with pytest.raises(ValueError, match=r"must hold at least two class folders, got 0$"):
        load(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match=r"one must hold at least two class folders, got 1: ant"):
        load(f"folder:{tree(classes=('ant',), name='one')}")
    with pytest.raises(ValueError, match=r"few has too few images to split off a test set"):
        load(f"folder:{tree(each=1, name='few')}")
    root = tree("train", "val")
    (root / "val" / "cat").rename(root / "val" / "dog")
    with pytest.raises(ValueError, match=r"val must have the class folders of the training set; .*: cat, dog"):
        load(f"folder:{root}")
    (root / "train" / "dog").mkdir()
    (root / "train" / "dog" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"train has no readable kind of image for the class: dog"):
        load(f"folder:{root}")


@pytest.mark.bad_input
@pytest.mark.parametrize("which", [0, 7])
def test_a_damaged_small_image_is_named_while_loading(tree, which):
    root = tree("train", "val")
    path = Path(class_tree(root / "train").paths[which])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{path} cannot be read as an image"):
        load(f"folder:{root}", validation=0.0)
