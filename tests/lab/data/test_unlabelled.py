"""Images that have no class: where they stay, where they are left out, and what is said of them."""

import numpy as np
import pytest
import torch

from multimix.lab.data import Images, Splits, ignoring, load


@pytest.fixture
def partly(arrays):
    """Return arrays in which every third image has no class, which an argument says by its label."""

    def make(label):
        for part in ("train", "test"):
            labels = (np.arange(len(arrays[f"{part}_labels"])) // 3 % 3).astype(np.int64)
            labels[::3] = label
            arrays[f"{part}_labels"] = labels
        return arrays

    return make


@pytest.mark.parametrize("label", [-1, 255, -100, 3])
def test_they_stay_in_training_and_are_left_out_elsewhere(archive, partly, label):
    given = partly(label)
    splits = load(archive(given), validation=0.0, ignore_index=label)
    wanted = np.where(np.arange(30) % 3 == 0, -100, given["train_labels"])
    assert splits.train.labels.tolist() == wanted.tolist()
    known = given["test_labels"] != label
    assert splits.test.labels.tolist() == given["test_labels"][known].tolist()
    assert torch.equal(splits.test.images[:, 0], torch.from_numpy(given["test_images"][known, :, :, 0]))
    assert splits.classes == ("0", "1", "2")
    held = load(archive(given), validation=0.4, ignore_index=label).validation
    assert held.labels.unique().tolist() == [0, 1, 2]


def test_a_class_of_a_set_by_name_may_be_ignored():
    splits = load("digits", ignore_index=3)
    present = {part: set(getattr(splits, part).labels.tolist()) for part in ("train", "validation", "test")}
    others = {0, 1, 2, 4, 5, 6, 7, 8, 9}
    assert present == {"train": others | {-100}, "validation": others, "test": others}
    assert len(splits.classes) == 10
    again = ignoring(splits, 3)
    assert torch.equal(again.train.labels, splits.train.labels)
    assert len(again.test) == len(splits.test)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("split", "label", "given", "message"),
    [
        ("train", -1, None, r"train_labels must be 0..k-1.*; if -1 stands for no class, set ignore_index=-1"),
        ("train", 255, None, r"class 3 has no image; if 255 stands for no class, set ignore_index=255"),
        ("train", -1, 255, r"train_labels must be 0..k-1.*; if -1 stands for no class"),
        ("test", -100, None, "test_labels must be classes, got -100; if -100 stands for no class"),
        ("test", -1, None, r"test_labels must lie in 0\.\.2 for 3 classes, got -1\.\.2"),
    ],
)
def test_labels_that_nobody_said_mean_none_are_refused(archive, arrays, split, label, given, message):
    arrays[f"{split}_labels"] = arrays[f"{split}_labels"].astype(np.int64)
    arrays[f"{split}_labels"][0] = label
    with pytest.raises(ValueError, match=message):
        load(archive(arrays), ignore_index=given)


@pytest.mark.bad_input
def test_sets_without_any_class_are_refused():
    pixels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="labels must have a class of at least one image, got -100 for all of 2"):
        Images(pixels, torch.tensor([-100, -100]), ("a", "b"))
    known = Images(pixels, torch.tensor([0, 1]), ("a", "b"))
    zeros = Images(pixels, torch.tensor([0, 0]), ("a", "b"))
    with pytest.raises(ValueError, match="data own: every image of test has the label 0 that is ignored"):
        ignoring(Splits("own", known, None, zeros, (0.0,), (1.0,)), 0)
