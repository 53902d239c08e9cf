"""npz:PATH: MedMNIST's keys, and every way an archive can be wrong."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from multimix.lab.data import load


def images(part):
    """Return the pixels as the archive has them, (n, h, w, c)."""
    return part.images.permute(0, 2, 3, 1).numpy()


def test_pixels_and_labels_arrive_unchanged_from_the_home_folder_too(archive, arrays, monkeypatch):
    path = Path(archive(arrays).removeprefix("npz:"))
    monkeypatch.setenv("HOME", str(path.parent))
    splits = load(f"npz:~/{path.name}", validation=0.0)
    assert splits.validation is None
    assert np.array_equal(images(splits.train), arrays["train_images"])
    assert np.array_equal(images(splits.test), arrays["test_images"])
    assert splits.train.labels.tolist() == arrays["train_labels"].ravel().tolist()
    assert (splits.shape, splits.classes, splits.train.labels.dtype) == ((3, 5, 4), ("0", "1", "2"), torch.int64)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64])
def test_grey_images_and_flat_labels(archive, arrays, dtype):
    for part in ("train", "test"):
        arrays[f"{part}_images"] = arrays[f"{part}_images"][..., 0]
        arrays[f"{part}_labels"] = arrays[f"{part}_labels"].ravel().astype(dtype)
    splits = load(archive(arrays), validation=0.0)
    assert splits.shape == (1, 5, 4)
    assert np.array_equal(images(splits.train)[..., 0], arrays["train_images"])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_floats_in_the_unit_interval_become_bytes(archive, arrays, dtype):
    truth = arrays["train_images"]
    for part in ("train", "test"):
        arrays[f"{part}_images"] = (arrays[f"{part}_images"] / 255).astype(dtype)
    assert np.array_equal(images(load(archive(arrays), validation=0.0).train), truth)


def test_its_own_validation_set_is_used(archive, arrays):
    arrays |= {"val_images": arrays["test_images"][:6], "val_labels": arrays["test_labels"][:6]}
    splits = load(archive(arrays), validation=0.5)
    assert np.array_equal(images(splits.validation), arrays["val_images"])
    assert len(splits.train) == 30


def zeros(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype=dtype)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_labels", np.arange(30) % 3 - 1, "train_labels must be 0..k-1.* lie in -1..1"),
        ("train_labels", np.arange(30) % 3 + 1, "train_labels must be 0..k-1.* lie in 1..3 and class 0 has no image"),
        ("train_labels", np.arange(30) % 2 * 2, "lie in 0..2 and class 1 has no image"),
        ("train_labels", zeros(30), "train_labels must hold at least two classes, got 1"),
        ("train_labels", np.arange(30) % 3 / 1.0, "train_labels must be integers, got float64"),
        ("train_labels", zeros(30, 2), r"train_labels must be of shape .* got \(30, 2\)"),
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
def test_a_flipped_bit_is_found(archive, arrays):
    name = archive(arrays)
    path = Path(name.removeprefix("npz:"))
    content = bytearray(path.read_bytes())
    content[content.index(arrays["train_images"].tobytes()) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train_images is damaged .*CRC"):
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


@pytest.mark.slow
@pytest.mark.skipif(
    "MULTIMIX_CIFAR10" not in os.environ, reason="needs the real CIFAR-10: MULTIMIX_CIFAR10=archive.npz"
)
def test_the_real_cifar10():
    splits = load(f"npz:{os.environ['MULTIMIX_CIFAR10']}", validation=0.0)
    assert (len(splits.train), len(splits.test), splits.shape) == (50_000, 10_000, (3, 32, 32))
    assert torch.bincount(splits.train.labels).tolist() == [5000] * 10
    # The mean and spread that the field quotes for this training set.
    assert splits.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert splits.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    assert len({hashlib.sha1(image.tobytes()).digest() for image in images(splits.test)}) == 10_000
