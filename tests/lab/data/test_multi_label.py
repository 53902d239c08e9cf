"""Data whose images may have several labels, or none: how they are read, split and served."""

import numpy as np
import pytest
import torch

from multimix.lab.data import Batches, Images, load
from multimix.lab.data._sets import Parts, stratified

ROWS = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]] * 9)  # 36 images, 18 of each label


@pytest.fixture
def several(arrays):
    arrays["train_labels"], arrays["test_labels"] = ROWS[:30], ROWS[:9]
    return arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float16, np.float64])
def test_labels_of_every_type_of_number_arrive_as_floats(archive, several, dtype):
    several |= {key: several[key].astype(dtype) for key in ("train_labels", "test_labels")}
    splits = load(archive(several), validation=0.0)
    assert splits.multi_label
    assert splits.classes == ("0", "1", "2")
    assert splits.train.labels.dtype == torch.float32
    assert splits.train.labels.tolist() == ROWS[:30].tolist()
    assert splits.notes == ()
    batches = Batches(splits.train, batch_size=4, mean=splits.mean, std=splits.std, shuffle=False)
    assert next(iter(batches))[1].tolist() == ROWS[:4].tolist()


@pytest.mark.parametrize("one_class", [True, False])
def test_labels_may_have_names(archive, arrays, several, one_class):
    if one_class:
        several |= {key: several[key].argmax(1) for key in ("train_labels", "test_labels")}
        several["train_labels"][:3] = np.arange(3)
    names = np.array(["cat", "dog", "né"])
    assert load(archive({**several, "label_names": names})).classes == tuple(names)
    written = np.array([name.encode() for name in names])  # as HDF5 has them
    assert load(archive({**several, "label_names": written})).classes == tuple(names)


def test_rows_that_may_be_classes_are_told_of(archive, several):
    several["train_labels"] = np.eye(3)[np.arange(30) % 3]
    (note,) = load(archive(several)).notes
    assert "exactly one of the labels; if they are classes, give their indices" in note


@pytest.mark.parametrize("seed", range(5))
def test_an_image_of_each_label_stays_in_training(archive, several, seed):
    several["train_labels"] = np.zeros((30, 3), dtype=int)
    several["train_labels"][[7, 8, 9], [0, 1, 2]] = 1
    several["train_labels"][9, 1] = 1
    splits = load(archive(several), validation=0.9, train_size=2, split_seed=seed)
    assert (len(splits.train), len(splits.validation)) == (2, 27)
    assert (splits.train.labels.sum(0) >= 1).all()


def test_the_choice_is_random_but_for_an_image_of_each_label_and_a_larger_one_contains_a_smaller_one():
    labels = torch.from_numpy(ROWS).float()
    small, large = (stratified(labels, size, 1)[0].tolist() for size in (9, 20))
    assert set(small) < set(large)
    assert small != stratified(labels, 9, 2)[0].tolist()
    first, rest = stratified(labels, 9, 1)
    assert sorted([*first.tolist(), *rest.tolist()]) == list(range(36))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_labels", ROWS[:30] * 2, r"train_labels \(n, k\) must be 0 or 1 .* got (np.int64\()?2"),
        ("train_labels", ROWS[:30] * np.nan, r"train_labels \(n, k\) must be 0 or 1 .* got .*nan"),
        ("train_labels", ROWS[:30].astype(str), r"train_labels \(n, k\) must be 0 or 1"),
        ("train_labels", ROWS[:30] * [1, 1, 0], "train_labels must have an image of each label, but label 2 has none"),
        ("train_labels", ROWS[:29], "train_labels must be as many as the images: 30 images but 29 labels"),
        ("test_labels", ROWS[:9, :2], r"test_labels must be \(n, 3\) as train_labels are, got \(9, 2\)"),
        ("test_labels", ROWS[:9, 0], r"test_labels must be \(n, 3\) as train_labels are, got \(9,\)"),
        ("train_labels", ROWS[:30, :0], r"train_labels must be of shape .* got \(30, 0\)"),
    ],
)
def test_bad_labels_are_named(archive, several, key, value, message):
    with pytest.raises(ValueError, match=message):
        load(archive({**several, key: value}))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 0.97}, "validation=0.97 leaves too few .* 1 of 30 images cannot hold each of the 3 labels"),
        ({"validation": 0, "train_size": 31}, "train_size=31 does not fit: there are 30 images"),
    ],
)
def test_splits_that_cannot_be_are_named(archive, several, settings, message):
    several["train_labels"] = several["train_labels"] * [1, 1, 0]
    several["train_labels"][2] = [0, 0, 1]
    with pytest.raises(ValueError, match=message):
        load(archive(several), **settings)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.rand(4, 3), "labels must be 0 or 1 for each label"),
        (torch.ones(4, 2), "labels must have one column for each of 3 labels, 2 or more, got 2"),
        (torch.ones(4, 3).double(), r"labels must be an int64 tensor .* got torch.float64 of \(4, 3\)"),
    ],
)
def test_sets_refuse_other_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        Images(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), labels, ("a", "b", "c"))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ((torch.eye(2), ("a", "b")), r"set must be as the training set, of one class .* got one of several"),
        ((torch.arange(2), ("b", "a")), "set must have the classes .* in their order, but has 'b' in place of 'a'"),
    ],
)
def test_splits_refuse_labels_of_another_kind_and_other_classes(other, message):
    pixels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    one, another = Images(pixels, torch.arange(2), ("a", "b")), Images(pixels, *other)
    with pytest.raises(ValueError, match=f"test {message}"):
        Parts(one, another)
    with pytest.raises(ValueError, match=f"validation {message}"):
        Parts(one, one, another)
