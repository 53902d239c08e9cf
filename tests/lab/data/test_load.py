"""Sets in memory, what load adds to its sources, and every way an archive can be wrong."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2.functional import resize

from data.trees import nhwc
from multimix.lab.data import Files, Images, load
from multimix.lab.data._arrays import read_own
from multimix.lab.data._sets import shares, stratified


def rows(part: object) -> set[bytes]:
    assert isinstance(part, Images)
    return {image.numpy().tobytes() for image in part.images}


@pytest.fixture
def uneven(archive):
    """Return an archive of 100 distinct training images in classes of 60, 30 and 10."""
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat([0, 1, 2], [60, 30, 10]))
    images = rng.integers(0, 256, (100, 6, 6), dtype=np.uint8)
    return archive(
        {"train_images": images, "train_labels": labels, "test_images": images[:9], "test_labels": labels[:9]}
    )


def test_validation_is_stratified_and_disjoint(uneven):
    splits = load(uneven, validation=0.2)
    assert torch.bincount(splits.validation.labels).tolist() == [12, 6, 2]
    assert torch.bincount(splits.train.labels).tolist() == [48, 24, 8]
    assert not rows(splits.train) & rows(splits.validation)
    assert rows(splits.train) | rows(splits.validation) == rows(load(uneven, validation=0.0).train)
    assert len(load(uneven, validation=0.001).validation) == 1


def test_validation_depends_on_the_split_seed_alone(uneven):
    first = rows(load(uneven).validation)
    torch.manual_seed(1)
    assert rows(load(uneven, split_seed=0).validation) == first != rows(load(uneven, split_seed=1).validation)


@pytest.mark.parametrize(("size", "counts"), [(50, [30, 15, 5]), (3, [1, 1, 1]), (80, [48, 24, 8])])
def test_train_size_is_stratified_and_leaves_validation_alone(uneven, size, counts):
    whole, part = load(uneven, validation=0.2), load(uneven, validation=0.2, train_size=size)
    assert torch.bincount(part.train.labels).tolist() == counts
    assert rows(part.train) <= rows(whole.train)
    assert rows(part.validation) == rows(whole.validation)


def test_statistics_are_those_of_each_channel_of_the_training_images_in_use(archive, arrays):
    arrays["train_images"][..., 1] //= 2
    arrays["train_images"][..., 2] = 51
    splits = load(archive(arrays), validation=0.3, train_size=12)
    truth = splits.train.images.double().numpy() / 255
    assert splits.mean == pytest.approx(tuple(truth.mean((0, 2, 3))), rel=1e-12)
    assert splits.std[:2] == pytest.approx(tuple(truth.std((0, 2, 3)))[:2], rel=1e-12)
    assert splits.std[2] == 1.0  # never varies: centred and left alone


def test_image_size_resizes_every_part(archive, arrays):
    plain, large = load(archive(arrays)), load(archive(arrays), image_size=9)
    for part in ("train", "validation", "test"):
        truth = resize(getattr(plain, part).images, [9, 9], antialias=True)
        assert torch.equal(getattr(large, part).images, truth)
        assert torch.equal(getattr(large, part).labels, getattr(plain, part).labels)
    assert large.shape == (3, 9, 9)


NAMES = "digits, digits-few, cifar10, cifar100, svhn, fashion-mnist, tiny-imagenet, imagenet"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifer10", r"unknown data set 'cifer10'; did you mean cifar10.*known are digits, "),
        ("CIFAR100", "did you mean cifar100"),
        ("zebra", f"unknown data set 'zebra'; known are {NAMES}, folder:PATH, npz:PATH$"),
        ("zip:x", "unknown data set 'zip:x'"),
        ("npz:", "'npz:' lacks its path: npz:PATH"),
        ("../here", r"unknown data set '../here'; did you mean folder:\.\./here\? known"),
        ("set.npz", r"did you mean npz:set\.npz\?"),
    ],
)
def test_unknown_names_get_near_ones(name, message, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "set.npz").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match=message):
        load(name)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 1.0}, r"validation must lie in \[0, 1\), got 1.0"),
        ({"validation": -0.1}, "got -0.1"),
        (
            {"validation": 0.98},
            "validation=0.98 leaves too few training images: 2 of 100 .* 3 classes; --validation 0 holds none out",
        ),
        ({"train_size": 91}, "train_size=91 does not fit: there are 90 images"),
        ({"train_size": 2}, "train_size=2 does not fit: 2 of 90 .* 3 classes"),
        ({"image_size": 1}, "image_size must be at least 2, got 1"),
        ({"split_seed": 1.5}, "split_seed must be an integer, got 1.5"),
        ({"train_size": 9.0}, "train_size must be an integer or None, got 9.0"),
        ({"ignore_index": "-1"}, "ignore_index must be an integer or None, got '-1'"),
    ],
)
def test_bad_settings_are_named(uneven, settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        load(uneven, **settings)


def test_pixels_and_labels_arrive_unchanged_from_the_home_folder_too(archive, arrays, monkeypatch):
    path = Path(archive(arrays).removeprefix("npz:"))
    monkeypatch.setenv("HOME", str(path.parent))
    splits = load(f"npz:~/{path.name}", validation=0.0)
    assert splits.validation is None
    assert np.array_equal(nhwc(splits.train), arrays["train_images"])
    assert np.array_equal(nhwc(splits.test), arrays["test_images"])
    assert splits.train.labels.tolist() == arrays["train_labels"].ravel().tolist()
    assert (splits.shape, splits.classes, splits.train.labels.dtype) == ((3, 5, 4), ("0", "1", "2"), torch.int64)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64])
def test_grey_images_and_flat_labels(archive, arrays, dtype):
    for part in ("train", "test"):
        arrays[f"{part}_images"] = arrays[f"{part}_images"][..., 0]
        arrays[f"{part}_labels"] = arrays[f"{part}_labels"].ravel().astype(dtype)
    splits = load(archive(arrays), validation=0.0)
    assert splits.shape == (1, 5, 4)
    assert np.array_equal(nhwc(splits.train)[..., 0], arrays["train_images"])


def test_tensors_of_a_users_own_are_arrays_and_other_names_are_said(arrays, monkeypatch):
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    tensors["train_images"] = (tensors["train_images"] / 255).requires_grad_()
    monkeypatch.setattr("multimix.lab.data._arrays.called", lambda _: tensors | {"valid_images": [1]})
    parts = read_own("own.py:load")
    assert np.array_equal(nhwc(parts.train), arrays["train_images"])
    assert parts.notes == ["left out, arrays of other names than those that are read: valid_images"]
    monkeypatch.setattr("multimix.lab.data._arrays.called", lambda _: {"train_images": [[1], [2, 3]]})
    with pytest.raises(ValueError, match=r"own\.py:load: train_images must be an array, which it cannot be made: "):
        read_own("own.py:load")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_floats_in_the_unit_interval_become_bytes(archive, arrays, dtype):
    truth = arrays["train_images"]
    for part in ("train", "test"):
        arrays[f"{part}_images"] = (arrays[f"{part}_images"] / 255).astype(dtype)
    assert np.array_equal(nhwc(load(archive(arrays), validation=0.0).train), truth)


def test_its_own_validation_set_is_used(archive, arrays):
    arrays |= {"val_images": arrays["test_images"][:6], "val_labels": arrays["test_labels"][:6]}
    splits = load(archive(arrays), validation=0.5)
    assert np.array_equal(nhwc(splits.validation), arrays["val_images"])
    assert len(splits.train) == 30


def zeros(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype=dtype)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_labels", np.arange(30) % 3 + 1, "train_labels must be 0..k-1.* lie in 1..3 and class 0 has no image"),
        ("train_labels", np.arange(30) % 2 * 2, "lie in 0..2 and class 1 has no image"),
        ("train_labels", zeros(30), "train_labels must hold at least two classes, got 1"),
        ("train_labels", np.arange(30) % 3 / 1.0, "train_labels must be integers, got float64"),
        ("train_labels", zeros(30, 2, 2), r"train_labels must be of shape .* got \(30, 2, 2\)"),
        ("test_labels", zeros(9, 3), r"test_labels must be \(n,\) as train_labels are, got \(9, 3\)"),
        ("label_names", np.array(["a", "b"]), "label_names must be 3 different names, got a, b"),
        ("label_names", np.array(["a", "b", "a"]), "label_names must be 3 different names, got a, b, a"),
        ("train_labels", np.arange(29) % 3, "train_labels must be as many as the images: 30 images but 29 labels"),
        ("test_labels", np.arange(9) % 4, r"test_labels must lie in 0\.\.2 for 3 classes, got 0\.\.3"),
        ("test_labels", zeros(0), r"test_labels must be of shape .* one or more"),
        ("test_images", np.full((9, 5, 4, 3), np.nan), r"test_images .* without NaN, got \[nan, nan\]"),
        ("test_images", np.full((9, 5, 4, 3), 1.5), r"test_images must lie in \[0, 1\] .* \[1.5, 1.5\]"),
        ("test_images", np.full((9, 5, 4, 3), -1.0), r"test_images must lie in \[0, 1\]"),
        ("test_images", zeros(9, 5, 4, 3, dtype=int), "test_images must be uint8, or floats .* got int64"),
        ("test_images", zeros(9, 20), r"test_images must be \(n, h, w\).* got \(9, 20\)"),
        ("test_images", zeros(9, 3, 5, 14), r"c of 1 to 4, got \(9, 3, 5, 14\)"),
        ("test_images", zeros(9, 5, 6, 3), r"test_images are \(3, 5, 6\) .* \(3, 5, 4\)"),
        ("train_images", np.array([{}] * 30), "train_images is damaged or holds pickled objects"),
        ("val_images", zeros(9, 5, 4, 3), "has no val_labels, only: train_images"),
        ("train_images", None, "has no train_images, only: train_labels"),
        ("test_images", None, "has no test_images, only: train_images"),
    ],
)
def test_bad_arrays_are_named(archive, arrays, key, value, message):
    name = archive({known: array for known, array in {**arrays, key: value}.items() if array is not None})
    with pytest.raises(ValueError, match=message) as caught:
        load(name)
    assert str(caught.value).startswith(name.removeprefix("npz:"))


@pytest.mark.bad_input
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_archive_is_refused(archive, arrays, share):
    name = archive(arrays)
    path = Path(name.removeprefix("npz:"))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"set.npz is damaged or no .npz archive"):
        load(name)


@pytest.mark.bad_input
def test_other_files_are_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "notes.txt").write_text("hello")
    damaged = "is damaged or no .npz archive"
    refused = {"one.npy": "is not an .npz archive but a single array", "objects.npy": damaged, "notes.txt": damaged}
    for name, message in refused.items():
        with pytest.raises(ValueError, match=f"{name} {message}"):
            load(f"npz:{tmp_path / name}")
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"npz:{path} is not a file"):
            load(f"npz:{path}")


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
    files = Files(("p0", "p1", "p2", "p3"), labels(2, 0, 1, 1), CLASSES, 32).subset(indices)
    assert (files.paths, files.labels.tolist(), files.shape) == (("p3", "p0", "p3"), [1, 2, 1], (3, 32, 32))


def test_to_moves_images_and_labels_and_returns_itself_where_they_are(device):
    images = Images(pixels(), labels(0, 0, 0, 0, 0), CLASSES)
    assert images.to("cpu") is images
    moved = images.to(device)
    assert (moved.images.device.type, moved.labels.device.type) == (device.type, device.type)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Images, (torch.zeros(2, 1, 2, 2), labels(0, 0)), r"images must .* uint8 .*float32 of \(2, 1, 2, 2\)"),
        (Images, (pixels()[:, 0], labels(0, 0, 0, 0, 0)), r"got torch.uint8 of \(5, 3, 4\)"),
        (Images, (pixels(0), labels()), "non-empty"),
        (Images, (pixels(), labels(0, 0, 0, 0)), "5 images but 4 labels"),
        (Images, (pixels(), labels(0, 1, 2, 3, 0)), r"labels must lie in 0\.\.2 for 3 classes, got 0\.\.3"),
        (Images, (pixels(), labels(0, -1, 2, 1, 0)), r"got -1\.\.2"),
        (Images, (pixels(), torch.zeros(5)), "labels must be an int64 tensor .*float32"),
        (Images, (pixels(), labels(0, 0, 0, 0, 0)[:, None]), r"labels must .* of \(5, 1\)"),
        (Files, ((), labels()), "at least one image file"),
        (Files, (("p",), labels(3)), r"0\.\.2 for 3 classes, got 3\.\.3"),
        (partial(Files, image_size=0), (("p",), labels(0)), "image_size must be at least 1, got 0"),
    ],
)
def test_sets_refuse(kind, given, message):
    with pytest.raises(ValueError, match=message):
        kind(*given, CLASSES)


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


def test_stratified_is_fixed_by_its_seed_alone_and_a_larger_choice_contains_a_smaller_one():
    given = torch.arange(90) % 3
    first, rest = stratified(given, 30, 1)
    assert [*first.sort().values, *rest.sort().values] == [*first, *rest]
    assert sorted([*first, *rest]) == list(range(90))
    torch.manual_seed(99)
    assert torch.equal(stratified(given, 30, 1)[0], first)
    assert not torch.equal(stratified(given, 30, 2)[0], first)
    assert set(stratified(given, 9, 1)[0].tolist()) < set(first.tolist())
