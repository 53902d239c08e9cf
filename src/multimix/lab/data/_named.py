"""The data sets that go by a name."""

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimix.lab.data._folder import class_tree, listed
from multimix.lab.data._sets import Files, Images
from multimix.lab.data._source import IMAGENET_STATISTICS, Parts, Request, Statistics, one_line
from multimix.lab.data._split import stratified

__all__ = ["NAMED"]

UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, AssertionError, tarfile.TarError, pickle.UnpicklingError)
"""What torchvision raises for files that are absent, damaged or out of reach."""

CIFAR10_STATISTICS: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100_STATISTICS: Statistics = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def digits(_: Request) -> Parts:
    """Return scikit-learn's 1797 handwritten digits, 8x8 grey, with a stratified fifth as a fixed test set.

    The 17 grey levels v = 0..16 become the bytes round(v * 255 / 16).
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(np.rint(data.images * (255 / 16)).astype(np.uint8))[:, None]
    whole = Images(
        pixels, torch.from_numpy(data.target.astype(np.int64)), tuple(str(name) for name in data.target_names)
    )
    train, test = stratified(whole.labels, round(0.8 * len(whole)), 0)
    return Parts(whole.subset(train), whole.subset(test))


def cifar10(request: Request) -> Parts:
    """Return CIFAR-10, 32x32."""
    return _from_torchvision("cifar10", "CIFAR10", request, request.root, CIFAR10_STATISTICS)


def cifar100(request: Request) -> Parts:
    """Return CIFAR-100, 32x32, with the 100 fine labels."""
    return _from_torchvision("cifar100", "CIFAR100", request, request.root, CIFAR100_STATISTICS)


def fashion_mnist(request: Request) -> Parts:
    """Return Fashion-MNIST, 28x28 grey."""
    return _from_torchvision("fashion-mnist", "FashionMNIST", request, request.root)


def svhn(request: Request) -> Parts:
    """Return the cropped digits of SVHN, 32x32, without its extra set."""
    root = request.root / "svhn"
    train, test = (
        _images(_opened("svhn", "SVHN", request, root, split=split), tuple("0123456789")) for split in ("train", "test")
    )
    return Parts(train, test)


def tiny_imagenet(request: Request) -> Parts:
    """Return TinyImageNet-200, 64x64, with its validation set as the test set.

    Read from root/tiny-imagenet-200, either as two trees of class folders or in the original layout, where val/images
    lies beside val/val_annotations.txt.
    """
    root = request.root / "tiny-imagenet-200"
    _must_be_there("tiny-imagenet", root)
    train = class_tree(root / "train")
    annotations = root / "val" / "val_annotations.txt"
    test = _annotated(annotations, train.classes) if annotations.is_file() else class_tree(root / "val", train.classes)
    return Parts(train, test)


def imagenet(request: Request) -> Parts:
    """Return ImageNet, from the trees root/imagenet/train and val, with its validation set as the test set."""
    root = request.root / "imagenet"
    _must_be_there("imagenet", root)
    train = class_tree(root / "train")
    return Parts(train, class_tree(root / "val", train.classes), statistics=IMAGENET_STATISTICS)


NAMED: dict[str, Callable[[Request], Parts]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "fashion-mnist": fashion_mnist,
    "tiny-imagenet": tiny_imagenet,
    "imagenet": imagenet,
}
"""Every data set by name, the one list."""


def _from_torchvision(
    name: str, kind: str, request: Request, root: Path, statistics: Statistics | None = None
) -> Parts:
    train, test = (_opened(name, kind, request, root, train=part) for part in (True, False))
    classes = tuple(train.classes)
    return Parts(_images(train, classes), _images(test, classes), statistics=statistics)


def _opened(name: str, kind: str, request: Request, root: Path, **part: bool | str) -> Any:
    """Return one of torchvision's data sets, with one line of what to do where it is not there."""
    from torchvision import datasets

    try:
        return getattr(datasets, kind)(root=str(root), download=request.download, **part)
    except UNREADABLE as error:
        reason = one_line(error)
        if request.download:
            raise FileNotFoundError(
                f"{name} could not be downloaded into {root}: {reason}; or pass npz:PATH"
            ) from error
        advice = "pass --download (download=True) to fetch it, or npz:PATH to read an archive of your own"
        raise FileNotFoundError(f"{name} is not, or not whole, under {root}: {advice} ({reason})") from error


def _images(dataset: Any, classes: tuple[str, ...]) -> Images:
    """Return a torchvision data set's pixels as (n, c, h, w), whichever way it keeps them."""
    pixels = torch.as_tensor(dataset.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[1] != 3:
        pixels = pixels.permute(0, 3, 1, 2)
    labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
    return Images(pixels.contiguous(), torch.as_tensor(labels, dtype=torch.int64), classes)


def _must_be_there(name: str, root: Path) -> None:
    if not root.is_dir():
        advice = "unpack it there (train/ and val/ with a folder a class; there is no download), or pass folder:PATH"
        raise FileNotFoundError(f"{name} is not under {root}: {advice}")


def _annotated(annotations: Path, classes: tuple[str, ...]) -> Files:
    """List val/images by the lines ``file<TAB>class<TAB>box`` of TinyImageNet's annotations."""
    index = {name: label for label, name in enumerate(classes)}
    pairs = []
    for number, line in enumerate(annotations.read_text().splitlines(), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in index:
            raise ValueError(f"{annotations}, line {number}: {wnid!r} is not a class folder of train/")
        pairs.append((str(annotations.parent / "images" / name), index[wnid]))
    return listed(pairs, classes, annotations)
