"""The data sets by name, from small copies in the layouts of the real ones."""

import pickle
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import savemat
from sklearn.datasets import load_digits

from data.trees import write_picture
from multimix.lab.data import Files, Images, load


def nhwc(part: object) -> np.ndarray:
    assert isinstance(part, Images)
    return part.images.permute(0, 2, 3, 1).numpy()


def test_digits_are_scikit_learns_with_every_grey_level_kept():
    splits = load("digits", validation=0.0)
    assert (len(splits.train), len(splits.test), splits.shape) == (1438, 359, (1, 8, 8))
    truth = load_digits()
    scale = {round(v * 255 / 16): v for v in range(17)}
    assert len(scale) == 17
    known = {image.astype(int).tobytes(): label for image, label in zip(truth.images, truth.target, strict=True)}
    together = 0
    for part in (splits.train, splits.test):
        for image, label in zip(nhwc(part)[..., 0], part.labels.tolist(), strict=True):
            assert known[np.vectorize(scale.__getitem__)(image).astype(int).tobytes()] == label
            together += 1
    assert together == len(truth.images) == len(known)


def test_the_test_digits_are_the_same_whatever_the_seed():
    one, other = (load("digits", split_seed=seed) for seed in (0, 1))
    assert np.array_equal(nhwc(one.test), nhwc(other.test))
    assert not np.array_equal(nhwc(one.train), nhwc(other.train))
    everything = np.bincount(load_digits().target)
    share = torch.bincount(one.test.labels).numpy() / everything
    assert np.all(abs(share - 0.2) < 0.01)


def trust_all(monkeypatch, module: str):
    """Let torchvision take files that are there whatever their checksum: small copies cannot have the real one."""
    target = f"torchvision.datasets.{module}.check_integrity"
    monkeypatch.setattr(target, lambda path, md5=None: Path(path).is_file())


def write_cifar(root: Path, *, fine: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write CIFAR's pickles with 12 images each and return pixels (n, h, w, c) and labels by part."""
    rng, truth = np.random.default_rng(0), {}
    folder = root / ("cifar-100-python" if fine else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    names = {"train": ["train"], "test": ["test"]} if fine else {
        "train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"],
    }  # fmt: skip
    for part, files in names.items():
        pixels, labels = rng.integers(0, 256, (12 * len(files), 3072), dtype=np.uint8), np.arange(12 * len(files)) % 10
        for i, name in enumerate(files):
            chunk = slice(12 * i, 12 * i + 12)
            entry = {"data": pixels[chunk], "fine_labels" if fine else "labels": labels[chunk].tolist()}
            (folder / name).write_bytes(pickle.dumps(entry))
        truth[part] = (pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels)
    classes = [f"class {i}" for i in range(100 if fine else 10)]
    meta = {"fine_label_names": classes} if fine else {"label_names": classes}
    (folder / ("meta" if fine else "batches.meta")).write_bytes(pickle.dumps(meta))
    return truth


@pytest.mark.parametrize(("name", "fine"), [("cifar10", False), ("cifar100", True)])
def test_cifar_from_its_pickles(tmp_path, monkeypatch, name, fine):
    truth = write_cifar(tmp_path, fine=fine)
    trust_all(monkeypatch, "cifar")
    splits = load(name, root=tmp_path, validation=0.0)
    for part, (pixels, labels) in {"train": truth["train"], "test": truth["test"]}.items():
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


def write_idx(path: Path, array: np.ndarray):
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + array.tobytes())


def write_fashion(root: Path) -> dict[str, np.ndarray]:
    rng, truth = np.random.default_rng(0), {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        truth[part] = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8)
        raw = root / "FashionMNIST" / "raw"
        write_idx(raw / f"{prefix}-images-idx3-ubyte", truth[part])
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", (np.arange(20) % 10).astype(np.uint8))
    return truth


def test_fashion_mnist_from_its_idx_files(tmp_path):
    truth = write_fashion(tmp_path)
    splits = load("fashion-mnist", root=tmp_path, validation=0.0)
    assert np.array_equal(nhwc(splits.train)[..., 0], truth["train"])
    assert np.array_equal(nhwc(splits.test)[..., 0], truth["test"])
    assert splits.train.labels.tolist() == [*range(10)] * 2
    assert (splits.shape, splits.classes[9]) == ((1, 28, 28), "Ankle boot")


@pytest.mark.parametrize("layout", ["trees", "original"])
def test_tiny_imagenet_in_both_layouts(tmp_path, layout):
    root, classes = tmp_path / "tiny-imagenet-200", ("n01", "n02", "n03")
    truth: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    lines = []
    for label, wnid in enumerate(classes):
        inside = "images" if layout == "original" else ""
        truth["train"] += [
            write_picture(root / "train" / wnid / inside / f"{i}.png", (64, 64), label) for i in range(2)
        ]
        where = root / "val" / ("images" if layout == "original" else wnid) / f"val_{label}.png"
        truth["val"].append(write_picture(where, (64, 64), 10 + label))
        lines.append(f"val_{label}.png\t{wnid}\t0\t0\t9\t9\n")
    if layout == "original":
        (root / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
        truth["val"].reverse()
    splits = load("tiny-imagenet", root=tmp_path, validation=0.0)
    assert np.array_equal(nhwc(splits.train), np.stack(truth["train"]))
    assert np.array_equal(nhwc(splits.test), np.stack(truth["val"]))
    assert splits.test.labels.tolist() == ([2, 1, 0] if layout == "original" else [0, 1, 2])
    assert splits.classes == classes
    assert splits.mean == pytest.approx(tuple(np.stack(truth["train"]).mean((0, 1, 2)) / 255))


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
    with pytest.raises(
        FileNotFoundError, match=f"{name} is not, or not whole, under .*--download.* or npz:PATH"
    ) as caught:
        load(name, root=tmp_path / "nothing")
    assert str(tmp_path / "nothing") in str(caught.value)
    assert "\n" not in str(caught.value)


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
    assert np.array_equal(nhwc(load("fashion-mnist", root=tmp_path, download=True).test)[..., 0], truth["test"])
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
