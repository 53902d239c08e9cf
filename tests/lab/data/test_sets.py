"""Images and Files, stratified choices among them, and what both refuse."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimix.lab.data import Files, Images
from multimix.lab.data._sets import shares, stratified

CLASSES = ("a", "b", "c")


def pixels(size=5):
    return torch.arange(size * 2 * 3 * 4).remainder(256).to(torch.uint8).view(size, 2, 3, 4)


def labels(*values):
    return torch.tensor(values, dtype=torch.int64)


def test_images_know_their_size_shape_and_classes_and_are_contiguous():
    turned = pixels().permute(0, 1, 3, 2)
    images = Images(turned, labels(0, 1, 2, 0, 1), CLASSES)
    assert (len(images), images.shape, images.classes) == (5, (2, 4, 3), CLASSES)
    assert images.images.is_contiguous()
    assert torch.equal(images.images, turned)


@pytest.mark.parametrize("indices", [[3, 0, 3], torch.tensor([3, 0, 3])])
def test_a_subset_keeps_the_order_asked_for_and_is_a_copy(indices):
    images = Images(pixels(), labels(0, 1, 2, 0, 1), CLASSES)
    part = images.subset(indices)
    assert torch.equal(part.images, pixels()[[3, 0, 3]])
    assert part.labels.tolist() == [0, 0, 0]
    part.images.zero_()
    assert torch.equal(images.images, pixels())


def test_files_subset_keeps_paths_and_labels_together():
    part = Files(("p0", "p1", "p2"), labels(2, 0, 1), CLASSES, 32).subset([2, 0])
    assert (part.paths, part.labels.tolist(), part.shape, len(part)) == (("p2", "p0"), [1, 2], (3, 32, 32), 2)


def test_to_moves_images_and_labels_and_returns_itself_where_they_are(device):
    images = Images(pixels(), labels(0, 0, 0, 0, 0), CLASSES)
    assert images.to("cpu") is images
    moved = images.to(device)
    assert (moved.images.device.type, moved.labels.device.type) == (device.type, device.type)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("images", "given", "message"),
    [
        (torch.zeros(5, 1, 2, 2), labels(0, 0, 0, 0, 0), r"images must .* uint8 .*float32 of \(5, 1, 2, 2\)"),
        (torch.zeros(5, 2, 2, dtype=torch.uint8), labels(0, 0, 0, 0, 0), r"got torch.uint8 of \(5, 2, 2\)"),
        (torch.zeros(0, 1, 2, 2, dtype=torch.uint8), labels(), "non-empty"),
        (pixels(), labels(0, 0, 0, 0), "5 images but 4 labels"),
        (pixels(), labels(0, 1, 2, 3, 0), r"labels must lie in 0\.\.2 for 3 classes, got 0\.\.3"),
        (pixels(), labels(0, -1, 2, 1, 0), r"got -1\.\.2"),
        (pixels(), torch.zeros(5), "labels must be an int64 tensor .*float32"),
        (pixels(), labels(0, 0, 0, 0, 0)[:, None], r"labels must .* of \(5, 1\)"),
    ],
)
def test_images_refuse(images, given, message):
    with pytest.raises(ValueError, match=message):
        Images(images, given, CLASSES)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("paths", "given", "size", "message"),
    [
        ((), labels(), 8, "at least one image file"),
        (("p",), labels(3), 8, r"0\.\.2 for 3 classes, got 3\.\.3"),
        (("p",), labels(0), 0, "image_size must be at least 1, got 0"),
    ],
)
def test_files_refuse(paths, given, size, message):
    with pytest.raises(ValueError, match=message):
        Files(paths, given, CLASSES, size)


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([50, 30, 20], 10, [5, 3, 2]),
        ([5, 5, 5], 7, [3, 2, 2]),  # 7/3 each: the odd one goes to the first class
        ([97, 2, 1], 10, [8, 1, 1]),  # 9.7, 0.2, 0.1, but none without
        ([4, 4], 8, [4, 4]),
        ([1, 9], 9, [1, 8]),  # 0.9, 8.1
    ],
)
def test_shares_by_hand(counts, size, expected):
    assert shares(counts, size) == expected


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.data())
def test_shares_hold_their_limits_and_stay_near_proportion(counts, data):
    size = data.draw(st.integers(len(counts), sum(counts)))
    taken = shares(counts, size)
    assert sum(taken) == size
    assert all(1 <= t <= c for t, c in zip(taken, counts, strict=True))
    if all(c * size / sum(counts) >= 1 for c in counts):
        assert all(abs(t - c * size / sum(counts)) < 1 for t, c in zip(taken, counts, strict=True))


def test_stratified_is_a_partition_that_keeps_proportions():
    given = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    chosen, rest = stratified(given, 20, 5)
    assert torch.equal(torch.cat([chosen, rest]).sort().values, torch.arange(100))
    assert torch.equal(chosen, chosen.sort().values)
    assert torch.bincount(given[chosen]).tolist() == [12, 6, 2]


def test_stratified_is_fixed_by_its_seed_alone_and_a_larger_choice_contains_a_smaller_one():
    given = torch.arange(90) % 3
    first = stratified(given, 30, 1)[0]
    torch.manual_seed(99)
    assert torch.equal(stratified(given, 30, 1)[0], first)
    assert not torch.equal(stratified(given, 30, 2)[0], first)
    assert set(stratified(given, 9, 1)[0].tolist()) < set(first.tolist())


def test_every_image_of_a_class_is_as_likely():
    given = torch.tensor([0] * 10 + [1] * 10)
    hits = sum(torch.bincount(stratified(given, 10, seed)[0], minlength=20) for seed in range(400))
    assert torch.as_tensor(hits).min() > 200 - 5 * 10  # binomial(400, 1/2), sd 10
    assert torch.as_tensor(hits).max() < 200 + 5 * 10


@pytest.mark.bad_input
@pytest.mark.parametrize("size", [2, 10])
def test_stratified_refuses_sizes_that_cannot_be(size):
    with pytest.raises(ValueError, match=f"{size} of 9 images cannot hold each of the 3 classes"):
        stratified(torch.arange(9) % 3, size, 0)
