"""Data sets by name, from small copies in the layouts of the real ones, and trees of images in every layout."""

import pickle
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits
from torchvision.datasets import ImageFolder

from data.trees import nhwc, write_image
from multimix.lab.data import Files, Images, load
from multimix.lab.data import _files as reading
from multimix.lab.data._folder import class_tree


def test_digits_are_scikit_learns_and_a_fifth_of_them_tests_whatever_the_seed():
    splits, other = (load("digits", validation=0.0, split_seed=seed) for seed in (0, 1))
    assert (len(splits.train), len(splits.test), splits.shape) == (1438, 359, (1, 8, 8))
    assert splits.classes == tuple("0123456789")
    truth = load_digits()
    grey = np.array([round(v * 255 / 16) for v in range(17)])[truth.images.astype(int)]
    pixels = np.concatenate([nhwc(part)[..., 0] for part in (splits.train, splits.test)])
    labels = torch.cat([splits.train.labels, splits.test.labels]).tolist()
    found = {(image.tobytes(), label) for image, label in zip(pixels.astype(int), labels, strict=True)}
    assert found == {(image.tobytes(), label) for image, label in zip(grey, truth.target.tolist(), strict=True)}
    assert np.array_equal(nhwc(splits.test), nhwc(other.test))
    assert np.all(abs(np.bincount(splits.test.labels) / np.bincount(truth.target) - 0.2) < 0.01)


def trust_all(monkeypatch, module: str):
    """Let torchvision take files that are there whatever their checksum: small copies cannot have the real one."""
    target = f"torchvision.datasets.{module}.check_integrity"
    monkeypatch.setattr(target, lambda path, md5=None: Path(path).is_file())


def write_cifar(root: Path, *, fine: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write CIFAR's pickles with 12 images each and return pixels (n, h, w, c) and labels by part."""
    rng, truth = np.random.default_rng(0), {}
    folder = root / ("cifar-100-python" if fine else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    batches = [f"data_batch_{i}" for i in range(1, 6)]
    names = {"train": ["train"] if fine else batches, "test": ["test" if fine else "test_batch"]}
    for part, files in names.items():
        pixels, labels = rng.integers(0, 256, (12 * len(files), 3072), dtype=np.uint8), np.arange(12 * len(files)) % 10
        for i, name in enumerate(files):
            chunk = slice(12 * i, 12 * i + 12)
            entry = {"data": pixels[chunk], "fine_labels" if fine else "labels": labels[chunk].tolist()}
            (folder / name).write_bytes(pickle.dumps(entry))
        truth[part] = (pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels)
    meta = {"fine_label_names" if fine else "label_names": [f"class {i}" for i in range(100 if fine else 10)]}
    (folder / ("meta" if fine else "batches.meta")).write_bytes(pickle.dumps(meta))
    return truth


@pytest.mark.parametrize(("name", "fine"), [("cifar10", False), ("cifar100", True)])
def test_cifar_from_its_pickles(tmp_path, monkeypatch, name, fine):
    truth = write_cifar(tmp_path, fine=fine)
    trust_all(monkeypatch, "cifar")
    splits = load(name, root=tmp_path, validation=0.0)
    for part, (pixels, labels) in truth.items():
        assert np.array_equal(nhwc(getattr(splits, part)), pixels)
        assert getattr(splits, part).labels.tolist() == labels.tolist()
    assert splits.classes[3] == "class 3"
    assert splits.mean[0] == (0.5071 if fine else 0.4914)


def test_svhn_from_its_matrices(tmp_path, monkeypatch):
    rng, truth = np.random.default_rng(0), {}
    (tmp_path / "svhn").mkdir()
    for part in ("train", "test"):
        pixels = rng.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
        labels = (np.arange(20) % 10 + 1).astype(np.uint8)[:, None]  # SVHN writes 10 for the digit 0
        savemat(tmp_path / "svhn" / f"{part}_32x32.mat", {"X": pixels, "y": labels})
        truth[part] = pixels.transpose(3, 0, 1, 2)
    trust_all(monkeypatch, "svhn")
    splits = load("svhn", root=tmp_path, validation=0.0)
    assert np.array_equal(nhwc(splits.train), truth["train"])
    assert np.array_equal(nhwc(splits.test), truth["test"])
    assert splits.train.labels.tolist() == [*range(1, 10), 0] * 2
    assert splits.mean == pytest.approx(tuple(truth["train"].mean((0, 1, 2)) / 255))


def write_fashion(root: Path) -> dict[str, np.ndarray]:
    rng, raw = np.random.default_rng(0), root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    truth = {part: rng.integers(0, 256, (20, 28, 28), dtype=np.uint8) for part in ("train", "t10k")}
    for part, images in truth.items():
        for name, array in (("images-idx3", images), ("labels-idx1", (np.arange(20) % 10).astype(np.uint8))):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (raw / f"{part}-{name}-ubyte").write_bytes(head + array.tobytes())
    return truth


def test_fashion_mnist_from_its_idx_files(tmp_path):
    truth = write_fashion(tmp_path)
    splits = load("fashion-mnist", root=tmp_path, validation=0.0)
    assert np.array_equal(nhwc(splits.train)[..., 0], truth["train"])
    assert np.array_equal(nhwc(splits.test)[..., 0], truth["t10k"])
    assert splits.train.labels.tolist() == [*range(10)] * 2
    assert (splits.shape, splits.classes[9]) == ((1, 28, 28), "Ankle boot")


@pytest.mark.parametrize("original", [False, True])
def test_tiny_imagenet_in_both_layouts(tmp_path, original):
    root, classes = tmp_path / "tiny-imagenet-200", ("n01", "n02", "n03")
    train, test = [], []
    for label, wnid in enumerate(classes):
        folder = root / "train" / wnid / ("images" if original else "")
        train += [write_image(folder / f"{i}.png", (64, 64), label) for i in range(2)]
        where = root / "val" / ("images" if original else wnid) / f"val_{label}.png"
        test.append(write_image(where, (64, 64), 10 + label))
    if original:
        lines = [f"val_{label}.png\t{wnid}\t0\t0\t9\t9\n" for label, wnid in enumerate(classes)]
        (root / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
        test.reverse()
    splits = load("tiny-imagenet", root=tmp_path, validation=0.0)
    assert np.array_equal(nhwc(splits.train), np.stack(train))
    assert np.array_equal(nhwc(splits.test), np.stack(test))
    assert splits.test.labels.tolist() == ([2, 1, 0] if original else [0, 1, 2])
    assert splits.classes == classes
    assert splits.mean == pytest.approx(tuple(np.stack(train).mean((0, 1, 2)) / 255))


@pytest.mark.parametrize(("image_size", "kind", "size"), [(None, Files, 224), (128, Files, 128), (32, Images, 32)])
def test_imagenet_is_read_as_files_or_where_small_into_memory(tree, image_size, kind, size):
    root = tree("train", "val", size=(120, 130), name="imagenet")
    splits = load("imagenet", root=root.parent, image_size=image_size)
    assert isinstance(splits.train, kind)
    assert isinstance(splits.test, kind)
    assert (splits.shape, splits.test.shape) == ((3, size, size), (3, size, size))
    assert (splits.mean, splits.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "fashion-mnist"])
def test_absent_files_say_what_to_pass(tmp_path, name):
    said = f"^{name} is not, or not whole, under {tmp_path / 'nothing'}.*--download.* or npz:PATH .*$"
    with pytest.raises(FileNotFoundError, match=said):
        load(name, root=tmp_path / "nothing")


@pytest.mark.bad_input
def test_damaged_files_count_as_absent(tmp_path, monkeypatch):
    write_fashion(tmp_path)
    images = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    with pytest.raises(FileNotFoundError, match="fashion-mnist is not, or not whole"):
        load("fashion-mnist", root=tmp_path)
    write_cifar(tmp_path, fine=False)
    with pytest.raises(FileNotFoundError, match="cifar10 is not, or not whole"):  # its checksums are not the real ones
        load("cifar10", root=tmp_path)
    trust_all(monkeypatch, "cifar")
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"\x80\x04")
    with pytest.raises(FileNotFoundError, match="cifar10 is not, or not whole"):
        load("cifar10", root=tmp_path)


@pytest.mark.bad_input
def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    def offline(self):
        raise urllib.error.URLError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets.SVHN, "download", offline)
    said = f"svhn could not be downloaded into {tmp_path / 'svhn'}: .*no route to host.*npz:PATH"
    with pytest.raises(FileNotFoundError, match=said):
        load("svhn", root=tmp_path, download=True)


def test_a_download_is_only_made_when_asked_for(tmp_path, monkeypatch):
    truth, asked = write_fashion(tmp_path), []
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", lambda self: asked.append(self.train))
    load("fashion-mnist", root=tmp_path)
    assert asked == []
    assert np.array_equal(nhwc(load("fashion-mnist", root=tmp_path, download=True).test)[..., 0], truth["t10k"])
    assert asked == [True, False]


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["tiny-imagenet", "imagenet"])
def test_absent_trees_say_where_they_belong(tmp_path, tree, name):
    with pytest.raises(FileNotFoundError, match=rf"{name} is not under {tmp_path}.*unpack it there.*folder:PATH"):
        load(name, root=tmp_path)
    folder = {"tiny-imagenet": "tiny-imagenet-200", "imagenet": "imagenet"}[name]
    tree("train", name=folder)
    with pytest.raises(FileNotFoundError, match=f"{folder}.val is missing"):
        load(name, root=tmp_path)


@pytest.mark.bad_input
def test_annotations_of_an_unknown_class_are_named(tmp_path, tree):
    root = tree("train", name="tiny-imagenet-200")
    (root / "val").mkdir()
    (root / "val" / "val_annotations.txt").write_text("0.png\tant\t0\n1.png\tdog\t0\n")
    with pytest.raises(ValueError, match=r"val_annotations.txt, line 2: 'dog' is not a class folder of train/"):
        load("tiny-imagenet", root=tmp_path)


def paths(part):
    assert isinstance(part, Files)
    return set(part.paths)


def test_the_listing_is_imagefolders_without_what_is_hidden(tree):
    root = tree(classes=("b", "A", "c10", "c9"), each=11)
    write_image(root / "A" / "deeper" / "x.PNG", (4, 4), 1)
    (root / "A" / "notes.txt").write_text("not an image")
    truth = ImageFolder(root)
    write_image(root / ".cache" / "0.png", (4, 4), 1)
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


def test_one_tree_is_split_by_seed_and_class(tree):
    root = tree(each=10, size=(100, 90))
    splits, again, other = (load(f"folder:{root}", validation=0.25, split_seed=seed) for seed in (0, 0, 1))
    assert splits.train.shape == (3, 224, 224)
    parts = [paths(splits.train), paths(splits.validation), paths(splits.test)]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 30
    assert all(torch.bincount(part.labels).tolist() > [0, 0, 0] for part in (splits.train, splits.test))
    assert paths(again.test) == parts[2] != paths(other.test)


@pytest.mark.parametrize("part", ["train", "val"])
def test_one_image_of_another_size_keeps_all_on_the_disk(tree, part):
    root = tree("train", "val")
    write_image(root / part / "cat" / "9.png", (10, 13), 0)
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
    monkeypatch.setattr(reading, limit, value - 1)
    assert isinstance(load(f"folder:{root}", validation=0.0).train, Files)
    monkeypatch.setattr(reading, limit, value)
    assert isinstance(load(f"folder:{root}", validation=0.0).train, Images)


def test_what_too_few_images_do_not_allow_is_noted(tree):
    root = tree(each=2)
    found = load(f"folder:{root}")
    assert (found.validation, len(found.train), len(found.test)) == (None, 3, 3)
    assert found.notes[-1].startswith("there is no validation set: validation=0.1 leaves too few training images: ")
    with pytest.raises(ValueError, match=r"validation=0\.2 leaves too few .* --validation 0 holds none out"):
        load(f"folder:{root}", validation=0.2)
    next((root / "cat").iterdir()).unlink()
    assert "classes of one image, which is for training and not in the test set: cat" in load(f"folder:{root}").notes


@pytest.mark.bad_input
def test_unfit_trees_are_named(tree):
    root = tree("train", "val")

    def assert_refused(folder, said):
        with pytest.raises(ValueError, match=said):
            load(f"folder:{folder}", validation=0.0)

    assert_refused(tree(classes=("ant",), name="one"), "one must hold at least two class folders, got 1: ant")
    assert_refused(tree(each=1, name="few"), "few: no folder of test images: a class of two images is needed, got 3 of")
    (root / "val" / "cat").rename(root / "val" / "dog")
    assert_refused(root, "val must have the class folders of the training set; .*: cat, dog")
